//! A folder as a store whose objects survive a loss of power: they are on the disk before they have their name.
//!
//! The usual store of local files names an object before its bytes are on the disk. After a loss of power the last
//! entry of a log could then be there and be empty.

use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Makes the names of files that are not finished different within this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Objects lie in folders at most so deep under the place of the tables.
const DEPTH_MAX: usize = 4;

/// Local files, each written whole or not at all.
#[derive(Debug, Default)]
pub(super) struct Folder {
    files: LocalFileSystem,
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.files.put_opts(path, payload, options).await,
        };
        let file = self.files.path_to_filesystem(path)?;
        let written = tokio::task::spawn_blocking(move || write(&file, &payload, create)).await;
        match written.map_err(|source| Error::JoinError { source })? {
            Ok(()) => Ok(PutResult {
                e_tag: None,
                version: None,
            }),
            Err(error) if create && error.kind() == ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists {
                    path: path.to_string(),
                    source: error.into(),
                })
            }
            Err(error) => Err(Error::Generic {
                store: "folder",
                source: error.into(),
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // All of them with one look at the file, and nothing that lies between them.
        self.files.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("folder")
    }
}

/// Writes the bytes beside the place, sees to it that they are on the disk, and only then gives them their name.
fn write(file: &FilePath, payload: &PutPayload, create: bool) -> io::Result<()> {
    write_by(file, &unfinished(file), payload, create)
}

/// Does so by way of a file that must not be there yet.
fn write_by(
    file: &FilePath,
    unfinished: &FilePath,
    payload: &PutPayload,
    create: bool,
) -> io::Result<()> {
    let folder = file.parent().ok_or(ErrorKind::InvalidInput)?;
    make_folders(folder)?;
    // Of one that is there nothing is said of the name that was asked for, and it is somebody else's to remove.
    let mut open = File::create_new(unfinished).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => io::Error::other("somebody else writes by the same way"),
        _ => error,
    })?;
    let written = (|| {
        payload.iter().try_for_each(|part| open.write_all(part))?;
        open.sync_all()?;
        if create {
            // A second name for the same bytes: fails when somebody else has the name, and is one step otherwise.
            fs::hard_link(unfinished, file)
        } else {
            fs::rename(unfinished, file)
        }
    })();
    if create || written.is_err() {
        // What cannot be removed is in nobody's way, and goes when it is a day old: a name like this is no object's.
        let _ = fs::remove_file(unfinished);
    }
    written?;
    File::open(folder)?.sync_all()
}

/// Names that end in `#` and digits are no objects to the store of local files. The number of a process would not do: in
/// containers it is the same on all nodes, and in each life of one.
fn unfinished(file: &FilePath) -> PathBuf {
    static LIFE: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = file.as_os_str().to_owned();
    name.push(format!("#{:020}{number:06}", *LIFE));
    name.into()
}

/// Removes what processes that were killed have left unfinished in a folder and those in it, if it is older than `oldest`.
/// Returns how many there were; what cannot be looked at or removed is left for the next time.
pub(crate) fn remove_unfinished(folder: &FilePath, oldest: SystemTime) -> usize {
    remove_unfinished_to(folder, oldest, DEPTH_MAX)
}

fn remove_unfinished_to(folder: &FilePath, oldest: SystemTime, depth: usize) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let mut removed = 0;
    for entry in entries.flatten() {
        // Of a link this is about the link: nothing outside is looked at.
        let Ok(meta) = entry.metadata() else { continue };
        let path = entry.path();
        if meta.is_dir() && depth > 0 {
            removed += remove_unfinished_to(&path, oldest, depth - 1);
        }
        let is_old = meta.modified().is_ok_and(|at| at < oldest);
        if meta.is_file() && is_old && is_unfinished(&path) {
            removed += usize::from(fs::remove_file(&path).is_ok());
        }
    }
    removed
}

/// Whether a name is one of [`unfinished`].
fn is_unfinished(file: &FilePath) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.rsplit_once('#'))
        .is_some_and(|(name, number)| {
            // What tells lives apart has one digit at least, beside the six of the number.
            !name.is_empty() && number.len() > 6 && number.bytes().all(|b| b.is_ascii_digit())
        })
}

/// Makes the folders that are missing, and their names last too.
fn make_folders(folder: &FilePath) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().ok_or(ErrorKind::NotFound)?;
    make_folders(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => File::open(above)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;

    fn place(folder: &tempfile::TempDir, name: &str) -> Path {
        Path::from_filesystem_path(folder.path())
            .expect("path")
            .join("a")
            .join("b")
            .join(name)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_name_is_given_once_and_never_to_half_a_file() {
        let folder = tempfile::tempdir().expect("folder");
        let (store, path) = (
            std::sync::Arc::new(Folder::default()),
            place(&folder, "entry.json"),
        );
        let tries = (0..8u8).map(|writer| {
            let (store, path) = (std::sync::Arc::clone(&store), path.clone());
            tokio::spawn(async move {
                let bytes = vec![writer; 100_000];
                store
                    .put_opts(&path, bytes.into(), PutMode::Create.into())
                    .await
            })
        });
        let mut winners = Vec::new();
        for (writer, tried) in (0u8..).zip(tries.collect::<Vec<_>>()) {
            match tried.await.expect("no panic") {
                Ok(_) => winners.push(writer),
                Err(error) => assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}"),
            }
        }
        assert_eq!(winners.len(), 1);
        let found = store
            .get(&path)
            .await
            .expect("object")
            .bytes()
            .await
            .expect("bytes");
        assert_eq!(found, vec![winners[0]; 100_000]);
        store.put(&path, "new".into()).await.expect("overwritten");
        let found = store
            .get(&path)
            .await
            .expect("object")
            .bytes()
            .await
            .expect("bytes");
        assert_eq!(found, "new");
        let left: Vec<_> = fs::read_dir(folder.path().join("a/b"))
            .expect("folder")
            .collect();
        assert_eq!(left.len(), 1, "nothing unfinished is left: {left:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_crash_left_unfinished_is_no_object() {
        let folder = tempfile::tempdir().expect("folder");
        let (store, path) = (Folder::default(), place(&folder, "entry.json"));
        store.put(&path, "whole".into()).await.expect("stored");
        fs::write(
            unfinished(&store.files.path_to_filesystem(&path).expect("path")),
            "ha",
        )
        .expect("left");
        let under = Path::from_filesystem_path(folder.path()).expect("path");
        let found: Vec<_> = store
            .list(Some(&under))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .expect("list");
        assert_eq!(found, [path]);
    }

    /// Two processes of one number on a shared folder, or a second life of one.
    #[test]
    fn what_somebody_else_has_not_finished_is_left_to_it() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("0.json");
        let theirs = unfinished(&file);
        let digits = theirs.to_str().and_then(|name| name.rsplit_once('#'));
        assert_eq!(digits.expect("digits").1.len(), 26, "{theirs:?}");
        fs::write(&theirs, "half").expect("written");
        let error = write_by(&file, &theirs, &"whole".into(), true).expect_err("taken");
        assert_ne!(
            error.kind(),
            ErrorKind::AlreadyExists,
            "nobody has that entry"
        );
        assert_eq!(fs::read(&theirs).expect("there"), b"half");
        write(&file, &"whole".into(), true).expect("another way");
    }

    #[test]
    fn what_a_crash_left_unfinished_goes_when_it_is_old() {
        let folder = tempfile::tempdir().expect("folder");
        let inner = folder.path().join("training_steps/_delta_log");
        fs::create_dir_all(&inner).expect("folders");
        let left = unfinished(&inner.join("0.json"));
        let others = ["0.json", "notes#1", "#1234567", "a#1234567.txt"].map(|n| inner.join(n));
        for file in others.iter().chain([&left]) {
            fs::write(file, "ha").expect("written");
        }
        let now = SystemTime::now();
        let hour = std::time::Duration::from_secs(3_600);
        assert_eq!(remove_unfinished(folder.path(), now - hour), 0, "too young");
        assert_eq!(remove_unfinished(folder.path(), now + hour), 1);
        assert!(!left.exists());
        assert!(others.iter().all(|file| file.exists()));
        assert_eq!(remove_unfinished(&folder.path().join("none"), now), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_place_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(folder.path().join("a"), "a file where a folder should be").expect("file");
        let store = Folder::default();
        let error = store
            .put(&place(&folder, "entry.json"), "x".into())
            .await
            .expect_err("no folder");
        assert!(matches!(error, Error::Generic { .. }), "{error:?}");
    }
}
