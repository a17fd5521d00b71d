//! What can go wrong with the history, in words that name no path and no secret.

use std::time::Duration;

/// A failure of the estimator's doors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A location, an option, a price list or a header is wrong.
    #[error("{0}")]
    Config(String),
    /// The object store does not answer or refuses; the caller may try again later.
    #[error("the benchmark store does not answer")]
    Unreachable {
        /// What the store's client said. It may name a location; never send it to a tenant.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The object store refuses the credentials: wrong, over, or without the right to do this.
    #[error("the benchmark store refuses the credentials")]
    Denied {
        /// What the store's client said. It may name a location; never send it to a tenant.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Others committed at the same moment, again and again; the caller may try again.
    #[error("others are writing to the {table} table; nothing was stored, try again")]
    Contended {
        /// The table.
        table: &'static str,
    },
    /// What lies under the location is not a table that this version writes.
    #[error("the {table} table was written by something else: {detail}")]
    Foreign {
        /// The table.
        table: &'static str,
        /// What is different.
        detail: String,
    },
    /// The log of a table is damaged so that it cannot be read until an object is put back.
    #[error("the log of the {table} table is damaged: {detail}")]
    LogDamaged {
        /// The table.
        table: &'static str,
        /// What is damaged, and what to do.
        detail: String,
    },
    /// The call holds more than one commit may.
    #[error("a call may hold at most {max} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many are allowed.
        max: usize,
    },
    /// The statement is not allowed; the words are for the person who wrote it.
    #[error("{message}")]
    Refused {
        /// What is not allowed.
        message: String,
        /// What to do instead.
        hint: Option<String>,
    },
    /// The statement is wrong; the words are for the person who wrote it.
    #[error("{message}")]
    Query {
        /// What is wrong.
        message: String,
        /// What to do instead.
        hint: Option<String>,
    },
    /// The statement ran into its limit of time.
    #[error("the query took longer than {} s and was stopped", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The statement ran into its limit of memory.
    #[error("the query needs more memory than a query may have")]
    OutOfMemory,
    /// As many statements as may run at once are running.
    #[error("too many queries are running; try again in a moment")]
    Busy,
    /// An object of the tables is lost, or is there and cannot be read. What is lost or cut is left out from then on, what
    /// is damaged within from the next tidying on.
    #[error("an object of the benchmark tables is damaged")]
    Damaged {
        /// What its reader said. It may name a location; never send it to a tenant.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The process that was to run the statement did not start, or somebody has ended it. The log says which.
    #[error("the server could not run the query, as its log says; try again in a moment")]
    NotRun,
}

impl Error {
    /// Whether the same call may succeed later without any change.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Denied { .. }
                | Self::Contended { .. }
                | Self::Busy
                | Self::NotRun
        )
    }

    /// What the person who caused it may do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } | Self::Query { hint, .. } => hint.as_deref(),
            Self::TimedOut(_) | Self::OutOfMemory => {
                Some("ask for less: a WHERE on recipe or hardware, fewer joins, or a LIMIT")
            }
            Self::Damaged { .. } => Some(
                "tell the operator: the server's log names it. It is left out from the next tidying on at the latest; ask again then",
            ),
            _ => None,
        }
    }

    /// What it means that a request to the store failed.
    pub(crate) fn unreachable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let source = source.into();
        if is_denied(source.as_ref()) {
            return Self::Denied { source };
        }
        Self::Unreachable { source }
    }
}

/// Whether the store's client was refused for who it is. Where a library keeps only the words of the cause, these say it.
fn is_denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let refused = error.downcast_ref::<object_store::Error>();
    let refused = refused.is_some_and(|error| {
        matches!(
            error,
            object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. }
        )
    });
    let text = error.to_string();
    let words = ["403 Forbidden", "401 Unauthorized", "ExpiredToken"];
    refused || words.iter().any(|word| text.contains(word)) || error.source().is_some_and(is_denied)
}
