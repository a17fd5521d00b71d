//! Carries the bytes of one direction of one connection, as its link says.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::link::{Clock, Link};
use crate::random::SharedRandom;

/// Bytes on their way in one direction: what a socket's buffers hold. A sender beyond it waits, as with TCP.
const UNDER_WAY: usize = 256 << 10;

/// Bytes read at once.
const PIECE: usize = 16 << 10;

/// Carries until the sender has closed and everything has come through.
pub(super) async fn run(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut link: watch::Receiver<Link>,
    random: &SharedRandom,
) -> io::Result<()> {
    let mut clock = Clock::new(Instant::now());
    let mut queue: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let (mut under_way, mut closed) = (0, false);
    let mut buffer = vec![0; PIECE];
    loop {
        let now = *link.borrow_and_update();
        if closed && queue.is_empty() {
            return to.shutdown().await;
        }
        let due = queue.front().map(|(due, _)| *due);
        tokio::select! {
            read = from.read(&mut buffer), if !closed && under_way < UNDER_WAY => {
                let bytes = read?;
                closed = bytes == 0;
                if bytes > 0 {
                    let due = clock.due(&now, bytes, Instant::now(), random);
                    queue.push_back((due, buffer[..bytes].to_vec()));
                    under_way += bytes;
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && !now.cut => {
                if let Some((_, piece)) = queue.pop_front() {
                    to.write_all(&piece).await?;
                    under_way -= piece.len();
                }
            }
            changed = link.changed() => {
                // The network ends with its test, and with it every connection.
                if changed.is_err() {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
    }
}
