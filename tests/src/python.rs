//! Programs of others that read what we write: Python with DuckDB, Polars and the Delta reader, where installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the interpreter that has `tests/python/requirements.txt` installed; `.ci/run` sets it.
const INTERPRETER: &str = "STEPCAST_TEST_PYTHON";

/// An interpreter that has some modules.
#[derive(Debug)]
pub struct Python(PathBuf);

impl Python {
    /// The interpreter, if it has these modules; otherwise one line says what is missing.
    #[must_use]
    pub fn with(modules: &[&str]) -> Option<Self> {
        let named = std::env::var_os(INTERPRETER);
        let interpreter = named.map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        let import = format!("import {}", modules.join(", "));
        let tried = Command::new(&interpreter)
            .args(["-c", &import])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if tried.is_ok_and(|status| status.success()) {
            return Some(Self(interpreter));
        }
        eprintln!(
            "skipped: no Python with {} (pip install -r tests/python/requirements.txt, {INTERPRETER})",
            modules.join(", ")
        );
        None
    }

    /// Runs a module as a program in a folder, where it may leave what it likes, whatever it comes to.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn module(&self, folder: &Path, module: &str, arguments: &[&str]) -> std::process::Output {
        Command::new(&self.0)
            .current_dir(folder)
            .args(["-m", module])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the interpreter ran before")
    }

    /// What a script of `tests/python` prints.
    ///
    /// # Panics
    /// When it cannot be run or fails, with what it said.
    #[must_use]
    pub fn run(&self, script: &str, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("python")
            .join(script);
        let output = Command::new(&self.0)
            .arg(&script)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the interpreter ran before");
        assert!(
            output.status.success(),
            "{}: {}",
            script.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
