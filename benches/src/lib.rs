//! Figures a user would ask for: one program a question, listed in README.md with how to run it. This is what they share.

mod job;
mod keys;
mod surroundings;

pub use job::{spec, wide, workload};
pub use keys::{keys, row};
pub use surroundings::{Latencies, ports};

/// The servers' own: what runs in a bench's process runs in a server's otherwise.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
