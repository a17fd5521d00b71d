//! A full disk under a server's data folder, and under its staging area.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{estimates, health, jobs};
use crate::support::{FIGURES, Ring, example, until};

/// Room for the log and what else a server writes at its start, above the reserve of 64 MiB that it keeps.
const DISK_MIB: u64 = 160;

/// What a person reads.
const REFUSAL: &str = "error: the server's disk is nearly full, so nothing new is taken\n  \
                       hint: make room on the disk of the server's data folder; running jobs go on\n";

/// A file system of its own in memory; taken away again when dropped.
struct Small(PathBuf);

impl Small {
    /// Mounts one, or says in one line why there is none.
    fn mount(folder: &Path) -> Option<Self> {
        let size = format!("size={DISK_MIB}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder.to_owned()));
        }
        eprintln!("skipped: only root may mount the small disk that this test fills");
        None
    }

    /// Takes room until so much is left.
    fn leave(&self, bytes: u64) -> PathBuf {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        let path = self.0.join("filler");
        fs::write(&path, vec![7; usize::try_from(free - bytes).unwrap()]).unwrap();
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Without this right there was nothing to mount either.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A server on a small disk.
fn ring() -> Option<(Ring, Small)> {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let small = Small::mount(&data)?;
    Some((Ring::over(folder, &[], &[]), small))
}

fn pair(job: &str, state: &str) -> (String, String) {
    (job.to_owned(), state.to_owned())
}

#[test]
fn a_nearly_full_disk_refuses_jobs_and_lets_ends_through() {
    let Some((ring, small)) = ring() else { return };
    let (first, second) = (ring.submit(&[]), ring.submit(&[]));
    let filler = small.leave(32 << 20);
    until(|| health(&ring) == "STORAGE_FULL");
    let path = example();
    let submit = ["submit", path.to_str().unwrap(), "--yes"];
    let stderr = ring.call(&submit).refused(1);
    assert!(stderr.ends_with(REFUSAL), "{stderr}");
    let json = ring.call(&[&submit[..], &["--json"]].concat()).refused(1);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["error"]["reason"], "STORAGE_FULL");
    estimates(&ring);
    ring.call(&["job", "cancel", &first]).ok();
    let mut known = vec![pair(&first, "CANCELLED"), pair(&second, "PENDING")];
    known.sort();
    assert_eq!(jobs(&ring), known);

    fs::remove_file(filler).unwrap();
    until(|| health(&ring) == "SERVING");
    known.push(pair(&ring.submit(&[]), "PENDING"));
    known.sort();
    assert_eq!(jobs(&ring), known);
}

#[test]
fn a_full_disk_of_the_staging_area_is_told_as_that() {
    let folder = tempfile::tempdir().unwrap();
    let staging = folder.path().join("shared");
    fs::create_dir(&staging).unwrap();
    let Some(small) = Small::mount(&staging) else {
        return;
    };
    let ring = Ring::over(folder, &["--staging", "shared"], &[]);
    let status = || ring.call(&["cluster", "status", "--json"]).json();
    assert_eq!(status()["staging_trouble"], "");
    let filler = small.leave(32 << 20);
    let path = example();
    let submit = ["submit", path.to_str().unwrap(), "--yes"];
    let json = ring.call(&[&submit[..], &["--json"]].concat()).refused(1);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["error"]["reason"], "STAGING_DISK_FULL");
    let hint = json["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("--staging"), "{hint}");
    let told = status();
    assert_eq!(told["health"], "SERVING");
    let trouble = told["staging_trouble"].as_str().unwrap();
    assert!(trouble.starts_with("its disk is nearly full"), "{trouble}");

    fs::remove_file(filler).unwrap();
    assert_eq!(status()["staging_trouble"], "");
    ring.submit(&[]);
}

#[test]
fn a_full_disk_loses_nothing_and_the_server_goes_on_when_there_is_room() {
    let Some((ring, small)) = ring() else { return };
    let first = ring.submit(&[]);
    let file = ring.file("figures.csv", FIGURES);
    let filler = small.leave(1 << 20);
    let mut rest = fs::OpenOptions::new().append(true).open(&filler).unwrap();
    while rest.write_all(&[7; 4 << 10]).is_ok() {}
    drop(rest);
    until(|| health(&ring) == "STORAGE_FULL");
    let path = example();
    let submit = ["submit", path.to_str().unwrap(), "--yes"];
    let stderr = ring.call(&submit).refused(1);
    assert!(stderr.ends_with(REFUSAL), "{stderr}");
    let import = ["records", "import", &file, "--source", "lab"];
    assert_eq!(ring.call(&import).refused(1), REFUSAL);
    estimates(&ring);
    assert_eq!(jobs(&ring), [pair(&first, "PENDING")]);

    fs::remove_file(filler).unwrap();
    until(|| health(&ring) == "SERVING");
    let second = ring.submit(&[]);
    let mut known = vec![pair(&first, "PENDING"), pair(&second, "PENDING")];
    known.sort();
    assert_eq!(jobs(&ring), known);
    assert_eq!(
        ring.call(&[&import[..], &["--json"]].concat()).json()["rows_stored"],
        2
    );
}
