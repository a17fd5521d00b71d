//! Endpoints on loopback that speak real TLS with each other.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod exchange;
mod faults;
mod joining;
mod moved;
mod refused;
mod snapshot;
mod support;
