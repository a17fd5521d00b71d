//! The front door as a caller meets it: a real node, real tables and real gRPC over loopback.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod ahead;
mod bodies;
mod changes;
mod clients;
mod connections;
mod credentials;
mod early;
mod expected;
mod flight;
mod gangs;
mod http;
mod leaving;
mod limits;
mod members;
mod operating;
mod prices;
mod probes;
mod readers;
mod refusals;
mod ring;
mod scheduling;
mod shares;
mod sites;
mod stopping;
mod submissions;
mod support;
mod take_back;
mod tasks;
mod tls;
mod tokens;
mod unread;
