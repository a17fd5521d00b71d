//! A whole node on a real disk: the ring it serves, the rules of sessions, crashes, and a disk that fails.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod anew;
mod backup;
mod catching_up;
mod crash;
mod disk;
mod gangs;
mod leaving;
mod membership;
mod net;
mod orphans;
mod prices;
mod ring;
mod sessions;
mod several;
mod support;
mod upgrade;
mod wire;
