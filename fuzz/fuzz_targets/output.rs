//! Whatever a trainer prints: its lines are cut, and the secrets that are known are in none of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepcast_worker::capture::Capture;
use stepcast_worker::redact::Redactor;

/// A secret that no other secret's mark contains.
const SECRET: &str = "correct-horse-battery";

fuzz_target!(|data: &[u8]| {
    let redactor = || Redactor::new([("SOME_TOKEN", SECRET)], &[]);
    let mut capture = Capture::new(redactor());
    let mut lines = Vec::new();
    // In two chunks, wherever the first byte says.
    let at = data
        .first()
        .map_or(0, |at| usize::from(*at))
        .min(data.len());
    let (first, second) = data.split_at(at);
    lines.extend(capture.push(first));
    lines.extend(capture.push(second));
    lines.extend(capture.finish());
    for line in lines.iter().chain(&capture.tail()) {
        assert!(!line.contains(SECRET), "{line}");
        assert!(!line.contains('\n'));
    }
    // The same output in one chunk has the same lines.
    let mut whole = Capture::new(redactor());
    let mut once = whole.push(data);
    once.extend(whole.finish());
    assert_eq!(once, lines);
    assert_eq!(whole.tail(), capture.tail());
});
