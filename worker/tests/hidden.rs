//! What a trainer under an account of its own leaves running where its guard does not see it. Needs root.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hosts;
mod leader;

use std::fs;
use std::io::Read;
use std::path::Path;

use hosts::{ACCOUNTS, Host, Lost, as_account_later, assign, mode, number, printed, run};
use leader::{Leader, Process, files};

#[tokio::test]
async fn what_has_hidden_from_its_guard_is_gone_when_the_attempt_has_ended() {
    let Some(host) = Host::new() else { return };
    let mut leader = Leader::with(10_000, files("")).await;
    // It leaves the tree while its guard still lives, and nothing in its environment says whose it is.
    let script =
        "env -i setsid sh -c 'echo pid $$; trap \"\" TERM HUP; exec sleep 600' &\nsleep 0.3\n";
    let worker = host.start(&leader, ACCOUNTS[0], script);
    leader.attached().await;
    let (_, said) = run(&mut leader, 1, "j1").await;
    let pid = said
        .lines()
        .find_map(|line| line.strip_prefix("pid "))
        .unwrap()
        .to_owned();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    // One that its guard has never seen, as of a worker that was killed.
    let lost = as_account_later(ACCOUNTS[0], "exec sleep 600");
    let (_, _) = run(&mut leader, 2, "j2").await;
    assert!(!lost.lives(), "it is gone before the end is said");
    // One that starts another and ends, again and again, so that nobody who looks finds it: its pipe closes with the last one.
    let chain = chain(&host);
    run(&mut leader, 4, "j4").await;
    gone(chain).await;
    // The next worker ends what the killed one has left, and shuts its results.
    let lost = as_account_later(ACCOUNTS[0], "exec sleep 600");
    fs::write(
        host.path("trainer.sh"),
        "echo pid $$\nwhile :; do sleep 0.05; done\n",
    )
    .unwrap();
    assign(&leader, 3, "j3").await;
    printed(&mut leader, "pid ").await;
    assert_eq!(mode(&host.output("j3")).0, number(ACCOUNTS[0]).unwrap());
    worker.signal("-KILL");
    drop(worker);
    let worker = host.start(&leader, ACCOUNTS[0], "exit 0");
    leader.attached().await;
    assert!(!lost.lives());
    assert_eq!(mode(&host.output("j3")), (0, 0o700));
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
}

/// Something that starts another and ends, again and again.
fn chain(host: &Host) -> Lost {
    let chain = host.path("chain");
    fs::write(&chain, "/bin/sh \"$0\" &\n").unwrap();
    as_account_later(ACCOUNTS[0], &format!("exec /bin/sh {}", chain.display()))
}

/// Waits until the last of it has ended, which closes its pipe.
async fn gone(mut chain: Lost) {
    let mut pipe = chain.0.stdout.take().unwrap();
    let closed = tokio::task::spawn_blocking(move || pipe.read(&mut [0]).unwrap());
    let closed = tokio::time::timeout(leader::PATIENCE, closed).await;
    assert_eq!(closed.expect("some of it lives").unwrap(), 0);
}

/// As where a job has filled the control group that it shares with the worker.
#[tokio::test]
async fn an_account_s_processes_are_ended_where_nothing_can_be_started_any_more() {
    let Some(host) = Host::new() else { return };
    let mut leader = Leader::with(10_000, files("")).await;
    let (go, log, trainer) = (host.path("go"), host.path("log"), host.path("trainer.sh"));
    let script = format!(
        "echo pid $$\nuntil [ -e {} ]; do sleep 0.05; done\n",
        go.display()
    );
    fs::write(&trainer, script).unwrap();
    let trainer = format!("/bin/sh {}", trainer.display());
    let more = ["--cpu", "--simpletuner-command", &trainer];
    let mut command = host.command(&leader.address, ACCOUNTS[0], &more);
    command.stderr(fs::File::create(&log).unwrap());
    let worker = Process(command.spawn().unwrap());
    leader.attached().await;
    assign(&leader, 1, "j1").await;
    printed(&mut leader, "pid ").await;
    let chain = chain(&host);
    fs::rename(host.path("worker"), host.path("moved")).unwrap();
    fs::write(&go, "").unwrap();
    leader.ended().await;
    gone(chain).await;
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains("one by one"), "{log}");
}
