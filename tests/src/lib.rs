//! Tests that belong to no single crate: `house/` reads the workspace itself.
//!
//! `ring/` and `simpletuner/` drive the built program; Cargo hands its path only to the tests of its own package, so
//! `cli/Cargo.toml` names `ring` as a test of the `stepcast` package.
