//! What several tests share: numbers from a seed, and checkers of what was seen of a cluster.
//!
//! Nothing here knows a network, a clock or a process: a checker takes what somebody wrote down and says what is wrong
//! with it. `house/` reads the workspace itself. `ring/`, `cluster/` and `simpletuner/` drive the built program; Cargo
//! hands its path only to the tests of its own package, so `cli/Cargo.toml` names the first two as tests of the
//! `stepcast` package.

pub mod drains;
pub mod jobs;
pub mod linearizable;
pub mod lists;
pub mod once;
pub mod random;
pub mod watches;
