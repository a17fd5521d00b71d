//! The configurations that a real SimpleTuner was run with, read: what it refused is refused, with the same place.
//!
//! They lie in `shared/simpletuner-cpu/config` beside the repository and are not part of it.
#![expect(
    clippy::print_stdout,
    reason = "a test that has nothing to read says so"
)]

use std::path::Path;

use stepcast_records::simpletuner::{self, File, Files, Options, Reading};

/// Where each configuration's problem is; empty for those that can be planned.
///
/// Two of the bad ones name data or weights that are not there, which only the trainer can find.
const CONFIGURATIONS: [(&str, &str); 9] = [
    ("tiny", ""),
    ("resume", ""),
    ("long", ""),
    ("bad-dataset", ""),
    ("bad-model", ""),
    ("bad-json", "line 13, column 3"),
    ("bad-missing", "$.model_family"),
    ("bad-optimizer", "$.optimizer"),
    ("bad-unknown", "$.no_such_option"),
];

#[test]
fn real_configurations_are_read_and_bad_ones_refused_at_their_place() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/simpletuner-cpu/config");
    if !folder.is_dir() {
        println!("not there, so nothing is read: {}", folder.display());
        return;
    }
    for (name, place) in CONFIGURATIONS {
        let places = match read(&folder, name) {
            Ok(reading) => {
                assert!(reading.workload.plan(1).is_ok(), "{name}");
                String::new()
            }
            Err(places) => places,
        };
        assert_eq!(places, place, "{name}");
    }
}

#[test]
fn the_tiny_run_is_planned_as_it_went() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/simpletuner-cpu/config");
    let Ok(reading) = read(&folder, "tiny") else {
        return;
    };
    // What was seen: 30 steps, 4 validations of two pictures with the baseline, 3 checkpoints.
    let plan = reading.workload.plan(1).expect("a plan");
    let prompts: u64 = plan.validation.iter().map(|part| part.1.all).sum();
    let seen = (
        plan.steps_total,
        plan.validation_passes,
        prompts,
        plan.checkpoints,
    );
    assert_eq!(seen, (30, 4, 8, 3));
}

/// Reads the configuration of a folder; `Err` with the places of its problems.
fn read(folder: &Path, name: &str) -> Result<Reading, String> {
    let bytes =
        std::fs::read(folder.join(name).join("config.json")).map_err(|error| error.to_string())?;
    // The one that resumes shares the data loader's file of the run it goes on with.
    let own = folder.join(name).join("multidatabackend.json");
    let loader =
        std::fs::read(own).or_else(|_| std::fs::read(folder.join("tiny/multidatabackend.json")));
    let loader = loader.map_err(|error| error.to_string())?;
    let files = Files {
        config: File::new("config.json", &bytes),
        data_backend: Some(File::new("multidatabackend.json", &loader)),
        lycoris: None,
        prompt_library: None,
    };
    simpletuner::read(&files, &Options::default()).map_err(|problems| {
        let places: Vec<String> = problems.0.into_iter().map(|problem| problem.path).collect();
        places.join(", ")
    })
}
