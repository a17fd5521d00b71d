//! The front door: the cluster, the records and the staging area, over gRPC, Arrow Flight SQL and HTTP with JSON on
//! the same port.
//!
//! [`serve`] answers on a listener until it is told to stop. What it needs is a running node's handle, the estimator and
//! the [`StagingArea`], the last two of which also give the node its ports ([`EstimatedForecasts`], [`EstimatedPrices`],
//! [`EstimatorSink`]).
//! Everything that comes in is checked here, and everything that goes out is converted here: no wire type goes further.

mod access;
mod admission;
mod auth;
mod certificate;
mod config;
mod context;
mod convert;
mod credentials;
mod fit;
mod flight;
mod freshness;
mod grpc;
mod health;
mod http;
mod limits;
mod lines;
mod listen;
mod names;
mod open;
mod origin;
mod oversize;
mod ports;
mod probes;
mod reader;
mod reading;
mod redirect;
mod room;
mod screening;
mod server;
mod service;
mod spoken;
mod staging;
pub mod status;
mod submission;
mod turns;
mod wire;

pub use auth::{AccessToken, AccessTokenError, first_operator_token};
pub use certificate::{Own as OwnCertificate, own as own_certificate};
pub use config::{ApiConfig, Connections, PrivacyMode};
pub use ports::{EstimatedForecasts, EstimatedPrices, EstimatorSink};
pub use probes::Probes;
pub use server::{Error, serve};
pub use staging::{Error as StagingError, StagingArea};
