//! The same calls over HTTP and JSON, in the words that SimpleTuner's own cloud client speaks.
//!
//! A route is added with its permission, its query, its body and its answer; the router and the document that describes
//! it are made of the same list, so that neither can know a route that the other does not.

mod accounts;
pub(crate) mod answer;
mod api;
mod body;
mod document;
mod estimates;
mod figures;
mod forward;
mod given;
mod jobs;
mod misfit;
mod nodes;
mod prices;
mod records;
mod route;
mod session;
mod shapes;
mod submit;
mod sweeps;
mod take_back;
mod teams;
mod unknown;
mod watch;
mod what_if;
mod wishes;
mod workers;

pub(crate) use api::router;
pub(crate) use forward::Way;
