//! What several tests share: numbers from a seed, checkers of what was seen of a cluster, and programs of others.
//!
//! A checker knows no network, clock or process: it takes what somebody wrote down and says what is wrong with it.
//! [`moto`], [`s3_faults`] and [`python`] start what others have made, or say in one line that it is not installed.
//! `house/` reads the workspace itself. `ring/`, `cluster/` and `simpletuner/` drive the built program; Cargo hands its
//! path only to the tests of its own package, so `cli/Cargo.toml` names the first two as tests of the `stepcast`
//! package.

pub mod drains;
pub mod jobs;
pub mod linearizable;
pub mod lists;
pub mod moto;
pub mod once;
pub mod python;
pub mod random;
pub mod s3_faults;
pub mod watches;
