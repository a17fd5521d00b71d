//! What a bucket has left in a staging area that was moved from one into a folder: each submission is a file among others,
//! as a large one is here, but below a folder of its own.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use stepcast_scheduler::ids::StagingId;

use super::super::Error;
use super::super::bucket::SUBMISSIONS;
use super::read;
use crate::submission::StagedFile;

/// The files of a submission that lies where a bucket keeps it, or did until a moment ago.
pub(super) fn get(root: &Path, staging: StagingId) -> Result<Vec<StagedFile>, Error> {
    let name = staging.to_string();
    match read(&root.join(SUBMISSIONS).join(&name), staging) {
        Err(Error::Missing) => read(&root.join(name), staging),
        files => files,
    }
}

/// Moves every such submission to where a large one lies. Other processes may do the same at the same time.
pub(super) fn adopt(root: &Path) -> io::Result<()> {
    let below = root.join(SUBMISSIONS);
    let entries = match std::fs::read_dir(&below) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut adopted = 0_usize;
    for entry in entries {
        let name = entry?.file_name();
        let is_one = name.to_str().map(str::parse::<StagingId>);
        if is_one.is_none_or(|parsed| parsed.is_err()) {
            continue;
        }
        match std::fs::rename(below.join(&name), root.join(&name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            renamed => adopted += usize::from(renamed.is_ok()),
        }
    }
    if let Err(error) = std::fs::remove_dir(&below)
        && !matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty
        )
    {
        return Err(error);
    }
    tracing::info!(
        submissions = adopted,
        "the staging area was moved here from a bucket"
    );
    File::open(root)?.sync_all()
}
