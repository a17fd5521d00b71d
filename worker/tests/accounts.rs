//! Trainers under accounts of their own: what a hostile one can reach of the worker's and of other jobs'. Needs root.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hosts;
mod leader;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use hosts::{
    ACCOUNTS, Host, as_account, as_account_later, assign, mode, number, printed, refused, run,
    tries,
};
use leader::{Leader, Process, files, workload};
use stepcast_proto::v1;

#[tokio::test]
async fn a_job_reaches_nothing_of_the_worker_s_nor_of_a_job_that_runs_beside_it() {
    let Some(host) = Host::new() else { return };
    let mut leader = Leader::with(10_000, files("")).await;
    let (first, state) = (host.path("first"), host.state());
    let others = format!(
        "{o}/j1 {o}/j1/weights {s}/attempts/1 {s}/attempts/1/config",
        o = state.join("outputs").display(),
        s = state.display(),
    );
    // The first one waits; the second one looks for it.
    let script = format!(
        r#"
case "$CONFIG_PATH" in
*/attempts/1/*)
    echo w > {o}/weights
    echo pid $$
    while :; do sleep 0.05; done ;;
esac
{tries}
for file in {s}/attempts/1/config/config.json {s}/attempts/1/signals.json {o}/weights $(cat {f})/environ; do try cat $file; done
try kill -9 $(basename $(cat {f}))
cat $CONFIG_PATH > {s}/outputs/j2/weights
"#,
        o = host.output("j1").display(),
        s = state.display(),
        f = first.display(),
        tries = tries(&state, &others),
    );
    let worker = host.start(&leader, &ACCOUNTS.join(","), &script);
    leader.attached().await;
    assign(&leader, 1, "j1").await;
    let pid = printed(&mut leader, "pid ").await;
    fs::write(&first, format!("/proc/{pid}")).unwrap();
    let (ended, said) = run(&mut leader, 2, "j2").await;
    assert_eq!(ended.epoch, 2);
    assert!(!said.contains("REACHED"), "{said}");
    let second = number(ACCOUNTS[1]).unwrap();
    assert!(
        said.contains(&format!(
            "account {a} {a} {a} uid {second}",
            a = ACCOUNTS[1]
        )),
        "{said}"
    );
    let attempt = state
        .join("attempts/2")
        .canonicalize()
        .unwrap_or(state.join("attempts/2"));
    let home = format!("home {a}/home tmp {a}/tmp xdg \n", a = attempt.display());
    assert!(said.contains(&home), "{home}: {said}");
    for line in [
        "NoNewPrivs:\t1",
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "0077",
        "to stderr",
        "\"manual_checkpoint\": 0",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // It is shut as soon as its end is known, also for the account that has made it.
    assert_eq!(mode(&host.output("j2")), (0, 0o700));
    assert_eq!(mode(&host.output("j2").join("weights")).0, second);
    let read = as_account(
        ACCOUNTS[1],
        &format!("cat {}", host.output("j2").join("weights").display()),
    );
    assert!(!read.status.success());
    assert_eq!(
        mode(&host.output("j1")),
        (number(ACCOUNTS[0]).unwrap(), 0o700)
    );
    assert_eq!(mode(&host.secret()), (0, 0o600));
    worker.signal("-TERM");
    assert_eq!(leader.ended().await.epoch, 1);
    assert!(worker.ended().await.success());
    assert_eq!(mode(&host.output("j1")), (0, 0o700));
}

/// A file that its owner alone reads.
fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn the_next_attempt_goes_on_under_another_account_and_planted_links_lead_nowhere() {
    let Some(host) = Host::new() else { return };
    let mut leader = Leader::with(10_000, files("")).await;
    let secret = host.path("secret.json");
    private(&secret, "{\"secret\": \"of the host\"}");
    let hostile = format!(
        r#"
cd {o}
mkdir checkpoint-10 checkpoint-20 && touch checkpoint-10/.guard checkpoint-20/.guard
echo '{{"global_step": 10}}' > checkpoint-10/training_state.json
ln -s {secret} checkpoint-20/training_state.json
ln -s {secret} checkpoint-20/training_state-rank1.json.tmp
echo '{{}}' > checkpoint-20/training_state-rank1.json
ln -s {folder} checkpoint-15
ln -s {folder} cache-2
ln -s {secret} link
ln {secret} hard 2>/dev/null
rm -f $SIMPLETUNER_ACCELERATE_SIGNAL_FILE 2>/dev/null && echo REACHED the signals
ln -s {secret} $(dirname $CONFIG_PATH)/config.tmp
cat before
exit 0
"#,
        o = host.output("j1").display(),
        secret = secret.display(),
        folder = host.root.path().display(),
    );
    // As an attempt has left it that ran as the worker, before there were accounts.
    fs::create_dir_all(host.output("j1")).unwrap();
    private(&host.output("j1").join("before"), "of the job");
    let worker = host.start(&leader, ACCOUNTS[0], &hostile);
    leader.attached().await;
    let (_, said) = run(&mut leader, 1, "j1").await;
    assert!(!said.contains("REACHED"), "{said}");
    assert!(said.contains("of the job"), "{said}");
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
    // Whether this system lets an account make one or not.
    let hard = host.output("j1").join("hard");
    let _there = fs::remove_file(&hard);
    fs::hard_link(&secret, &hard).unwrap();
    // What a job can move out of a folder that it may write to.
    let moved = host.output("j1").join("moved");
    private(&moved, "of a person");
    std::os::unix::fs::chown(&moved, Some(1), Some(1)).unwrap();
    let state = host
        .output("j1")
        .join("checkpoint-20/training_state-rank2.json");
    let own = [host.output("j1").join("own"), state];
    for file in &own {
        private(file, "{\"secret\": \"of the host\"}");
    }

    let next = format!(
        r#"
cat $CONFIG_PATH; echo
cd {o} && cat checkpoint-20/training_state-rank1.json; echo
cat link hard moved own checkpoint-20/training_state.json checkpoint-20/training_state-rank2.json
cat checkpoint-10/training_state.json && echo more > checkpoint-10/more && rm checkpoint-10/.guard
exit 0
"#,
        o = host.output("j1").display(),
    );
    let both = format!("{},{}", ACCOUNTS[1], ACCOUNTS[0]);
    let worker = host.start(&leader, &both, &next);
    leader.attached().await;
    let (_, said) = run(&mut leader, 2, "j1").await;
    let goes_on = r#"resume_from_checkpoint":"checkpoint-20""#;
    assert!(said.contains(goes_on), "{said}");
    assert!(
        said.contains(r#""global_step":20"#),
        "the worker's own part is done: {said}"
    );
    assert!(!said.contains("of the host"), "{said}");
    assert!(!said.contains("of a person"), "{said}");
    assert_eq!(mode(&moved), (1, 0o600));
    for file in &own {
        assert_eq!(mode(file), (0, 0o600), "{}", file.display());
    }
    let (output, second) = (host.output("j1"), number(ACCOUNTS[1]).unwrap());
    assert_eq!(mode(&output.join("checkpoint-10/more")).0, second);
    assert_eq!(
        mode(&output.join("checkpoint-10/training_state.json")).0,
        second
    );
    assert_eq!(
        mode(&output.join("checkpoint-20/training_state-rank1.json")),
        (second, 0o600)
    );
    assert_eq!(
        mode(&secret),
        (0, 0o600),
        "a file with two names is given to nobody"
    );
    assert_eq!(
        fs::read_to_string(&secret).unwrap(),
        "{\"secret\": \"of the host\"}"
    );
    assert_eq!(mode(host.root.path()), (0, 0o755));
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn the_end_of_an_attempt_shuts_nothing_under_the_next_of_its_job() {
    let Some(host) = Host::new() else { return };
    let mut leader = Leader::with(10_000, files("")).await;
    let go = host.path("go");
    let script = format!(
        r#"
case "$CONFIG_PATH" in
*/attempts/1/*)
    echo guard $PPID
    while :; do sleep 0.05; done ;;
esac
until [ -e {go} ]; do sleep 0.05; done
echo w > {o}/weights && echo written
"#,
        go = go.display(),
        o = host.output("j1").display(),
    );
    let worker = host.start(&leader, ACCOUNTS[0], &script);
    leader.attached().await;
    assign(&leader, 1, "j1").await;
    let guard = printed(&mut leader, "guard ").await;
    let signal = |signal: &str| {
        let sent = Command::new("kill").args([signal, &guard]).status();
        assert!(sent.unwrap().success());
    };
    // It takes long to end, and the leader knows nothing of it any more.
    signal("-STOP");
    assign(&leader, 2, "j1").await;
    for _ in 0..2 {
        while !leader.renewed().await.contains(&2) {}
    }
    signal("-CONT");
    assert_eq!(leader.ended().await.epoch, 1);
    fs::write(&go, "").unwrap();
    printed(&mut leader, "written").await;
    assert_eq!(leader.ended().await.epoch, 2);
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
    assert_eq!(mode(&host.output("j1")), (0, 0o700));
}

#[tokio::test]
async fn what_is_left_of_one_account_says_nothing_of_another() {
    let Some(host) = Host::new() else { return };
    let mut leader = Leader::with(10_000, files("")).await;
    let script = "echo pid $$\nwhile :; do sleep 0.05; done\n";
    let worker = host.start(&leader, ACCOUNTS[0], script);
    leader.attached().await;
    assign(&leader, 1, "j1").await;
    printed(&mut leader, "pid ").await;
    worker.signal("-KILL");
    drop(worker);
    // A person's, who is named by mistake.
    let other = as_account_later(ACCOUNTS[1], "exec sleep 600");
    let said = refused(&mut host.command(&leader.address, ACCOUNTS[1], &["--cpu"]));
    let why = format!("something runs as {} already", ACCOUNTS[1]);
    assert!(said.contains(&why) && other.lives(), "{said}");
    drop(other);
    // What is not named any more is cleared all the same.
    let lost = as_account_later(ACCOUNTS[0], "exec sleep 600");
    let worker = host.start(&leader, ACCOUNTS[1], "exit 0");
    leader.attached().await;
    assert!(!lost.lives());
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn a_replay_and_a_checkpoint_on_demand_go_the_same_way() {
    let Some(host) = Host::new() else { return };
    let mut leader = Leader::with(10_000, Vec::new()).await;
    let more = ["--replay", "1", "--replay-speed", "0"];
    let worker = host
        .command(&leader.address, ACCOUNTS[0], &more)
        .spawn()
        .unwrap();
    let worker = Process(worker);
    leader.attached().await;
    leader.assign(1, v1::Trainer::Replay, workload(20)).await;
    let ended = leader.ended().await;
    assert_eq!(ended.outcome(), v1::Outcome::Succeeded, "{ended:?}");
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
    // Signals are written while a job runs: each file is its account's when it appears.
    let mut leader = Leader::with(10_000, files("")).await;
    let script = "echo pid $$\nuntil grep -q '_checkpoint\": 1' $SIMPLETUNER_ACCELERATE_SIGNAL_FILE; do sleep 0.05; done\necho asked\n";
    let worker = host.start(&leader, ACCOUNTS[0], script);
    leader.attached().await;
    assign(&leader, 2, "j2").await;
    printed(&mut leader, "pid ").await;
    let signals = host.state().join("attempts/2/signals.json");
    assert_eq!(mode(&signals), (number(ACCOUNTS[0]).unwrap(), 0o600));
    worker.signal("-TERM");
    leader.ended().await;
    assert!(worker.ended().await.success());
}

#[tokio::test]
async fn a_command_that_the_account_may_not_start_is_named_with_it() {
    let Some(host) = Host::new() else { return };
    let mut leader = Leader::with(10_000, files("")).await;
    let closed = host.path("venv");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("python"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(closed.join("python"), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let python = closed.join("python").display().to_string();
    let more = ["--cpu", "--simpletuner-command", &python];
    let _worker = Process(
        host.command(&leader.address, ACCOUNTS[0], &more)
            .spawn()
            .unwrap(),
    );
    leader.attached().await;
    leader.ways.acknowledges.store(false, Ordering::SeqCst);
    let (ended, _) = run(&mut leader, 1, "j1").await;
    assert_eq!(ended.outcome(), v1::Outcome::LaunchFailed, "{ended:?}");
    // What is there until somebody has heard of the end is shut as well.
    let attempt = host.state().join("attempts/1");
    assert!(attempt.join("config/config.json").exists());
    assert_eq!(mode(&attempt), (0, 0o700));
    let why = format!("the account games cannot start {python}: Permission denied");
    assert!(ended.detail.contains(&why), "{ended:?}");
}

#[tokio::test]
async fn no_job_learns_of_the_worker_which_folders_there_are() {
    let Some(host) = Host::new() else { return };
    let closed = host.path("closed");
    let hidden = closed.join("hidden");
    fs::create_dir_all(&hidden).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let mut files = files("");
    let loader =
        r#"[{"id": "cats", "type": "local", "instance_data_dir": "FOLDER", "cache_dir_vae": "x"}]"#;
    files[1].content = loader
        .replace("FOLDER", &hidden.display().to_string())
        .into();
    let mut leader = Leader::with(10_000, files).await;
    let worker = host.start(&leader, ACCOUNTS[0], "echo it runs");
    leader.attached().await;
    let (there, _) = run(&mut leader, 1, "j1").await;
    fs::remove_dir(&hidden).unwrap();
    let (missing, _) = run(&mut leader, 2, "j2").await;
    assert_eq!(there.outcome(), v1::Outcome::LaunchFailed, "{there:?}");
    assert_eq!(there.detail, missing.detail);
    let why = format!("which the account {} may enter", ACCOUNTS[0]);
    assert!(there.detail.contains(&why), "{there:?}");
    fs::create_dir(&hidden).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o711)).unwrap();
    let (_, said) = run(&mut leader, 3, "j3").await;
    assert!(said.contains("it runs"), "{said}");
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
}

#[test]
fn a_worker_that_cannot_do_it_ends_and_says_what_to_do() {
    let Some(host) = Host::new() else { return };
    let nowhere = "http://127.0.0.1:1";
    let cpu = ["--cpu"];
    for (accounts, why) in [
        ("root", "root is root, from whom nothing is kept"),
        ("games,games", "games is named twice"),
        ("no-such-account", "useradd --system"),
    ] {
        let said = refused(&mut host.command(nowhere, accounts, &cpu));
        assert!(said.contains(why), "{accounts}: {said}");
    }
    // What is somebody else's would be killed.
    let other = as_account_later("games", "exec sleep 600");
    let said = refused(&mut host.command(nowhere, "games", &cpu));
    assert!(said.contains("something runs as games already"), "{said}");
    assert!(other.lives());
    drop(other);
    // Where one job could put its folder in the place of another's.
    let open = host.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    let mut command = host.command(nowhere, "games", &cpu);
    let said = refused(command.arg("--outputs").arg(&open));
    assert!(said.contains("others may write to it"), "{said}");
    // Where the account cannot get to.
    let closed = host.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let mut command = host.command(nowhere, "games", &cpu);
    let said = refused(command.arg("--outputs").arg(closed.join("outputs")));
    assert!(said.contains("games: it may not enter"), "{said}");
    // Without root.
    let own = host.path("own");
    fs::create_dir(&own).unwrap();
    let uid = number("uucp").unwrap();
    std::os::unix::fs::chown(&own, Some(uid), Some(uid)).unwrap();
    fs::copy(host.path("token"), host.path("read")).unwrap();
    fs::set_permissions(host.path("read"), Permissions::from_mode(0o644)).unwrap();
    let mut command = Command::new(host.path("worker"));
    command.args([
        "run",
        "--server",
        nowhere,
        "--cpu",
        "--trainer-user",
        "games",
    ]);
    command.arg("--state").arg(own.join("state"));
    command.arg("--join-token-file").arg(host.path("read"));
    let said = refused(command.uid(uid).gid(uid).stdin(Stdio::null()));
    assert!(
        said.contains("trainers cannot be run as games") && said.contains("runs as root"),
        "{said}"
    );
}

#[test]
fn a_link_in_the_place_of_results_is_not_given_away() {
    let Some(host) = Host::new() else { return };
    // As an operator puts it there, for a larger disk: the account would have what it leads to.
    let larger = host.path("larger");
    fs::create_dir_all(host.output("")).unwrap();
    fs::create_dir(&larger).unwrap();
    symlink(&larger, host.output("j1")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut leader = Leader::with(10_000, files("")).await;
        let _worker = host.start(&leader, ACCOUNTS[0], "exit 0");
        leader.attached().await;
        let (ended, _) = run(&mut leader, 1, "j1").await;
        assert_eq!(ended.outcome(), v1::Outcome::LaunchFailed, "{ended:?}");
    });
    assert_eq!(mode(&larger).0, 0);
}
