//! Tests that a folder, a store in memory and a real S3 server pass alike, with two nodes at each.

mod moved;

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use stepcast_tests::moto::Moto;

use super::*;
use crate::submission::Role;

const ID: StagingId = StagingId([7; 16]);
const OURS: u64 = 0xfeed;

fn files() -> Vec<StagedFile> {
    let file = |role, name: &str, content: &[u8]| StagedFile {
        role,
        name: name.into(),
        content: content.into(),
    };
    vec![
        file(Role::Config, "config.json", b"{}"),
        file(Role::DataLoader, "my-data.json", &[b' '; 4_000]),
    ]
}

/// The same place as two nodes see it.
fn in_memory() -> [StagingArea; 2] {
    let store = Arc::new(InMemory::new());
    [(); 2].map(|()| {
        StagingArea::in_bucket(
            "memory".into(),
            Arc::clone(&store) as _,
            ObjectPath::from("a/b"),
        )
    })
}

/// What any place does for two nodes.
async fn passes([one, other]: [StagingArea; 2]) {
    let elsewhere = one.claim(OURS, true, &[ID]).await.unwrap_err();
    assert!(
        matches!(elsewhere, Error::WithoutFiles { .. }),
        "a job's files are not in it: {elsewhere}"
    );
    one.put(ID, &files()).await.unwrap();
    one.claim(OURS, true, &[StagingId([8; 16]), ID])
        .await
        .unwrap();
    one.remove(ID).await.unwrap();
    let emptied = other.claim(OURS, true, &[ID]).await.unwrap_err();
    assert!(
        matches!(emptied, Error::WithoutFiles { .. }),
        "its files are not in it, whoever's it is: {emptied}"
    );
    one.claim(OURS, true, &[]).await.unwrap();
    other.claim(OURS, false, &[]).await.unwrap();
    let foreign = other.claim(OURS + 1, true, &[ID]).await.unwrap_err();
    let words = foreign.to_string();
    assert!(
        matches!(foreign, Error::Foreign { .. }) && words.contains("cluster 000000000000feed"),
        "{words}"
    );

    assert!(matches!(other.get(ID).await, Err(Error::Missing)));
    let (told, written) = std::sync::mpsc::channel();
    let told_again = told.clone();
    let tell = Box::new(move |_| told.send(()).unwrap());
    let put = one.put_and(ID, &files(), tell).await.unwrap();
    assert_eq!((put, written.try_iter().count()), (Put::New, 1));
    let tell = Box::new(move |_| told_again.send(()).unwrap());
    let put = one.put_and(ID, &files(), tell).await.unwrap();
    assert_eq!((put, written.try_iter().count()), (Put::There, 1));
    one.delete(ID).await.unwrap();
    assert_eq!(one.put(ID, &files()).await.unwrap(), Put::New);
    assert_eq!(one.put(ID, &files()).await.unwrap(), Put::There);
    // In a folder each node looks after what it has put itself.
    other.put(ID, &files()).await.unwrap();
    assert_eq!(other.get(ID).await.unwrap(), files());
    assert_eq!(one.older_than(Duration::ZERO, 10).await.unwrap(), [ID]);
    let hour = Duration::from_secs(3_600);
    assert_eq!(one.older_than(hour, 10).await.unwrap(), []);
    // While it is not known whose it is, nothing is missing, taken or left behind.
    one.hold(true);
    let unknown = |result| matches!(result, Err(Error::Store(_)));
    assert!(unknown(one.get(StagingId([9; 16])).await.map(drop)));
    assert!(unknown(
        one.put(StagingId([9; 16]), &files()).await.map(drop)
    ));
    assert_eq!(one.older_than(Duration::ZERO, 10).await.unwrap(), []);
    one.hold(false);

    other.delete(ID).await.unwrap();
    one.delete(ID).await.unwrap();
    assert!(matches!(one.get(ID).await, Err(Error::Missing)));
    assert_eq!(one.put(ID, &files()).await.unwrap(), Put::New);
    one.delete(ID).await.unwrap();

    let (one, other) = (Arc::new(one), Arc::new(other));
    // The same at once from both nodes.
    for number in 1..=4 {
        let id = StagingId([number; 16]);
        let files = files();
        let (one, other) = tokio::join!(one.put(id, &files), other.put(id, &files));
        let puts = [one.unwrap(), other.unwrap()];
        assert!(puts.contains(&Put::New), "{puts:?}");
    }
    // Every old submission comes up in its turn, however few a call may give.
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.extend(other.older_than(Duration::ZERO, 2).await.unwrap());
    }
    seen.truncate(4);
    assert_eq!(seen, [1, 2, 3, 4].map(|number| StagingId([number; 16])));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_share_a_folder() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("staging");
    passes([(); 2].map(|()| StagingArea::open(&place).unwrap())).await;
}

#[tokio::test]
async fn two_nodes_share_a_store() {
    passes(in_memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_share_a_bucket_of_an_s3_server() {
    let Some(server) = Moto::start("jobs") else {
        return;
    };
    passes([(); 2].map(|()| StagingArea::in_store(&bucket(&server)).unwrap())).await;
}

#[tokio::test]
async fn a_node_with_another_place_is_told_so() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = StagingArea::open(root.path()).unwrap();
    let error = elsewhere.claim(OURS, false, &[]).await.unwrap_err();
    assert!(matches!(error, Error::Elsewhere { .. }));
    assert!(error.to_string().contains("give every node the same place"));
    std::fs::write(root.path().join("cluster"), "no marker of ours").unwrap();
    let error = elsewhere.claim(OURS, true, &[]).await.unwrap_err();
    assert!(
        error.to_string().contains("belongs to something else"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_submissions_at_once_come_back_whole() {
    let root = tempfile::tempdir().unwrap();
    let area = Arc::new(StagingArea::open(root.path()).unwrap());
    let id = |number: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        StagingId(id)
    };
    let content = |number: u32| {
        let mut files = files();
        files[0].content = number.to_string().into_bytes();
        files
    };
    let puts = (0..10_000).map(|number| {
        let area = Arc::clone(&area);
        tokio::spawn(async move { area.put(id(number), &content(number)).await })
    });
    for put in futures::future::join_all(puts).await {
        assert_eq!(put.unwrap().unwrap(), Put::New);
    }
    for number in (0..10_000).step_by(997) {
        assert_eq!(area.get(id(number)).await.unwrap(), content(number));
    }
    let deletions = (0..10_000).map(|number| area.remove(id(number)));
    futures::future::try_join_all(deletions).await.unwrap();
    assert_eq!(area.older_than(Duration::ZERO, 10_000).await.unwrap(), []);
}

#[test]
fn locations_are_a_folder_or_a_store() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().display().to_string();
    for location in [folder.clone(), format!("file://{folder}")] {
        let area = StagingArea::at(&location).unwrap();
        assert!(matches!(area.place, Place::Folder(_)));
    }
    let store = StagingArea::at("memory:///").unwrap();
    assert!(matches!(store.place, Place::Bucket(_)));
    for wrong in ["ftp://host/x", "file://host/x"] {
        assert!(
            matches!(StagingArea::at(wrong), Err(Error::Location(_))),
            "{wrong}"
        );
    }
}

/// How to reach an S3 server's bucket.
fn bucket(server: &Moto) -> StoreConfig {
    let mut config = StoreConfig::at("s3://jobs/staging");
    config.s3.endpoint = Some(format!("http://127.0.0.1:{}", server.port()));
    config.s3.region = Some("us-east-1".into());
    config.s3.access_key_id = Some("testing".into());
    config.s3.secret_access_key = Some("testing".into());
    config.s3.allow_http = true;
    config
}
