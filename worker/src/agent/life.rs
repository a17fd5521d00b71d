//! Where an attempt stands between its assignment and its end. Times are milliseconds of the agent's clock.

/// The states of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// No renewal is answered yet, so nothing may run.
    Waiting,
    /// The loop prepares and starts the trainer.
    Launching,
    Running,
    /// A checkpoint is asked for; SIGTERM when it is there or at this time.
    Checkpointing(u64),
    /// Training is complete and the end is asked for; SIGTERM at this time.
    Finishing(u64),
    /// SIGTERM is sent; SIGKILL at this time.
    Terminating(u64),
    /// SIGKILL is sent; given up at this time.
    Killing(u64),
    Ended,
}
