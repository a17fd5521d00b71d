//! Work on disks, beside the tasks that keep leases: a disk may take as long as it wants.

use std::panic::resume_unwind;

use tokio::task::JoinError;

/// Does this on a thread of its own, to its end also where nobody waits for it any more. Where it fails, so does who waits.
pub(crate) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            fail_with(error);
            // It was never begun, since the whole program ends.
            std::future::pending().await
        }
    }
}

/// Fails as what was waited for has failed.
pub(crate) fn fail_with(error: JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        resume_unwind(panic);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests {
    use std::fs::{File, OpenOptions};
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    /// What a disk that does not answer holds up for so long has failed: the test ends then instead of hanging.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A file that whoever writes it waits for, as on a disk that does not answer. It cannot be written afterwards either.
    pub(crate) struct Stuck {
        path: PathBuf,
        let_go: mpsc::Sender<()>,
    }

    impl Stuck {
        /// Whoever writes this file waits from now on.
        pub(crate) fn at(path: &Path) -> Self {
            let made = Command::new("mkfifo").arg(path).status().unwrap();
            assert!(made.success());
            let (let_go, asked) = mpsc::channel();
            let late = path.to_owned();
            thread::spawn(move || {
                if asked.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                    drop(asked);
                    answers(&late);
                }
            });
            let path = path.to_owned();
            Self { path, let_go }
        }

        /// The disk answers from now on.
        pub(crate) fn let_go(self) {
            self.let_go.send(()).expect("nothing waits for the disk");
        }
    }

    impl Drop for Stuck {
        fn drop(&mut self) {
            answers(&self.path);
        }
    }

    /// Has whoever waits for the file go on, and who comes later. This does not wait itself, since it both reads and writes.
    fn answers(path: &Path) {
        // It stays open for as long as the test's process. Who has waited before may have removed it.
        if let Ok(file) = OpenOptions::new().read(true).write(true).open(path) {
            let _open: &'static File = Box::leak(Box::new(file));
        }
    }
}
