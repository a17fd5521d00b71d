//! Whatever a trainer posts: it is an event or none, and never more than a few kilobytes of it are kept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepcast_worker::event;

fuzz_target!(|data: &[u8]| {
    if let Ok(received) = event::parse(data) {
        let kept = format!("{received:?}").len();
        assert!(kept < 64 << 10, "{kept} bytes are kept");
    }
});
