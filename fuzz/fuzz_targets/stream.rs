//! Whatever lies there as a recorded stream: it is refused with its line, or read as what it is written as.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use stepcast_worker::stream::{self, Line};

fuzz_target!(|text: &str| {
    if let Ok(lines) = stream::read(text) {
        let again = stream::read(&stream::write(&lines)).expect("a stream that was written");
        assert_eq!(comparable(again), comparable(lines));
    }
});

/// Without numbers that are no integers: read from text, those may come back as the one beside.
fn comparable(mut lines: Vec<Line>) -> Vec<Line> {
    lines
        .iter_mut()
        .filter_map(|line| line.body.as_mut())
        .for_each(forget_fractions);
    lines
}

fn forget_fractions(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => *value = Value::Null,
        Value::Array(values) => values.iter_mut().for_each(forget_fractions),
        Value::Object(values) => values.values_mut().for_each(forget_fractions),
        _ => {}
    }
}
