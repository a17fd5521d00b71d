//! Tests of statements in processes, which are this test program called again.

use std::io::{self, Read};
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::super::tests::large;
use super::super::{AT_ONCE, Engine};
use super::*;

/// A machine may be slow; what is waited for comes or never does.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
#[ignore = "it is the process of the other tests, and ends at once when a person calls it"]
fn the_process_of_these_tests() {
    let _ = serve();
}

#[test]
#[ignore = "as the one above, with less memory"]
fn the_small_process_of_these_tests() {
    let _ = child::within(192 << 20);
}

#[test]
#[ignore = "as the first one, killed as it is given a statement"]
fn the_dying_process_of_these_tests() {
    let _ = io::stdin().read(&mut [0]);
    kill(std::process::id());
}

fn program(process: &str) -> Program {
    let process = format!("sql::process::tests::{process}");
    let program = Program::this([process.as_str(), "--exact", "--ignored"]);
    program.expect("this program")
}

async fn engine(store: &Arc<dyn ObjectStore>, time_max: Duration) -> (Engine, Vec<View>) {
    engine_in("the_process_of_these_tests", store, time_max).await
}

async fn engine_in(
    process: &str,
    store: &Arc<dyn ObjectStore>,
    time_max: Duration,
) -> (Engine, Vec<View>) {
    let (engine, views) = large(store, time_max).await;
    engine.run_in(program(process));
    (engine, views())
}

/// The processes that wait for a statement.
fn idle(engine: &Engine) -> Vec<u32> {
    let processes = engine.processes.get().expect("processes").lock();
    let idle = processes.iter().map(|process| process.process.id());
    idle.map(|id| id.expect("it runs")).collect()
}

fn kill(process: u32) {
    let process = Pid::from_raw(process as i32).expect("a process");
    kill_process(process, Signal::KILL).expect("killed");
}

fn copies(views: &[View]) -> Vec<View> {
    let copy = |view: &View| View {
        kind: view.kind,
        files: view.files.clone(),
    };
    views.iter().map(copy).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_says_what_a_thread_says() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (threads, on_threads) = large(&store, Duration::from_secs(60)).await;
    let (engine, views) = engine(&store, Duration::from_secs(60)).await;
    for statement in [
        "SELECT count(*), max(avg_step_ms) FROM training_steps",
        "SELECT recipe, hardware, avg_step_ms FROM training_steps ORDER BY avg_step_ms DESC LIMIT 3",
        "SELECT avg_step_ms FROM training_steps",
        "SELECT recipe FROM training_steps WHERE avg_step_ms > 2000",
        "SHOW TABLES",
        "DESCRIBE training_steps",
        "SELECT NULL AS nothing, 1.5 AS number, 'text' AS text, true AS truth",
        "SELECT reciepe FROM training_steps",
        "SELECT 1 / 0 FROM training_steps",
        "DROP TABLE training_steps",
        "SELECT count(*) FROM training_steps a JOIN training_steps b ON a.avg_step_ms = b.avg_step_ms \
         GROUP BY a.recipe, b.recipe, a.avg_step_ms * b.avg_step_ms ORDER BY a.avg_step_ms * b.avg_step_ms LIMIT 2",
        "not a statement",
    ] {
        let here = threads.run(statement, &store, on_threads()).await;
        let there = engine.run(statement, &store, copies(&views)).await;
        match (here, there) {
            (Ok(here), Ok(there)) => {
                assert_eq!(here.schema, there.schema, "{statement}");
                assert_eq!(here.cells(), there.cells(), "{statement}");
                let facts = |answer: &Answer| {
                    (
                        answer.truncated,
                        answer.objects,
                        answer.objects_read,
                        answer.rows(),
                    )
                };
                assert_eq!(facts(&here), facts(&there), "{statement}");
                assert_eq!(here.bytes_read > 0, there.bytes_read > 0, "{statement}");
            }
            (Err(here), Err(there)) => {
                assert_eq!(format!("{here:?}"), format!("{there:?}"), "{statement}");
            }
            (here, there) => panic!("{statement}: {here:?} here, {there:?} there"),
        }
        let columns = engine.columns(statement, &store, copies(&views)).await;
        let expected = threads.columns(statement, &store, on_threads()).await;
        assert_eq!(columns.ok(), expected.ok(), "{statement}");
    }
    // One after the other needs one process.
    assert_eq!(idle(&engine).len(), 1);
}

/// One that somebody has killed is not gone at once, and its socket takes a statement meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_a_dying_process_has_not_taken_is_run_by_another() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = engine(&store, PATIENCE).await;
    let dying = Process::start(&program("the_dying_process_of_these_tests")).expect("a process");
    let processes = engine.processes.get().expect("processes");
    processes.lock().push(dying);
    let answer = engine.run("SELECT 1 AS one", &store, copies(&views)).await;
    assert_eq!(answer.expect("an answer").rows(), 1);
    assert_eq!(idle(&engine).len(), 1);
    // One that was started for a statement and ends has ended by it, as far as anybody knows.
    let (engine, views) = engine_in("the_dying_process_of_these_tests", &store, PATIENCE).await;
    let ended = engine.run("SELECT 1 AS one", &store, views).await;
    assert!(matches!(ended, Err(Error::OutOfMemory)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_stop_by_itself_is_killed_and_its_turn_is_back_at_once() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = engine(&store, Duration::from_millis(500)).await;
    for _ in 0..=AT_ONCE {
        // Four hundred million comparisons, none of which is a place where the engine looks up.
        let runaway = "SELECT count(*) FROM training_steps a JOIN training_steps b \
                       ON a.recipe || CAST(a.avg_step_ms AS TEXT) ~ (b.hardware || '.*x' || CAST(b.avg_step_ms AS TEXT))";
        let error = engine.run(runaway, &store, copies(&views)).await;
        assert!(matches!(error, Err(Error::TimedOut(_))), "{error:?}");
        assert_eq!(engine.turns.available_permits(), AT_ONCE);
        assert!(idle(&engine).is_empty());
    }
    let next = engine.run("SELECT 1", &store, copies(&views)).await;
    assert_eq!(next.expect("an answer").rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_needs_more_memory_than_a_process_may_have_is_told_and_nobody_else_notices() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let small = "the_small_process_of_these_tests";
    let (engine, views) = engine_in(small, &store, PATIENCE).await;
    // A thousand patterns of some megabytes each, which the engine keeps and does not count.
    let hungry = r"SELECT count(*) FROM training_steps WHERE recipe ~ ('\w{4}\w{70}' || CAST(avg_step_ms AS TEXT))";
    let error = engine.run(hungry, &store, copies(&views)).await;
    assert!(matches!(error, Err(Error::OutOfMemory)), "{error:?}");
    let next = engine.run("SELECT 1", &store, copies(&views)).await;
    assert_eq!(next.expect("an answer").rows(), 1);
}

/// A statement whose answer is cut has begun to read more, and what it reads may be on its way.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_wait_for_who_waits_to_send() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (_, views) = large(&store, PATIENCE).await;
    let mut process = Process::start(&program("the_process_of_these_tests")).expect("a process");
    let objects: HashSet<Path> = views()
        .iter()
        .flat_map(View::objects)
        .map(|(path, _)| path)
        .collect();
    // Longer than a socket holds.
    let long = "SELECT * FROM training_steps";
    let ask = || Ask::new(long, Wanted::Rows, PATIENCE, &views());
    let first = process.ask(ask(), &store, &objects).await;
    let first = first.expect("it answers").expect("an answer");
    assert_eq!((first.rows(), first.truncated), (10_000, true));
    // Its footer is known now, so that what it asks for is one read of the rows.
    process
        .send(&ToProcess::Ask(ask()), &[])
        .await
        .expect("taken");
    let asked = loop {
        match process.frames.next().await.expect("it is there") {
            (ToServer::Taken, _) => {}
            (ToServer::Read { read, path, ranges }, _) => break (read, path, ranges),
            (ToServer::Answer(_), _) => panic!("it has read nothing"),
        }
    };
    let (read, path, ranges) = asked;
    let found = pieces(&store, &objects, path, ranges).await.expect("read");
    let lengths = |pieces: &[Bytes]| Ok(pieces.iter().map(Bytes::len).collect());
    let of_read = |read, found: &[Bytes]| ToProcess::Pieces {
        read,
        found: lengths(found),
    };
    process
        .send(&of_read(read, &found), &found)
        .await
        .expect("sent");
    // It answers now, and is sent what nobody waits for any more.
    let late = [Bytes::from(vec![0; 1 << 20])];
    let head = of_read(u64::MAX, &late);
    for _ in 0..64 {
        let sent = process.send(&head, &late);
        timeout(PATIENCE, sent)
            .await
            .expect("it is read")
            .expect("sent");
    }
    let answered = timeout(PATIENCE, process.frames.next()).await;
    let (answer, _) = answered.expect("it answers").expect("it is there");
    assert!(matches!(answer, ToServer::Answer(Ok(_))));
    let again = process.ask(ask(), &store, &objects).await;
    assert_eq!(
        again.expect("it goes on").expect("an answer").rows(),
        10_000
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_somebody_ends_is_replaced() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = engine(&store, PATIENCE).await;
    let count = "SELECT count(*) FROM training_steps";
    engine
        .run(count, &store, copies(&views))
        .await
        .expect("an answer");
    let first = idle(&engine);
    kill(first[0]);
    let processes = engine.processes.get().expect("processes");
    let ended = async {
        // It is handed out for as long as it runs.
        while let Some(process) = processes.idle() {
            processes.lock().push(process);
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ended).await.expect("it ended");
    engine
        .run(count, &store, copies(&views))
        .await
        .expect("an answer");
    assert_ne!(first, idle(&engine));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_nothing_of_the_servers_and_ends_with_it() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = engine(&store, PATIENCE).await;
    // As raft-engine opens its files: whatever this process starts has it too.
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDWR;
    let _open = rustix::fs::open(&log, flags, rustix::fs::Mode::RWXU).expect("a file");
    engine
        .run("SELECT 1", &store, views)
        .await
        .expect("an answer");
    #[cfg(target_os = "linux")]
    {
        let process = format!("/proc/{}", idle(&engine)[0]);
        let environment = std::fs::read(format!("{process}/environ"));
        assert_eq!(environment.expect("its environment"), b"");
        let open = std::fs::read_dir(format!("{process}/fd")).expect("what it has open");
        let open = open.map(|entry| std::fs::read_link(entry.expect("one").path()));
        let open: Vec<_> = open.map(|to| to.expect("what it is")).collect();
        assert!(open.len() > 2 && !open.contains(&log), "{open:?}");
    }
    let process = engine.processes.get().expect("processes").lock().pop();
    let Process {
        mut process,
        frames,
        socket,
        ..
    } = process.expect("it waits");
    drop((frames, socket));
    let ended = timeout(PATIENCE, process.wait()).await.expect("it ends");
    assert!(ended.expect("known").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_gone_or_cut_is_told_as_damaged_and_not_as_a_store_that_is_away() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = engine(&store, PATIENCE).await;
    let (on_a_thread, _) = large(&store, PATIENCE).await;
    let path = Path::from("training_steps/one.parquet");
    let whole = store.get(&path).await.expect("there").bytes().await;
    let cut = whole.expect("its bytes").slice(..500);
    let statement = "SELECT max(avg_step_ms) FROM training_steps";
    for is_gone in [false, true] {
        let damaged = match is_gone {
            true => store.delete(&path).await,
            false => store.put(&path, cut.clone().into()).await.map(drop),
        };
        damaged.expect("damaged");
        for engine in [&engine, &on_a_thread] {
            let error = engine.run(statement, &store, copies(&views)).await;
            let is_told = matches!(error, Err(Error::Damaged { .. }));
            assert!(is_told, "{is_gone}: {error:?}");
        }
    }
}

/// What is at the end of an object says how long its footer is, here two gigabytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_told_as_that() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, views) = engine(&store, PATIENCE).await;
    let (on_a_thread, _) = large(&store, PATIENCE).await;
    let path = Path::from("training_steps/one.parquet");
    let whole = store.get(&path).await.expect("there").bytes().await;
    let whole = whole.expect("its bytes");
    let length = whole.len() - 8;
    for damage in [[0xff, 0xff, 0xff, 0x7f], [0xff; 4], [7, 0, 0, 0]] {
        let mut bytes = whole.to_vec();
        bytes[length..length + 4].copy_from_slice(&damage);
        store.put(&path, bytes.into()).await.expect("put");
        let statement = "SELECT count(*), max(avg_step_ms) FROM training_steps";
        for engine in [&engine, &on_a_thread] {
            let error = engine.run(statement, &store, copies(&views)).await;
            let is_told = matches!(error, Err(Error::Damaged { .. }));
            assert!(is_told, "{damage:?}: {error:?}");
        }
    }
    store.put(&path, whole.into()).await.expect("put");
    let statement = "SELECT count(*) FROM training_steps";
    let answer = engine.run(statement, &store, views).await;
    let cells = answer.expect("it is whole again").cells();
    assert_eq!(cells, [[Some("20000".to_owned())]]);
}
