//! Tests of segments: what a crash leaves at any moment, several processes at once, deletion by others, and what remains.

use std::os::unix::fs::PermissionsExt;

use super::look::{ABANDONED, LEFT, overwrite};
use super::*;
use crate::staging::packed::{pack, unpack};
use crate::submission::{Role, StagedFile};

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

/// Takes two slots.
fn long(number: u8) -> String {
    format!("canary of {number} ").repeat(400)
}

fn put(segments: &mut Segments, numbers: &[u8]) {
    let packed: Vec<(StagingId, Vec<u8>)> = numbers
        .iter()
        .map(|number| (id(*number), pack(id(*number), &files(&long(*number)))))
        .collect();
    let coming: Vec<(StagingId, &[u8])> = packed.iter().map(|(id, all)| (*id, &all[..])).collect();
    segments.put(&coming, &mut |_, _| {}).unwrap();
}

fn remove(segments: &mut Segments, numbers: &[u8]) -> Vec<bool> {
    let going: Vec<Going> = numbers
        .iter()
        .map(|number| Going {
            staging: id(*number),
            own: false,
        })
        .collect();
    let there = segments.remove(&going).unwrap();
    segments.sync().unwrap();
    there
}

/// What a submission holds; `None` when there is none, an error when it is damaged.
fn get(segments: &Segments, number: u8) -> Option<Result<String, Damaged>> {
    let unpacked = |packed: &[u8]| unpack(id(number), packed);
    let read = segments.reader().read(id(number), unpacked).unwrap()?;
    Some(read.map(|files| String::from_utf8(files[0].content.clone()).unwrap()))
}

fn is_whole(segments: &Segments, number: u8) -> bool {
    get(segments, number) == Some(Ok(long(number)))
}

fn known(segments: &Segments) -> Vec<u8> {
    let index = segments.seen.index.lock();
    index.after(None).map(|(staging, _)| staging.0[0]).collect()
}

/// The files of the folder, in order.
fn paths(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join(SEGMENTS)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Whether any byte of the folder is of this submission.
fn is_anywhere(root: &Path, number: u8) -> bool {
    let words = format!("canary of {number} ");
    paths(root).iter().any(|path| {
        let bytes = std::fs::read(path).unwrap();
        bytes
            .windows(words.len())
            .any(|part| part == words.as_bytes())
    })
}

fn later() -> SystemTime {
    SystemTime::now() + ABANDONED + Duration::from_secs(60)
}

#[test]
fn a_process_that_starts_finds_what_others_have_put_and_not_deleted() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    put(&mut one, &[1, 2, 3, 4]);
    put(&mut one, &[5, 6]);
    assert_eq!(remove(&mut one, &[2, 5, 9]), [true, true, false]);
    std::mem::forget(one);
    let mut other = Segments::open(root.path()).unwrap();
    assert_eq!(known(&other), [1, 3, 4, 6]);
    assert!([1, 3, 4, 6].iter().all(|number| is_whole(&other, *number)));
    put(&mut other, &[7]);
    assert_eq!(remove(&mut other, &[1, 3, 7]), [true; 3]);
    for gone in [1, 2, 3, 5, 7] {
        assert_eq!(get(&other, gone), None);
        assert!(
            !is_anywhere(root.path(), gone),
            "{gone} is gone from the disk"
        );
    }
    assert!(is_anywhere(root.path(), 4));
    let third = Segments::open(root.path()).unwrap();
    assert_eq!(known(&third), [4, 6]);
}

#[test]
fn a_write_that_a_crash_has_torn_counts_for_nothing_and_harms_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    put(&mut one, &[1, 2]);
    let [path] = &paths(root.path())[..] else {
        panic!("one segment");
    };
    let before = std::fs::read(path).unwrap();
    put(&mut one, &[3, 4]);
    let after = std::fs::read(path).unwrap();
    std::mem::forget(one);
    let slot = SLOT as usize;
    let new = (after.len() - before.len()) / slot;
    assert_eq!(new, 4, "two submissions of two slots each");
    // Of the blocks of an unsynced write a crash keeps any, and the file may have got its length or a part of it.
    for kept in 0..1_u32 << new {
        for length in [
            before.len(),
            before.len() + slot / 3,
            before.len() + 2 * slot,
            after.len(),
        ] {
            let mut torn = after.clone();
            for block in (0..new).filter(|block| kept & (1 << block) == 0) {
                let at = before.len() + block * slot;
                torn[at..at + slot].fill(0);
            }
            torn.truncate(length);
            std::fs::write(path, torn).unwrap();
            let mut other = Segments::open(root.path()).unwrap();
            assert!(
                is_whole(&other, 1) && is_whole(&other, 2),
                "{kept:b} {length}"
            );
            for number in [3, 4] {
                // Nobody was told that it is there: it may be whole, damaged or missing, and never something else.
                if let Some(Ok(content)) = get(&other, number) {
                    assert_eq!(content, long(number));
                }
            }
            // The same request again.
            put(&mut other, &[3, 4]);
            assert!(
                is_whole(&other, 3) && is_whole(&other, 4),
                "{kept:b} {length}"
            );
            remove(&mut other, &[1, 2, 3, 4]);
            other.seen.tidy(later()).unwrap();
            for number in 1..=4 {
                assert!(!is_anywhere(root.path(), number), "{kept:b} {length}");
            }
            std::fs::remove_dir_all(root.path().join(SEGMENTS)).unwrap();
            std::fs::create_dir(root.path().join(SEGMENTS)).unwrap();
        }
    }
}

#[test]
fn what_a_crash_has_left_of_a_torn_write_goes_when_its_process_is_known_to_be_over() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    put(&mut one, &[1, 3]);
    std::mem::forget(one);
    let [path] = &paths(root.path())[..] else {
        panic!("one segment");
    };
    // The block with the second one's head did not come to the disk, the one behind it did.
    let mut torn = std::fs::read(path).unwrap();
    torn[2 * SLOT as usize..3 * SLOT as usize].fill(0);
    std::fs::write(path, torn).unwrap();
    let other = Segments::open(root.path()).unwrap();
    other.seen.tidy(SystemTime::now()).unwrap();
    assert!(is_anywhere(root.path(), 3), "its process may be writing it");
    other.seen.tidy(later()).unwrap();
    assert!(!is_anywhere(root.path(), 3) && is_whole(&other, 1));
    assert!(paths(root.path())[0].to_string_lossy().ends_with(LEFT));
    assert_eq!(known(&Segments::open(root.path()).unwrap()), [1]);
}

#[test]
fn a_crash_amid_a_deletion_leaves_it_whole_damaged_or_gone() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    put(&mut one, &[1, 2, 3]);
    std::mem::forget(one);
    let path = paths(root.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    for erased in 0..1_usize << 2 {
        let mut torn = whole.clone();
        for block in (0..2).filter(|block| erased & (1 << block) != 0) {
            let at = (2 + block) * SLOT as usize;
            torn[at..at + SLOT as usize].fill(0);
        }
        std::fs::write(&path, torn).unwrap();
        let mut other = Segments::open(root.path()).unwrap();
        assert!(is_whole(&other, 1) && is_whole(&other, 3));
        match get(&other, 2) {
            Some(Ok(content)) => assert_eq!((erased, content), (0, long(2))),
            Some(Err(Damaged)) => assert_eq!(erased, 0b10),
            None => assert_eq!(erased & 1, 1),
        }
        // The deletion is asked for again, or the sweep finds it.
        remove(&mut other, &[2]);
        other.seen.tidy(later()).unwrap();
        assert!(!is_anywhere(root.path(), 2));
        // Back under its first name for the next round.
        let _ = std::fs::rename(paths(root.path()).remove(0), &path);
    }
}

#[test]
fn several_processes_put_and_delete_in_each_others_segments() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    let mut other = Segments::open(root.path()).unwrap();
    put(&mut one, &[1, 2]);
    // The same request came to both, after the first one had lost the lead.
    put(&mut other, &[2, 3]);
    other.look().unwrap();
    assert_eq!(known(&other), [1, 2, 3]);
    assert!(one.has_put(id(2), |_| true) && other.has_put(id(2), |_| true));
    // Who took it back has taken its own.
    let own = Going {
        staging: id(2),
        own: true,
    };
    assert_eq!(one.remove(&[own]).unwrap(), [true]);
    assert!(is_whole(&other, 2) && !one.has_put(id(2), |_| true));
    put(&mut one, &[2]);
    other.looked -= LOOK_EVERY;
    assert_eq!(remove(&mut other, &[1, 2]), [true; 2]);
    assert!(!is_anywhere(root.path(), 1) && !is_anywhere(root.path(), 2));
    // The first one finds out, goes on writing behind it, and does not take a deleted one for there.
    assert!(!one.has_put(id(1), |_| true));
    put(&mut one, &[1, 4]);
    one.look().unwrap();
    one.recount();
    assert_eq!(known(&one), [1, 3, 4]);
    other.look().unwrap();
    assert!([1, 3, 4].iter().all(|number| is_whole(&other, *number)));
}

#[test]
fn what_is_written_is_found_by_every_process_before_it_is_synced() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    let other = Segments::open(root.path()).unwrap();
    let reader = one.reader();
    let large = "x".repeat(SMALL_BYTES_MAX - 1_000);
    // More than fits one segment.
    let packed: Vec<(StagingId, Vec<u8>)> = (0..100)
        .map(|number| (id(number), pack(id(number), &files(&large))))
        .collect();
    let coming: Vec<(StagingId, &[u8])> = packed.iter().map(|(id, all)| (*id, &all[..])).collect();
    let mut told = Vec::new();
    let mut pauses = 0;
    let mut written = |index: usize, behind| {
        let number = u8::try_from(index).unwrap();
        let unpacked = |packed: &[u8]| unpack(id(number), packed);
        assert!(matches!(reader.read(id(number), unpacked), Ok(Some(Ok(_)))));
        other.look().unwrap();
        assert_eq!(get(&other, number), Some(Ok(large.clone())));
        told.push(index);
        pauses += usize::from(behind == Behind::Nothing);
    };
    one.put(&coming, &mut written).unwrap();
    assert_eq!(told, (0..100).collect::<Vec<_>>());
    assert_eq!(pauses, paths(root.path()).len(), "one before each sync");
}

#[test]
fn what_was_written_and_could_not_be_kept_is_not_there() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    let packed = pack(id(1), &files(&long(1)));
    let mut told = 0;
    let put = one.put(&[(id(1), &packed)], &mut |_, _| {
        told += 1;
        // Another process takes this one for ended, and no new segment can be made.
        std::fs::remove_dir_all(root.path().join(SEGMENTS)).unwrap();
    });
    assert_eq!((put, told), (Err(Errno::NOENT), 1));
    assert_eq!(get(&one, 1), None);
    assert_eq!(one.count(), 0);
}

#[test]
fn a_segment_that_was_taken_away_is_written_anew_and_told_once() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    let packed = pack(id(1), &files(&long(1)));
    let mut told = 0;
    let put = one.put(&[(id(1), &packed)], &mut |_, _| {
        told += 1;
        paths(root.path())
            .iter()
            .for_each(|path| std::fs::remove_file(path).unwrap());
    });
    assert_eq!((put, told), (Ok(()), 1));
    assert!(is_whole(&one, 1));
    assert_eq!(one.count(), 1);
}

#[test]
fn full_segments_are_sealed_and_go_with_their_last_submission() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    let large = "x".repeat(SMALL_BYTES_MAX - 1_000);
    let packed: Vec<(StagingId, Vec<u8>)> = (0..200)
        .map(|number| (id(number), pack(id(number), &files(&large))))
        .collect();
    let coming: Vec<(StagingId, &[u8])> = packed.iter().map(|(id, all)| (*id, &all[..])).collect();
    one.put(&coming, &mut |_, _| {}).unwrap();
    let lengths: Vec<u64> = paths(root.path())
        .iter()
        .map(|path| std::fs::metadata(path).unwrap().len())
        .collect();
    assert_eq!(lengths.len(), 4);
    assert!(
        lengths
            .iter()
            .all(|length| *length <= SEGMENT_BYTES + SMALL_BYTES_MAX as u64)
    );
    let other = Segments::open(root.path()).unwrap();
    assert_eq!(other.count(), 200);
    let all_but: Vec<u8> = (0..200).filter(|number| *number != 77).collect();
    remove(&mut one, &all_but);
    // The one with the last submission, and the one that is written.
    assert_eq!(paths(root.path()).len(), 2);
    remove(&mut one, &[77]);
    assert_eq!(paths(root.path()).len(), 1);
    one.close();
    assert_eq!(paths(root.path()), [] as [PathBuf; 0]);
}

#[test]
fn a_segment_of_an_ended_process_goes_when_it_is_old_and_one_of_a_living_process_is_written_anew() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    put(&mut one, &[1]);
    remove(&mut one, &[1]);
    let other = Segments::open(root.path()).unwrap();
    other.seen.tidy(SystemTime::now()).unwrap();
    assert_eq!(paths(root.path()).len(), 1);
    other.seen.tidy(later()).unwrap();
    assert_eq!(paths(root.path()).len(), 0);
    // It was not over at all.
    put(&mut one, &[2]);
    assert!(is_whole(&one, 2));
    other.seen.look(true).unwrap();
    assert!(is_whole(&other, 2));
    // With something in it, it stays under another name, and what is written from now on goes elsewhere.
    other.seen.tidy(later()).unwrap();
    put(&mut one, &[3]);
    let third = Segments::open(root.path()).unwrap();
    for segments in [&one, &third] {
        assert!(is_whole(segments, 2) && is_whole(segments, 3));
    }
    assert_eq!(paths(root.path()).len(), 2);
    remove(&mut one, &[2]);
    assert_eq!(paths(root.path()).len(), 1);
}

#[test]
fn zeros_do_where_a_file_system_has_no_holes() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    put(&mut one, &[1, 2]);
    let path = paths(root.path()).remove(0);
    let file = File::options().write(true).open(&path).unwrap();
    overwrite(&file, 0, 2 * SLOT).unwrap();
    assert!(!is_anywhere(root.path(), 1));
    assert_eq!(known(&Segments::open(root.path()).unwrap()), [2]);
}

#[test]
fn what_is_deleted_gives_its_room_back_and_everything_is_private() {
    use std::os::unix::fs::MetadataExt;
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    put(&mut one, &[1, 2, 3]);
    let path = paths(root.path()).remove(0);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&path), mode(&root.path().join(SEGMENTS))),
        (0o600, 0o700)
    );
    let file = File::options().write(true).open(&path).unwrap();
    if look::punches(&file) {
        remove(&mut one, &[1, 3]);
        assert_eq!(std::fs::metadata(&path).unwrap().blocks() * 512, 2 * SLOT);
    } else {
        eprintln!("skipped: this file system has no holes");
    }
}

#[test]
fn submissions_come_up_by_age_in_the_order_of_their_ids() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    put(&mut one, &[3, 1, 2, 4]);
    let now = SystemTime::now();
    let old = |before, after, limit| one.reader().put_before(before, after, now, limit).unwrap();
    assert_eq!(old(now, None, 3), [id(1), id(2), id(3)]);
    assert_eq!(old(now, Some(id(3)), 3), [id(4)]);
    assert_eq!(old(now - Duration::from_secs(60), None, 3), []);
}

#[test]
fn what_somebody_submits_is_no_head_of_anothers() {
    let root = tempfile::tempdir().unwrap();
    let mut one = Segments::open(root.path()).unwrap();
    // A submission that looks like a segment with another one in it, at every slot.
    let mut forged = Vec::new();
    record::add(&mut forged, 0, 1, &pack(id(9), &files("forged")));
    let copies = forged.repeat(4);
    let packed = pack(id(1), &files(&String::from_utf8_lossy(&copies)));
    one.put(&[(id(1), &packed)], &mut |_, _| {}).unwrap();
    let path = paths(root.path()).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    // Even where a crash has taken its own head away.
    bytes[..SLOT as usize].fill(0);
    let shift = bytes
        .windows(8)
        .position(|part| part == b"STPCREC1")
        .unwrap()
        % SLOT as usize;
    bytes.rotate_left(shift);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(known(&Segments::open(root.path()).unwrap()), [] as [u8; 0]);
}
