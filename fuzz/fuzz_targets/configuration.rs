//! Whatever somebody submits as a configuration: it is understood within bounds, or everything wrong with it is said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepcast_records::simpletuner::{File, Files, Options, read, references};

/// The three ways to write a configuration.
const NAMES: [&str; 3] = ["config.json", "config.toml", "config.env"];

fuzz_target!(|data: &[u8]| {
    let Some((name, data)) = data.split_first() else {
        return;
    };
    let name = NAMES[usize::from(*name) % NAMES.len()];
    let mut pieces = stepcast_fuzz::pieces(data);
    let config = File::new(name, pieces.next().unwrap_or_default());
    let _ = references(&config);
    let mut file = |name| pieces.next().map(|bytes| File::new(name, bytes));
    let files = Files {
        config,
        data_backend: file("multidatabackend.json"),
        lycoris: file("lycoris.json"),
        prompt_library: file("prompts.json"),
    };
    match read(&files, &Options::default()) {
        Ok(reading) => {
            assert_eq!(reading.workload.check(), Ok(()));
            for gpus in [1, 8] {
                let _ = reading.workload.plan(gpus);
            }
        }
        Err(problems) => assert!(!problems.0.is_empty()),
    }
});
