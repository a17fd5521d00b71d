//! Lines that are kept, in a store that fails now and then.

use object_store::memory::InMemory;

use super::*;

const JOB: JobId = JobId(77);

fn lines(store: &Arc<InMemory>) -> Lines {
    Lines::new(Arc::clone(store) as _, Path::from("lines"))
}

fn text(from: usize, to: usize) -> Vec<String> {
    (from..to)
        .map(|n| format!("line {n} {}", "x".repeat(200)))
        .collect()
}

/// Writes what waits, as the task does.
async fn keep(lines: &Lines, job: JobId) {
    while lines.books.lock().jobs.get(&job).is_some_and(Book::is_due) {
        assert!(lines.write(job).await);
    }
}

#[tokio::test]
async fn what_was_read_once_is_how_the_next_answer_begins_also_after_another_node_leads() {
    let store = Arc::new(InMemory::new());
    let first = lines(&store);
    let mut before = String::new();
    for round in 0..20 {
        first.append(JOB, Epoch(1), &text(round * 20, round * 20 + 20));
        keep(&first, JOB).await;
        let now = first.read(JOB).await.unwrap();
        assert!(now.starts_with(&before) && now.len() > before.len());
        before = now;
    }
    assert!(
        first.parts(JOB).await.unwrap().next() > 1,
        "it has several parts"
    );
    let second = lines(&store);
    second.append(JOB, Epoch(2), &["after the change".to_owned()]);
    keep(&second, JOB).await;
    let now = first.read(JOB).await.unwrap();
    assert!(now.starts_with(&before));
    assert!(
        now.ends_with("after the change\n"),
        "{}",
        &now[now.len() - 100..]
    );
    assert_eq!(
        now.lines().filter(|line| line.starts_with("line ")).count(),
        400
    );
    // The first one leads again, with a line that it could not keep when it last did.
    first.append(JOB, Epoch(2), &["kept late".to_owned()]);
    first.change_hands();
    first.append(JOB, Epoch(2), &["once more".to_owned()]);
    keep(&first, JOB).await;
    let again = first.read(JOB).await.unwrap();
    let rest = again.strip_prefix(&now).unwrap();
    assert!(rest.ends_with("kept late\nonce more\n"), "{rest}");
    assert_eq!(first.books.lock().waiting, 0);
}

#[tokio::test]
async fn a_line_that_is_on_its_way_while_the_lead_changes_hands_stands_once() {
    let lines = lines(&Arc::new(InMemory::new()));
    lines.append(JOB, Epoch(1), &["kept".to_owned()]);
    keep(&lines, JOB).await;
    lines.append(JOB, Epoch(1), &["on its way".to_owned()]);
    let (part, text) = lines.newest(JOB).unwrap();
    lines.append(JOB, Epoch(1), &["behind it".to_owned()]);
    lines.change_hands();
    let length = text.len();
    lines
        .store
        .put(&lines.object(JOB, part), text.into())
        .await
        .unwrap();
    lines.wrote(JOB, part, length);
    keep(&lines, JOB).await;
    let all = lines.read(JOB).await.unwrap();
    assert_eq!(all, "kept\non its way\nbehind it\n");
    assert_eq!(lines.books.lock().waiting, 0);
}

#[tokio::test]
async fn a_job_that_prints_now_and_then_has_few_parts_and_the_same_bound() {
    let lines = lines(&Arc::new(InMemory::new()));
    let quiet = || lines.books.lock().jobs.clear();
    let mut all = String::new();
    for number in 0..30 {
        let line = format!("line {number}");
        lines.append(JOB, Epoch(1), std::slice::from_ref(&line));
        keep(&lines, JOB).await;
        all += &(line + "\n");
        quiet();
    }
    assert_eq!(lines.read(JOB).await.unwrap(), all);
    assert_eq!(lines.parts(JOB).await.unwrap().next(), 1);
    let large = vec!["y".repeat(1 << 20)];
    for _ in 0..20 {
        lines.append(JOB, Epoch(1), &large);
        keep(&lines, JOB).await;
        quiet();
    }
    assert!(lines.bytes(JOB).await.unwrap() <= JOB_BYTES + 400);
    assert_eq!(lines.books.lock().waiting, 0);
}

#[tokio::test]
async fn what_of_a_forgotten_job_was_not_kept_waits_no_more() {
    let lines = lines(&Arc::new(InMemory::new()));
    lines.append(JOB, Epoch(1), &["a".to_owned()]);
    lines.forget(JOB).await.unwrap();
    assert_eq!(lines.books.lock().waiting, 0);
}

#[tokio::test]
async fn a_new_attempt_is_told_and_a_job_has_a_bound() {
    let lines = lines(&Arc::new(InMemory::new()));
    lines.append(JOB, Epoch(1), &["one".to_owned()]);
    lines.append(JOB, Epoch(2), &["two".to_owned()]);
    keep(&lines, JOB).await;
    assert_eq!(
        lines.read(JOB).await.unwrap(),
        "one\n[stepcast] another attempt\ntwo\n"
    );
    let large = vec!["y".repeat(1 << 20)];
    for _ in 0..20 {
        lines.append(JOB, Epoch(2), &large);
        keep(&lines, JOB).await;
    }
    let kept = lines.read(JOB).await.unwrap();
    assert!(kept.len() as u64 <= JOB_BYTES + 100, "{}", kept.len());
    assert_eq!(kept.matches("lines were left out here").count(), 1);
}

#[tokio::test]
async fn jobs_with_lines_are_found_in_turn_and_forgotten_wholly() {
    let store = Arc::new(InMemory::new());
    let lines = lines(&store);
    for job in 1..=5 {
        lines.append(JobId(job), Epoch(job), &["a".to_owned()]);
        keep(&lines, JobId(job)).await;
    }
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        seen.extend(lines.jobs(2).await.unwrap());
    }
    assert_eq!(seen.len(), 5);
    lines.forget(JobId(3)).await.unwrap();
    assert_eq!(lines.read(JobId(3)).await.unwrap(), "");
    assert_eq!(lines.jobs(9).await.unwrap().len(), 4);
}

#[tokio::test]
async fn in_a_folder_every_job_comes_up_in_its_turn_in_whichever_order_it_lists() {
    let root = tempfile::tempdir().unwrap();
    let jobs: BTreeSet<JobId> = (1..=600).map(JobId).collect();
    for job in &jobs {
        let folder = root.path().join(job.to_string());
        std::fs::create_dir(&folder).unwrap();
        // What earlier versions left of a forgotten job is its folder alone.
        if job.0 % 3 > 0 {
            std::fs::write(folder.join("00000000-aabbccdd"), "a").unwrap();
        }
    }
    std::fs::write(root.path().join("another"), "").unwrap();
    let lines = Lines::in_folder(root.path()).unwrap();
    for _ in 0..2 {
        let mut seen = Vec::new();
        while seen.len() < jobs.len() {
            let more = lines.jobs(7).await.unwrap();
            assert!(!more.is_empty() && more.len() <= 7);
            seen.extend(more);
        }
        assert_eq!(seen.len(), jobs.len(), "each once");
        assert_eq!(BTreeSet::from_iter(seen), jobs);
    }
}

#[tokio::test]
async fn in_a_folder_nothing_is_left_of_a_forgotten_job() {
    let root = tempfile::tempdir().unwrap();
    let lines = Lines::in_folder(root.path()).unwrap();
    for job in [JOB, JobId(78)] {
        lines.append(job, Epoch(1), &["a".to_owned()]);
        keep(&lines, job).await;
    }
    let folder = root.path().join(JOB.to_string());
    // What a crash in the middle of a write leaves.
    std::fs::write(folder.join("00000001-aabbccdd#1"), "half a par").unwrap();
    lines.forget(JOB).await.unwrap();
    assert!(!folder.exists());
    lines.forget(JOB).await.unwrap();
    assert_eq!(lines.jobs(9).await.unwrap(), [JobId(78)]);
    assert_eq!(lines.read(JobId(78)).await.unwrap(), "a\n");
    assert!(root.path().exists());
}
