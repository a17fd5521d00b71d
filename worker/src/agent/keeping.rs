//! Whether the lease of an attempt that has ended is kept: until its end is on the disk, where it can be reported from.

/// How long the lease of an attempt that has ended is kept while its end is written down: the job must not be given elsewhere
/// meanwhile, to do again what is done. Eight ends at once take three minutes on a disk that needs six seconds for each sync;
/// one that never answers must not keep GPUs for ever.
pub const KEEPING_MS: u64 = 5 * 60_000;

/// Whether the lease of an attempt that has ended is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Keeping {
    /// It has not ended, its end can be reported, or its lease is lost.
    #[default]
    No,
    /// It has just ended.
    Begins,
    /// It is let go at this time: what is not written down by then is reported whenever it is.
    Until(u64),
}

impl Keeping {
    /// Does what has become due.
    pub(super) fn tick(&mut self, now: u64) {
        match *self {
            Self::Begins => *self = Self::Until(now.saturating_add(KEEPING_MS)),
            Self::Until(until) if now >= until => *self = Self::No,
            Self::Until(_) | Self::No => {}
        }
    }
}
