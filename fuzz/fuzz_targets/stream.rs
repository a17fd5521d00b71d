//! Whatever lies there as a recorded stream: it is refused with its line, or read as what it is written as.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepcast_worker::stream;

fuzz_target!(|text: &str| {
    if let Ok(lines) = stream::read(text) {
        let written = stream::write(&lines);
        let again = stream::read(&written).expect("a stream that was written");
        assert_eq!(stream::write(&again), written);
    }
});
