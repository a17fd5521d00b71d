//! Whatever is sent or lies there as a snapshot's file: it is refused, or taken in and read back as the same state.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use stepcast_cluster::consensus::log::Position;
use stepcast_cluster::snapshot::Snapshots;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

/// What the seeds are of.
const AT: Position = Position { index: 9, term: 4 };

fuzz_target!(|data: &[u8]| {
    let snapshots = Snapshots::open(DIR.path()).expect("a folder");
    take(&snapshots, data);
    // With checksums that are right, so that what is behind them is looked at.
    take(
        &snapshots,
        &stepcast_fuzz::sealed(stepcast_fuzz::pieces(data)),
    );
});

fn take(snapshots: &Snapshots, file: &[u8]) {
    let mut incoming = snapshots.receive(AT).expect("a file");
    // Pieces of a size that fits nothing.
    for piece in file.chunks(1021) {
        if incoming.write(piece).is_err() {
            return;
        }
    }
    if let Ok(header) = incoming.finish() {
        let restored = snapshots.adopt(AT).expect("what has been received");
        assert_eq!(restored.header, header);
    }
}
