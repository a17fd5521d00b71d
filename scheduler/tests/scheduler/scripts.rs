//! Runs every script of `testdata`: each command's output must be what stands below it. `UPDATE=1` rewrites them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::script::Script;

const RULE: &str = "----";

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads its scripts and may rewrite them"
)]
#[test]
fn scripts_say_what_happens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let entries = fs::read_dir(&folder).expect("the folder of scripts");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "there are no scripts");
    let mut different = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("a script");
        let said = run(&text);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &said).expect("a script is rewritten");
        } else if said != text {
            different.push(format!(
                "{}:\n{}",
                path.display(),
                first_difference(&text, &said)
            ));
        }
    }
    assert!(
        different.is_empty(),
        "{}\nUPDATE=1 rewrites",
        different.join("\n")
    );
}

/// The script with the output of every command anew. Comments and blank lines stay.
fn run(text: &str) -> String {
    let mut script = Script::default();
    let mut said = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        said += line;
        said.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let output = script.run(line);
        if lines.peek() == Some(&RULE) {
            while lines.next_if(|line| !line.is_empty()).is_some() {}
        }
        if !output.is_empty() {
            said += &format!("{RULE}\n{}\n", output.trim_end());
        }
    }
    said
}

fn first_difference(before: &str, after: &str) -> String {
    let pair = before
        .lines()
        .zip(after.lines())
        .find(|(before, after)| before != after);
    match pair {
        Some((before, after)) => format!("  stands there: {before}\n  was said:     {after}"),
        None => "  one is longer than the other".to_owned(),
    }
}
