//! House rules, checked on the sources themselves: who may depend on whom, how files begin, and what never appears.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dependencies;
mod files;
mod workspace;
