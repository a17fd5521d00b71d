//! Tests of the folder: a process that ends before any step, several processes at once, small and large submissions.

use std::os::unix::fs::PermissionsExt;

use super::batch::{COUNT_AGAIN, Outcomes, commit};
use super::commit::{Commit, Outcome};
use super::segments::SMALL_BYTES_MAX;
use super::*;

/// So many submissions are never reached but where a test means to.
const MANY: usize = 1_000;

fn id(number: u8) -> StagingId {
    StagingId([number; 16])
}

fn files(content: &str) -> Vec<StagedFile> {
    vec![StagedFile {
        role: Role::Config,
        name: "config.json".into(),
        content: content.into(),
    }]
}

fn packed(number: u8, content: &str) -> (StagingId, Vec<u8>) {
    (id(number), pack(id(number), &files(content)))
}

fn visible(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with("spare-") && name != "segments")
        .collect();
    names.sort();
    names
}

fn spares(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("spare-")
        })
        .collect()
}

/// Has submissions with a file each come and go.
fn run(disk: &mut Disk, coming: Vec<(StagingId, Vec<u8>)>, going: Vec<StagingId>) -> Outcome {
    commit(disk, coming, going)
}

/// Has submissions of any size come and go.
fn any(disk: &mut Disk, coming: Vec<(StagingId, Vec<u8>)>, going: &[u8]) -> Outcomes {
    let going: Vec<Going> = going
        .iter()
        .map(|number| Going {
            staging: id(*number),
            own: false,
        })
        .collect();
    batch(disk, coming, &going, &mut |_, _| {})
}

/// Puts the first submission.
async fn put(folder: &Folder, content: &str) -> Result<Put, Error> {
    folder.put(id(1), &files(content), Box::new(|_| {})).await
}

/// More than fits a segment.
fn large(content: &str) -> String {
    content.repeat(SMALL_BYTES_MAX / content.len() + 1)
}

#[test]
fn a_process_that_ends_before_any_step_leaves_whole_files_or_none() {
    let mut steps = 0;
    loop {
        let root = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(root.path(), MANY).unwrap();
        // One batch before, so that what goes in the next one is there.
        run(
            &mut disk,
            (1..=6).map(|n| packed(n, "before")).collect(),
            vec![],
        );
        run(&mut disk, vec![], vec![id(5), id(6)]);
        let mut commit = Commit::new(
            (11..=15).map(|number| packed(number, "new")).collect(),
            vec![id(1), id(2)],
        );
        let mut left = steps;
        while left > 0 && commit.step(&mut disk) {
            left -= 1;
        }
        let ended = left > 0;
        // The process is gone with whatever it had in mind; another one goes on in the same folder.
        std::mem::forget((commit, disk));
        let mut other = Disk::open(root.path(), MANY).unwrap();
        for number in (1..=6).chain(11..=15) {
            let wanted = files(if number > 10 { "new" } else { "before" });
            match read(&root.path().join(id(number).to_string()), id(number)) {
                Ok(found) => assert_eq!(found, wanted, "{number} after {steps} steps"),
                Err(Error::Missing) => {}
                Err(error) => panic!("{number} after {steps} steps: {error}"),
            }
        }
        for number in [3, 4] {
            let path = root.path().join(id(number).to_string());
            assert_eq!(read(&path, id(number)).unwrap(), files("before"));
        }
        let again = (11..=15).map(|number| packed(number, "new")).collect();
        let done = run(&mut other, again, vec![id(1), id(2)]);
        assert!(done.coming.iter().all(Result::is_ok) && done.going.iter().all(Result::is_ok));
        assert_eq!(visible(root.path()).len(), 7, "after {steps} steps");
        assert_eq!(other.count(), 7, "after {steps} steps");
        for number in 11..=15 {
            let path = root.path().join(id(number).to_string());
            assert_eq!(read(&path, id(number)).unwrap(), files("new"));
        }
        if ended {
            break;
        }
        steps += 1;
    }
    // Two that go, five that come: each is written, synced and named.
    assert!(steps > 2 + 3 * 5 + 1, "{steps} steps");
}

#[test]
fn what_an_ended_process_has_left_is_removed_when_it_is_old_and_not_before() {
    let root = tempfile::tempdir().unwrap();
    let mut gone = Disk::open(root.path(), MANY).unwrap();
    let mut commit = Commit::new((1..=5).map(|n| packed(n, "new")).collect(), vec![]);
    while commit.step(&mut gone) && spares(root.path()).iter().all(|path| holds(path) < 5) {}
    std::mem::forget((commit, gone));
    spares::tidy(root.path(), SystemTime::now()).unwrap();
    assert_eq!(spares(root.path()).len(), 1);
    let later = SystemTime::now() + Duration::from_secs(7_200);
    spares::tidy(root.path(), later).unwrap();
    assert_eq!(spares(root.path()), [] as [PathBuf; 0]);
    assert_eq!(visible(root.path()), [] as [&str; 0]);
}

fn holds(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_process_whose_spare_files_were_removed_makes_new_ones() {
    let root = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(root.path(), MANY).unwrap();
    run(&mut disk, vec![packed(1, "one"), packed(2, "two")], vec![]);
    run(&mut disk, vec![], vec![id(1)]);
    for folder in spares(root.path()) {
        std::fs::remove_dir_all(folder).unwrap();
    }
    let done = run(&mut disk, vec![packed(3, "three")], vec![id(2)]);
    assert_eq!(
        (done.coming, done.going),
        (vec![Ok(Put::New)], vec![Ok(true)])
    );
    assert_eq!(visible(root.path()), [id(3).to_string()]);
    for folder in spares(root.path()) {
        std::fs::remove_dir_all(folder).unwrap();
    }
    let done = run(&mut disk, vec![packed(4, "four")], vec![]);
    assert_eq!(done.coming, [Ok(Put::New)]);
}

#[test]
fn large_submissions_have_files_and_small_ones_share_them() {
    let root = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(root.path(), MANY).unwrap();
    let long = large("canary ");
    let coming = vec![packed(1, &long), packed(2, "small"), packed(3, &long)];
    let (coming, _) = any(&mut disk, coming, &[]);
    assert_eq!(coming, [Ok(Put::New); 3]);
    assert_eq!(visible(root.path()), [id(1).to_string(), id(3).to_string()]);
    let reader = disk.segments.reader();
    for (number, content) in [(1, &long[..]), (2, "small"), (3, &long)] {
        assert_eq!(
            get(root.path(), &reader, id(number)).unwrap(),
            files(content)
        );
    }
    let (coming, going) = any(&mut disk, vec![packed(4, "four")], &[1, 2, 3, 9]);
    assert_eq!((coming, going), (vec![Ok(Put::New)], vec![Ok(()); 4]));
    assert_eq!((visible(root.path()).len(), disk.count()), (0, 1));
    for number in [1, 2, 3, 9] {
        let found = get(root.path(), &reader, id(number));
        assert!(matches!(found, Err(Error::Missing)));
    }
    assert_eq!(get(root.path(), &reader, id(4)).unwrap(), files("four"));
}

#[test]
fn the_same_submission_twice_is_there_once() {
    let root = tempfile::tempdir().unwrap();
    for content in ["one", &large("one")] {
        let mut disk = Disk::open(root.path(), MANY).unwrap();
        let twice = vec![packed(1, content), packed(1, content)];
        let (coming, _) = any(&mut disk, twice, &[]);
        assert_eq!(coming, [Ok(Put::New), Ok(Put::There)]);
        let (coming, _) = any(&mut disk, vec![packed(1, content)], &[]);
        assert_eq!((coming, disk.count()), (vec![Ok(Put::There)], 1));
        any(&mut disk, vec![], &[1]);
    }
}

#[test]
fn a_full_folder_takes_no_more_until_somebody_deletes() {
    for content in ["any", &large("any")] {
        let root = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (
            Disk::open(root.path(), 4).unwrap(),
            Disk::open(root.path(), 4).unwrap(),
        );
        any(&mut other, vec![packed(1, content)], &[]);
        // What another process has put is counted when it matters.
        one.recount();
        let five = (2..=6).map(|number| packed(number, content)).collect();
        let (coming, _) = any(&mut one, five, &[]);
        let taken = coming.iter().filter(|put| **put == Ok(Put::New)).count();
        assert_eq!((taken, coming.last()), (3, Some(&Err(Refused::Full))));
        let (more, _) = any(&mut one, vec![packed(7, content)], &[]);
        assert_eq!(more, [Err(Refused::Full)]);
        any(&mut other, vec![], &[1, 2]);
        one.counted -= COUNT_AGAIN;
        let (more, _) = any(&mut one, vec![packed(7, content)], &[]);
        assert_eq!(more, [Ok(Put::New)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_sees_another_submission_while_they_come_and_go() {
    let root = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::open(root.path(), MANY).unwrap());
    let reader = Arc::new(Folder::open(root.path(), MANY).unwrap());
    let mut tasks = Vec::new();
    for number in 0..8 {
        let (folder, reader) = (Arc::clone(&folder), Arc::clone(&reader));
        tasks.push(tokio::spawn(async move {
            let mine = files(&format!("content of {number}").repeat(usize::from(number) * 50 + 1));
            for round in 0..50 {
                assert_eq!(
                    folder
                        .put(id(number), &mine, Box::new(|_| {}))
                        .await
                        .unwrap(),
                    Put::New,
                    "{round}"
                );
                let reading = [(); 4].map(|()| reader.get(id(number)));
                let removing = folder.remove(id(number), false);
                let (found, removed) = tokio::join!(futures::future::join_all(reading), removing);
                removed.unwrap();
                for found in found {
                    match found {
                        Ok(found) => assert_eq!(found, mine),
                        Err(Error::Missing) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(visible(root.path()), [] as [&str; 0]);
}

#[tokio::test]
async fn a_damaged_submission_is_said_to_be_one() {
    for content in ["one", &large("one")] {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path(), MANY).unwrap();
        put(&folder, content).await.unwrap();
        let path = match content.len() > SMALL_BYTES_MAX {
            true => root.path().join(id(1).to_string()),
            false => {
                let segments = std::fs::read_dir(root.path().join("segments"));
                segments.unwrap().next().unwrap().unwrap().path()
            }
        };
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(folder.get(id(1)).await, Err(Error::Damaged)));
        std::fs::write(&path, b"").unwrap();
        // A segment without its head is as good as one that was deleted there.
        let emptied = folder.get(id(1)).await;
        assert!(matches!(emptied, Err(Error::Damaged | Error::Missing)));
        folder.remove(id(1), false).await.unwrap();
        assert!(matches!(folder.get(id(1)).await, Err(Error::Missing)));
    }
}

#[tokio::test]
async fn folders_of_version_0_1_are_read_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::open(root.path(), MANY).unwrap();
    let old = root.path().join(id(1).to_string());
    std::fs::create_dir(&old).unwrap();
    std::fs::write(old.join("data_loader-data.json"), "[]").unwrap();
    std::fs::write(old.join("config-config.json"), "{}").unwrap();
    let found = folder.get(id(1)).await.unwrap();
    assert_eq!(found[0], files("{}")[0]);
    assert_eq!((found.len(), found[1].role), (2, Role::DataLoader));
    folder.remove(id(1), false).await.unwrap();
    assert_eq!(visible(root.path()), [] as [&str; 0]);
}

#[tokio::test]
async fn everything_is_private_and_goes_with_the_process() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("staging");
    let folder = Folder::open(&place, MANY).unwrap();
    put(&folder, &large("one")).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place), 0o700);
    assert_eq!(mode(&place.join(id(1).to_string())), 0o600);
    assert_eq!(
        spares(&place)
            .iter()
            .map(|path| mode(path))
            .collect::<Vec<_>>(),
        [0o700]
    );
    drop(folder);
    let gone = async {
        while !spares(&place).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
    assert_eq!(visible(&place), [id(1).to_string()]);
}
