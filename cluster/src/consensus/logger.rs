//! Passes what Raft's library logs on to `tracing`.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

/// A logger that writes to `tracing`.
pub(super) fn to_tracing() -> Logger {
    Logger::root(ToTracing, o!())
}

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), Never> {
        let message = record.msg();
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{message}"),
            Level::Warning => tracing::warn!(target: "raft", "{message}"),
            // The library calls every election step information; an operator reads that as noise.
            Level::Info | Level::Debug | Level::Trace => {
                tracing::debug!(target: "raft", "{message}")
            }
        }
        Ok(())
    }
}
