//! A staging area that was moved from a folder into a bucket, or back: object by object and file by file as it lay.

use std::collections::BTreeSet;
use std::path::Path as FilePath;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;

const LARGE: StagingId = StagingId([9; 16]);
const JOB: JobId = JobId(5);

fn id(number: u8) -> StagingId {
    StagingId([number; 16])
}

/// More than a segment takes.
fn large() -> Vec<StagedFile> {
    let mut files = files();
    files[0].content = vec![b'x'; 200 << 10];
    files
}

/// A place with submissions of both sizes and what a trainer has printed, in use for a while.
async fn filled(area: &StagingArea) {
    area.claim(OURS, true, &[]).await.unwrap();
    for number in 1..=6 {
        area.put(id(number), &files()).await.unwrap();
    }
    area.put(LARGE, &large()).await.unwrap();
    area.remove(id(2)).await.unwrap();
}

/// Every file below a folder, by its path there. A process that has ended may still take its own away.
fn files_below(root: &FilePath) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(content) = std::fs::read(&path) {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                found.push((name.to_owned(), content));
            }
        }
    }
    found
}

async fn copy_up(root: &FilePath, store: &dyn ObjectStore, prefix: &ObjectPath) {
    for (name, content) in files_below(root) {
        let to = name
            .split('/')
            .fold(prefix.clone(), |to, part| to.join(part));
        store.put(&to, content.into()).await.unwrap();
    }
}

async fn copy_down(store: &dyn ObjectStore, prefix: &ObjectPath, root: &FilePath) {
    let objects: Vec<_> = store.list(Some(prefix)).try_collect().await.unwrap();
    for object in objects {
        let name: Vec<_> = object.location.prefix_match(prefix).unwrap().collect();
        let name: Vec<&str> = name.iter().map(AsRef::as_ref).collect();
        let path = root.join(name.join("/"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = store.get(&object.location).await.unwrap();
        std::fs::write(path, content.bytes().await.unwrap()).unwrap();
    }
}

/// Everything that was there is there, and what is deleted leaves nothing.
async fn has_all(area: &StagingArea) {
    for number in [1, 3, 4, 5, 6] {
        assert_eq!(area.get(id(number)).await.unwrap(), files(), "{number}");
    }
    assert_eq!(area.get(LARGE).await.unwrap(), large());
    assert!(matches!(area.get(id(2)).await, Err(Error::Missing)));
    assert_eq!(area.lines().read(JOB).await.unwrap(), "printed\n");
    let found = area.older_than(Duration::ZERO, 100).await.unwrap();
    assert_eq!(found, [1, 3, 4, 5, 6, 9].map(id), "a sweep sees all");
    for staging in found {
        area.delete(staging).await.unwrap();
        assert!(matches!(area.get(staging).await, Err(Error::Missing)));
    }
}

/// From a folder into a store, with two nodes there.
async fn up(store: Arc<dyn ObjectStore>, prefix: ObjectPath) {
    let root = tempfile::tempdir().unwrap();
    filled(&StagingArea::open(root.path()).unwrap()).await;
    let part = root.path().join(LINES).join(JOB.to_string());
    std::fs::create_dir(&part).unwrap();
    std::fs::write(part.join("00000000-aabbccdd"), "printed\n").unwrap();
    // What a node leaves that fails in the middle of a write: a part of a submission, and one that is not whole and was sent
    // again to another.
    let spare = root.path().join("spare-00000000000000aa");
    std::fs::create_dir(&spare).unwrap();
    std::fs::write(spare.join("1"), "half a submiss").unwrap();
    let segments = root.path().join("segments");
    let (name, mut torn) = files_below(&segments).pop().unwrap();
    torn[200..4_096].fill(0);
    std::fs::write(segments.join(&name), torn).unwrap();
    filled(&StagingArea::open(root.path()).unwrap()).await;
    copy_up(root.path(), store.as_ref(), &prefix).await;

    let open = || StagingArea::in_bucket("moved".into(), Arc::clone(&store), prefix.clone());
    let elsewhere = open()
        .claim(OURS, true, &[StagingId([77; 16])])
        .await
        .unwrap_err();
    assert!(
        matches!(elsewhere, Error::WithoutFiles { .. }),
        "{elsewhere}"
    );
    let (one, other) = (open(), open());
    // Before it is known whose it is, and by both at once.
    let (first, second) = tokio::join!(one.get(id(6)), other.get(LARGE));
    assert_eq!((first.unwrap(), second.unwrap()), (files(), large()));
    one.claim(OURS, true, &[id(3)]).await.unwrap();
    other.claim(OURS, false, &[]).await.unwrap();
    has_all(&one).await;
    let left: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
    let left: BTreeSet<String> = left
        .iter()
        .map(|object| object.location.to_string())
        .collect();
    let expected = [
        "cluster".to_owned(),
        format!("lines/{JOB}/00000000-aabbccdd"),
    ];
    let expected = expected.map(|name| format!("{prefix}/{name}"));
    assert_eq!(left, BTreeSet::from(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_folder_into_a_store() {
    up(Arc::new(InMemory::new()), ObjectPath::from("a/b")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_folder_into_a_bucket_of_an_s3_server() {
    let Some(server) = Moto::start("jobs") else {
        return;
    };
    let (store, prefix) = bucket(&server).object_store().unwrap();
    up(store, prefix).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_store_into_a_folder() {
    let (store, prefix) = (Arc::new(InMemory::new()), ObjectPath::from("a/b"));
    let open = || StagingArea::in_bucket("first".into(), Arc::clone(&store) as _, prefix.clone());
    filled(&open()).await;
    let part = prefix.clone().join(LINES).join(JOB.to_string());
    let part = part.join("00000000-aabbccdd");
    store.put(&part, "printed\n".into()).await.unwrap();
    let root = tempfile::tempdir().unwrap();
    copy_down(store.as_ref(), &prefix, root.path()).await;

    let [one, other] = [(); 2].map(|()| StagingArea::open(root.path()).unwrap());
    assert_eq!(
        one.get(id(6)).await.unwrap(),
        files(),
        "before it is claimed"
    );
    one.claim(OURS, true, &[id(3)]).await.unwrap();
    other.claim(OURS, false, &[]).await.unwrap();
    assert!(!root.path().join("submissions").exists());
    assert_eq!(other.get(LARGE).await.unwrap(), large());
    has_all(&one).await;
    drop((one, other));
    let left: BTreeSet<String> = files_below(root.path())
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let expected = [
        "cluster".to_owned(),
        format!("lines/{JOB}/00000000-aabbccdd"),
    ];
    assert!(
        left.iter()
            .all(|name| expected.contains(name) || name.starts_with("spare-")),
        "{left:?}"
    );
}
