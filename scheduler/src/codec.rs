//! Envelopes as bytes: a version, then a compact form of fixed order. The same envelope always gives the same bytes.

mod behind;
mod parts;

pub(crate) use parts::Parts;

use crate::command::{Command, Envelope};

/// The format this version writes, and the newest it reads. What reads what is in docs/operating.md.
///
/// 2 has the bytes of 1 and other rules: larger [`Bounds`](crate::model::limits::Bounds), and a job that loses its
/// worker for the first time goes back into the queue at once.
///
/// 3 has new commands, the [`Terms`](crate::model::Terms) of a job behind the command that brings it, behind
/// everything in whose name it is done, and behind that what only some have: the names of the credentials that a job needs,
/// and what belongs to several hosts. Money is set aside for every attempt from there on.
pub const VERSION: u16 = 3;

/// What a log begins with, until a [`Command::Barrier`] raises it.
pub const FIRST: u16 = 1;

/// The bytes are no envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A newer version of this program wrote it.
    #[error(
        "it is written in format {found}, and this version reads up to {VERSION}: upgrade this node"
    )]
    UpgradeRequired {
        /// The format it is in, or that it asks for.
        found: u16,
    },
    /// It is damaged, or names something that only a newer version knows.
    #[error("it cannot be read: {0}")]
    Malformed(String),
}

/// The bytes of an envelope.
#[must_use]
pub fn encode(envelope: &Envelope) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&envelope.version.to_le_bytes());
    let body = (envelope.stamp_ms, envelope.request_id, &envelope.command);
    let written =
        postcard::to_extend(&body, bytes).and_then(|bytes| match envelope.command.spec() {
            Some(spec) if envelope.version >= 3 => postcard::to_extend(&spec.terms, bytes),
            _ => Ok(bytes),
        });
    let written = written.and_then(|bytes| match envelope.version {
        0..3 => Ok(bytes),
        _ => postcard::to_extend(&envelope.actor, bytes),
    });
    let written = written.and_then(|bytes| match envelope.version {
        0..3 => Ok(bytes),
        _ => behind::write(&envelope.command, bytes),
    });
    match written {
        Ok(bytes) => bytes,
        // Memory grows as needed and every length is known beforehand, so there is nothing left that could fail.
        Err(error) => unreachable!("a command is always encodable: {error}"),
    }
}

/// The envelope of bytes.
///
/// # Errors
/// When a newer version is needed, or the bytes are damaged.
pub fn decode(bytes: &[u8]) -> Result<Envelope, Error> {
    let (version, body) = bytes
        .split_first_chunk()
        .ok_or_else(|| malformed("it is too short"))?;
    let version = u16::from_le_bytes(*version);
    if version > VERSION {
        return Err(Error::UpgradeRequired { found: version });
    }
    if version == 0 {
        return Err(malformed("it has no version"));
    }
    let ((stamp_ms, request_id, mut command), mut rest): ((_, _, Command), _) =
        postcard::take_from_bytes(body).map_err(malformed)?;
    if version >= 3
        && let Some(spec) = command.spec_mut()
    {
        (spec.terms, rest) = postcard::take_from_bytes(rest).map_err(malformed)?;
    }
    let actor = if version >= 3 {
        let (actor, after) = postcard::take_from_bytes(rest).map_err(malformed)?;
        rest = after;
        actor
    } else {
        None
    };
    if version >= 3 && !rest.is_empty() {
        rest = behind::read(&mut command, rest)?;
    }
    if command.needs() > version {
        return Err(malformed("it holds what its format does not know"));
    }
    if !rest.is_empty() {
        return Err(malformed("it is too long"));
    }
    match command {
        // A node that does not know the format stops before the first entry that is written in it.
        Command::Barrier { version } if version > VERSION => {
            Err(Error::UpgradeRequired { found: version })
        }
        command => Ok(Envelope {
            version,
            stamp_ms,
            request_id,
            command,
            actor,
        }),
    }
}

fn malformed(why: impl ToString) -> Error {
    Error::Malformed(why.to_string())
}
