//! Reads SimpleTuner configurations and prints what each asks for: `read_config [--root DIR]... PATH...`.
//!
//! A path is a configuration or a folder with one. The files that it names are looked for beside it, from where the
//! program runs, and below each root, which may be an installed SimpleTuner package. All of its examples:
//!
//! ```text
//! pip download simpletuner==4.10.1 --no-deps --ignore-requires-python && unzip -q simpletuner-*.whl
//! cargo run -p stepcast-records --example read_config -- --root simpletuner simpletuner/examples/*
//! ```
#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use stepcast_records::simpletuner::{self, File, Files, Options, Problems, Reading};

fn main() -> ExitCode {
    let mut roots = vec![PathBuf::new()];
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--root" {
            roots.extend(arguments.next().map(PathBuf::from));
            continue;
        }
        let Some(path) = configuration(Path::new(&argument)) else {
            println!(
                "{}\n  holds no configuration",
                Path::new(&argument).display()
            );
            *counts.entry("no configuration".to_owned()).or_default() += 1;
            continue;
        };
        println!("{}", path.display());
        let outcome = match read(&path, &roots) {
            Ok(reading) => describe(&reading),
            Err(problems) => {
                println!("  {}", problems.to_string().replace('\n', "\n  "));
                "problem".to_owned()
            }
        };
        *counts.entry(outcome).or_default() += 1;
    }
    println!();
    for (outcome, count) in counts {
        println!("{count:5}  {outcome}");
    }
    ExitCode::SUCCESS
}

/// Prints a reading; gives the outcome it counts as.
fn describe(reading: &Reading) -> String {
    println!("  {}", reading.title);
    for note in &reading.notes {
        println!("  · {note}");
    }
    let plans = [1, 2, 4, 8].map(|gpu_count| reading.workload.plan(gpu_count));
    let outcome = match plans.iter().find(|plan| plan.is_ok()).unwrap_or(&plans[0]) {
        Ok(plan) => {
            let passes = plan.validation_passes;
            let prompts: u64 = plan.validation.iter().map(|part| part.1.all).sum();
            println!(
                "  {} steps, {passes} validations of {prompts} prompts in all",
                plan.steps_total
            );
            "planned"
        }
        Err(missing) => {
            println!("  asks: {missing}");
            "asks"
        }
    };
    let record = if reading.workload.training_on_record() {
        "on record"
    } else {
        "off record"
    };
    format!(
        "{outcome}, {record}, {:?}",
        reading.workload.recipe.modality()
    )
}

fn read(path: &Path, roots: &[PathBuf]) -> Result<Reading, Problems> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let bytes = std::fs::read(path).unwrap_or_default();
    let config = File::new(&name, &bytes);
    let references = simpletuner::references(&config)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let fetch = |named: &Option<String>| {
        named
            .as_deref()
            .and_then(|named| fetched(named, folder, roots))
    };
    let loader = fetch(&references.data_backend);
    let lycoris = fetch(&references.lycoris);
    let prompts = fetch(&references.prompt_library);
    let files = Files {
        config,
        data_backend: loader.as_ref().map(|(name, bytes)| File::new(name, bytes)),
        lycoris: lycoris.as_ref().map(|(name, bytes)| File::new(name, bytes)),
        prompt_library: prompts.as_ref().map(|(name, bytes)| File::new(name, bytes)),
    };
    simpletuner::read(&files, &Options::default())
}

/// A named file with its bytes, from the first place where it lies.
fn fetched(named: &str, folder: &Path, roots: &[PathBuf]) -> Option<(String, Vec<u8>)> {
    let inside_package = named
        .strip_prefix("config/")
        .or(named.strip_prefix("simpletuner/"));
    let below = |root: &PathBuf| {
        [
            Some(root.join(named)),
            inside_package.map(|inner| root.join(inner)),
        ]
    };
    let mut places = vec![folder.join(named)];
    places.extend(Path::new(named).file_name().map(|name| folder.join(name)));
    places.extend(roots.iter().flat_map(below).flatten());
    let bytes = places.iter().find_map(|place| std::fs::read(place).ok())?;
    let name = Path::new(named).file_name().unwrap_or_default();
    Some((name.to_string_lossy().into_owned(), bytes))
}

/// The configuration at a path or in the folder there.
fn configuration(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    let names = ["config.json", "config.toml", "config.env"];
    names
        .iter()
        .map(|name| path.join(name))
        .find(|candidate| candidate.is_file())
}
