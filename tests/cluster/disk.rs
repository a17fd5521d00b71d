//! A small disk of one node's own: a file as a block device with a file system, which can be filled, frozen and slowed.
//! Needs root.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How large it is: the server's reserve of 64 MiB, a log that grows for some minutes, and the file system's own.
const BYTES: u64 = 320 << 20;

/// Writes a second of a slow disk: what a worn SD card does.
const SLOW_WRITES: u32 = 40;

/// Where the first version of control groups limits writes for everything on the machine.
const LIMITS: &str = "/sys/fs/cgroup/blkio/blkio.throttle.write_iops_device";

/// The disk. It is taken away when this is dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    mount: PathBuf,
    /// Its number as the kernel writes it.
    device: String,
}

impl Disk {
    /// Makes a disk and mounts it. `Err` with a reason where this user or this machine cannot.
    pub(crate) fn new(folder: &Path, name: &str) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("a disk of its own needs root".to_owned());
        }
        let (image, mount) = (folder.join(format!("{name}.image")), folder.join(name));
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(BYTES).map_err(|error| error.to_string())?;
        fs::create_dir(&mount).map_err(|error| error.to_string())?;
        run(
            "mkfs.ext4",
            &["-q".as_ref(), "-m".as_ref(), "0".as_ref(), &image],
        )?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &mount])?;
        let arguments = ["--output", "MAJ:MIN", "--noheadings", "--mountpoint"].map(Path::new);
        let device = run("findmnt", &[&arguments[..], &[&mount]].concat())?;
        Ok(Self {
            mount,
            device: device.trim().to_owned(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// Leaves no more than this free.
    pub(crate) fn fill_up_to(&self, left: u64) {
        let room = rustix::fs::statvfs(&self.mount).unwrap();
        let free = room.f_bavail * room.f_frsize;
        let file = File::create(self.ballast()).unwrap();
        let bytes = free.saturating_sub(left);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
    }

    /// Gives the room back.
    pub(crate) fn empty(&self) {
        // It may not have been filled.
        let _ = fs::remove_file(self.ballast());
    }

    /// Nothing is written until it thaws.
    pub(crate) fn freeze(&self) {
        run("fsfreeze", &["--freeze".as_ref(), &self.mount]).unwrap();
    }

    pub(crate) fn thaw(&self) {
        // It may not be frozen.
        let _ = run("fsfreeze", &["--unfreeze".as_ref(), &self.mount]);
    }

    /// Makes writes rare, where the machine has such limits.
    pub(crate) fn slow(&self) {
        if let Err(why) = fs::write(LIMITS, format!("{} {SLOW_WRITES}", self.device)) {
            println!("writes are not slowed, for {LIMITS} is not there: {why}");
        }
    }

    pub(crate) fn quick(&self) {
        let _ = fs::write(LIMITS, format!("{} 0", self.device));
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        self.quick();
        // Lazily: whoever still writes there is being killed.
        let _ = run("umount", &["--lazy".as_ref(), &self.mount]);
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("`{program}` cannot be started: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{program}`: {}", said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
