//! Tests of the folder: a process that ends before any step, several processes at once, files used again while read.

use std::os::unix::fs::PermissionsExt;

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
        .filter(|name| !name.starts_with("spare-"))
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

/// Runs a batch to its end.
fn run(disk: &mut Disk, coming: Vec<(StagingId, Vec<u8>)>, going: Vec<StagingId>) -> Outcomes {
    let mut commit = Commit::new(coming, going);
    while commit.step(disk) {}
    let outcome = commit.outcome();
    (outcome.coming, outcome.going)
}

type Outcomes = (Vec<Result<Put, Refused>>, Vec<Result<(), Refused>>);

#[test]
fn a_process_that_ends_before_any_step_leaves_whole_files_or_none() {
    let mut steps = 0;
    loop {
        let root = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(root.path(), MANY).unwrap();
        // One batch before, so that files are used again, and what goes in the next one is there.
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
        let (coming, going) = run(&mut other, again, vec![id(1), id(2)]);
        assert!(coming.iter().all(Result::is_ok) && going.iter().all(Result::is_ok));
        assert_eq!(visible(root.path()).len(), 7, "after {steps} steps");
        assert_eq!(other.count, 7, "after {steps} steps");
        for number in 11..=15 {
            let path = root.path().join(id(number).to_string());
            assert_eq!(read(&path, id(number)).unwrap(), files("new"));
        }
        if ended {
            break;
        }
        steps += 1;
    }
    // Two that go, five that come: each is taken apart and put together, with both syncs.
    assert!(steps > 2 * 2 + 2 * 5 + 2, "{steps} steps");
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
    let (coming, going) = run(&mut disk, vec![packed(3, "three")], vec![id(2)]);
    assert_eq!((coming, going), (vec![Ok(Put::New)], vec![Ok(())]));
    assert_eq!(visible(root.path()), [id(3).to_string()]);
    for folder in spares(root.path()) {
        std::fs::remove_dir_all(folder).unwrap();
    }
    let (coming, _) = run(&mut disk, vec![packed(4, "four")], vec![]);
    assert_eq!(coming, [Ok(Put::New)]);
}

#[test]
fn deleted_files_are_wiped_and_used_again() {
    let root = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(root.path(), MANY).unwrap();
    let secret = "canary".repeat(100);
    run(&mut disk, vec![packed(1, &secret)], vec![]);
    run(&mut disk, vec![], vec![id(1)]);
    let [folder] = &spares(root.path())[..] else {
        panic!("one folder of spare files");
    };
    for entry in std::fs::read_dir(folder).unwrap() {
        let left = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(left.len() > 600 && left.iter().all(|byte| *byte == 0));
    }
    run(&mut disk, vec![packed(2, "short")], vec![]);
    assert_eq!(holds(folder), 0, "the wiped file has come to use");
    let path = root.path().join(id(2).to_string());
    assert_eq!(read(&path, id(2)).unwrap(), files("short"));
    // A large one is deleted for good.
    run(&mut disk, vec![packed(3, &"x".repeat(100_000))], vec![]);
    run(&mut disk, vec![], vec![id(3)]);
    assert_eq!(holds(folder), 0);
}

#[test]
fn the_same_submission_twice_is_there_once() {
    let root = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(root.path(), MANY).unwrap();
    let twice = vec![packed(1, "one"), packed(1, "one")];
    let (coming, _) = run(&mut disk, twice, vec![]);
    assert_eq!(coming, [Ok(Put::New), Ok(Put::There)]);
    let (coming, _) = run(&mut disk, vec![packed(1, "one")], vec![]);
    assert_eq!(coming, [Ok(Put::There)]);
    assert_eq!((disk.count, visible(root.path()).len()), (1, 1));
}

#[test]
fn a_full_folder_takes_no_more_until_somebody_deletes() {
    let root = tempfile::tempdir().unwrap();
    let (mut one, mut other) = (
        Disk::open(root.path(), 3).unwrap(),
        Disk::open(root.path(), 3).unwrap(),
    );
    run(&mut other, vec![packed(1, "one")], vec![]);
    let five = (1..=5).map(|number| packed(number, "any")).collect();
    let (coming, _) = run(&mut one, five, vec![]);
    // What another process has put is counted when it matters.
    one.counted -= COUNT_AGAIN;
    assert_eq!(coming[0], Ok(Put::There));
    assert_eq!(coming[1..4], [Ok(Put::New); 3]);
    assert_eq!(coming[4], Err(Refused::Full));
    let (more, _) = run(&mut one, vec![packed(6, "any")], vec![]);
    assert_eq!(more, [Err(Refused::Full)]);
    run(&mut other, vec![], vec![id(1), id(2)]);
    one.counted -= COUNT_AGAIN;
    let (more, _) = run(&mut one, vec![packed(6, "any")], vec![]);
    assert_eq!(more, [Ok(Put::New)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_sees_another_submission_while_files_are_used_again() {
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
                    folder.put(id(number), &mine).await.unwrap(),
                    Put::New,
                    "{round}"
                );
                let reading = [(); 4].map(|()| reader.get(id(number)));
                let removing = folder.remove(id(number));
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
async fn a_damaged_file_is_said_to_be_one() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::open(root.path(), MANY).unwrap();
    folder.put(id(1), &files("one")).await.unwrap();
    let path = root.path().join(id(1).to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(folder.get(id(1)).await, Err(Error::Damaged)));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(folder.get(id(1)).await, Err(Error::Damaged)));
    folder.remove(id(1)).await.unwrap();
    assert!(matches!(folder.get(id(1)).await, Err(Error::Missing)));
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
    assert_eq!(folder.put(id(1), &files("{}")).await.unwrap(), Put::There);
    folder.remove(id(1)).await.unwrap();
    assert_eq!(visible(root.path()), [] as [&str; 0]);
}

#[tokio::test]
async fn everything_is_private_and_goes_with_the_process() {
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("staging");
    let folder = Folder::open(&place, MANY).unwrap();
    folder.put(id(1), &files("one")).await.unwrap();
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
