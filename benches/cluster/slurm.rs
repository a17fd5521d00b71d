//! The same number of jobs against Slurm: one controller and several of its node daemons on this machine, set up for speed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use tokio::process::{Child, Command};

use crate::board::Board;
use crate::nodes::{Nodes, free_address};
use crate::ramp::{SETTLES_WITHIN, jobs};
use crate::row;
use crate::workers::Workers;

/// Daemons and nodes that are not ready in this time have failed.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Slurm may take this long for all jobs.
const STARTS_WITHIN: Duration = Duration::from_secs(300);

/// How often the logs are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What the controller says when it has given a job its place.
const ALLOCATED: &str = "sched: Allocate JobId=";

/// What a node's daemon says when it starts a job.
const LAUNCHED: &str = "Launching batch job";

/// What the controller says when a job is over.
const OVER: &str = " done\n";

/// Between a job's end by its own word and the end of its processes.
const SETTLES: Duration = Duration::from_secs(2);

/// How long it takes until so many jobs have started, here and there.
#[derive(Debug, Args)]
pub(crate) struct Slurm {
    /// Jobs
    #[arg(long, default_value_t = 2_000)]
    jobs: u64,
    /// Callers that submit to Stepcast; Slurm gets all jobs in one array, which is its quickest way
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Pretend workers of eight GPUs
    #[arg(long, default_value_t = 100)]
    workers: usize,
    /// Stepcast's nodes
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Jobs that Slurm may run at once; of several figures its best one counts
    #[arg(long, value_delimiter = ',', default_value = "64,2000")]
    places: Vec<u64>,
    /// Slurm's nodes: each has a daemon
    #[arg(long, default_value_t = 4)]
    daemons: u64,
}

/// What became of the array.
struct Started {
    /// Until the controller had given every job its place.
    allocated: Duration,
    /// Until a node's daemon had started every job.
    launched: Duration,
}

impl Slurm {
    pub(crate) async fn run(&self, program: &Path, data: &Path) -> anyhow::Result<()> {
        let ours = self.ours(program, &data.join("nodes")).await?;
        let mut best: Option<Started> = None;
        for places in &self.places {
            let started = self.theirs(&data.join("slurm"), *places).await?;
            println!(
                "Slurm with {places} places: {:.2} s until its controller had a place for each, {:.2} s until all had started",
                started.allocated.as_secs_f64(),
                started.launched.as_secs_f64()
            );
            if best
                .as_ref()
                .is_none_or(|best| started.launched < best.launched)
            {
                best = Some(started);
            }
        }
        let theirs = best.context("Slurm needs places for jobs")?;
        let per_second = |took: Duration| self.jobs as f64 / took.as_secs_f64();
        let ratio = theirs.launched.as_secs_f64() / ours.as_secs_f64();
        let figure = format!(
            "{ratio:.1} (Stepcast with {} nodes, each job a call of its own: {:.2} s, {:.0}/s; Slurm with {} nodes, one array: \
             {:.2} s, {:.0}/s, and {:.2} s until its controller had a place for each)",
            self.nodes,
            ours.as_secs_f64(),
            per_second(ours),
            self.daemons,
            theirs.launched.as_secs_f64(),
            per_second(theirs.launched),
            theirs.allocated.as_secs_f64()
        );
        let question = format!(
            "time until {} jobs have started, Slurm's by Stepcast's",
            self.jobs
        );
        row(&question, &figure, Some(("10 or more", ratio >= 10.0)));
        Ok(())
    }

    async fn ours(&self, program: &Path, folder: &Path) -> anyhow::Result<Duration> {
        let nodes = Nodes::start(program, folder, self.nodes).await?;
        let board = Arc::new(Board::default());
        let workers = Workers::start(&nodes.addresses, self.workers, &board).await?;
        let load = jobs(&nodes.addresses, self.callers, &board)?;
        let troubles = load.go_through(self.callers, self.jobs).await?;
        let left = board.settled(SETTLES_WITHIN).await;
        let tally = board.take();
        if left > 0 || tally.placed.count() != self.jobs {
            bail!(
                "{} of {} jobs were placed: {troubles:?}",
                tally.placed.count(),
                self.jobs
            );
        }
        workers.stop().await;
        nodes.stop().await?;
        Ok(tally.placing)
    }

    async fn theirs(&self, folder: &Path, places: u64) -> anyhow::Result<Started> {
        let controller = Controller::start(folder, self.daemons, places).await?;
        let script = folder.join("job.sh");
        // Slurm wants a script; this one is over as soon as its shell has started.
        std::fs::write(&script, "#!/bin/sh\n")?;
        let begun = Instant::now();
        let submitted = controller
            .command("sbatch")
            .arg(format!("--array=1-{}", self.jobs))
            .args(["--output=/dev/null", "--error=/dev/null", "--chdir=/tmp"])
            .arg(&script)
            .output()
            .await?;
        if !submitted.status.success() {
            bail!("sbatch: {}", String::from_utf8_lossy(&submitted.stderr));
        }
        let mut allocated = None;
        while begun.elapsed() < STARTS_WITHIN {
            if allocated.is_none() && controller.allocated()? >= self.jobs {
                allocated = Some(begun.elapsed());
            }
            if let Some(allocated) = allocated
                && controller.launched()? >= self.jobs
            {
                let launched = begun.elapsed();
                controller.quiet(self.jobs).await?;
                controller.stop().await?;
                return Ok(Started {
                    allocated,
                    launched,
                });
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!(
            "Slurm gave {} and started {} of {} jobs; see {}",
            controller.allocated()?,
            controller.launched()?,
            self.jobs,
            folder.display()
        )
    }
}

/// Slurm on this machine: munge, the controller, and the nodes' daemons. They end when this is dropped.
struct Controller {
    folder: PathBuf,
    daemons: u64,
    processes: Vec<Child>,
}

impl Controller {
    async fn start(folder: &Path, daemons: u64, places: u64) -> anyhow::Result<Self> {
        let munge = folder.join("munge");
        std::fs::create_dir_all(&munge)?;
        std::fs::create_dir_all(folder.join("state"))?;
        for number in 1..=daemons {
            std::fs::create_dir_all(folder.join(format!("spool/n{number}")))?;
        }
        let key: Vec<u8> = (0..128_u8).collect();
        std::fs::write(munge.join("key"), key)?;
        only_mine(&munge.join("key"))?;
        std::fs::write(
            folder.join("slurm.conf"),
            configuration(folder, daemons, places)?,
        )?;
        let mut controller = Self {
            folder: folder.to_owned(),
            daemons,
            processes: Vec::new(),
        };
        let in_munge = |what: &str, name: &str| format!("--{what}={}", munge.join(name).display());
        controller
            .spawn(
                "munged",
                &[
                    "--foreground".to_owned(),
                    "--force".to_owned(),
                    in_munge("key-file", "key"),
                    in_munge("socket", "socket"),
                    in_munge("pid-file", "pid"),
                    in_munge("log-file", "log"),
                    in_munge("seed-file", "seed"),
                ],
            )
            .context("Slurm needs Debian's packages slurm-wlm and munge")?;
        until(|| munge.join("socket").exists(), "munged").await?;
        controller.spawn("slurmctld", &["-D".to_owned(), "-c".to_owned()])?;
        for number in 1..=daemons {
            controller.spawn(
                "slurmd",
                &["-D".to_owned(), "-N".to_owned(), format!("n{number}")],
            )?;
        }
        let begun = Instant::now();
        while begun.elapsed() < READY_WITHIN {
            let nodes = controller
                .command("sinfo")
                .args(["-h", "-N", "-o", "%T"])
                .output()
                .await?;
            let idle = String::from_utf8_lossy(&nodes.stdout)
                .lines()
                .filter(|state| *state == "idle")
                .count();
            if idle as u64 == daemons {
                return Ok(controller);
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("Slurm's nodes are not ready; see {}", folder.display())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("SLURM_CONF", self.folder.join("slurm.conf"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn spawn(&mut self, program: &str, arguments: &[String]) -> anyhow::Result<()> {
        let number = self.processes.len();
        let log = self.folder.join(format!("{program}-{number}.out"));
        let process = self
            .command(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log)?)
            .spawn()
            .with_context(|| format!("{program} cannot be started"))?;
        self.processes.push(process);
        Ok(())
    }

    /// Jobs that have a place.
    fn allocated(&self) -> anyhow::Result<u64> {
        count(&self.folder.join("slurmctld.log"), ALLOCATED)
    }

    /// Jobs that a node has started.
    fn launched(&self) -> anyhow::Result<u64> {
        (1..=self.daemons)
            .map(|number| count(&self.folder.join(format!("slurmd-n{number}.log")), LAUNCHED))
            .sum()
    }

    /// Waits until every job is over: what still ends would disturb what is measured next.
    async fn quiet(&self, jobs: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < STARTS_WITHIN
            && count(&self.folder.join("slurmctld.log"), OVER)? < jobs
        {
            tokio::time::sleep(LOOK).await;
        }
        // The last processes end a moment after they have said so.
        tokio::time::sleep(SETTLES).await;
        Ok(())
    }

    /// Ends the daemons before the controller, and munge last.
    async fn stop(mut self) -> anyhow::Result<()> {
        while let Some(mut process) = self.processes.pop() {
            process.kill().await?;
        }
        std::fs::remove_dir_all(&self.folder)?;
        Ok(())
    }
}

/// Slurm as quick as it goes: no accounting, no cgroups, no cost of starting a job that can be left out, and as many places as
/// it is told to have.
fn configuration(folder: &Path, daemons: u64, places: u64) -> anyhow::Result<String> {
    let port = || -> anyhow::Result<String> {
        let address = free_address()?;
        let (_, port) = address.rsplit_once(':').context("an address has a port")?;
        Ok(port.to_owned())
    };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let (host, here, controller) = (host.trim(), folder.display(), port()?);
    let mut text = format!(
        "ClusterName=bench\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={controller}\nSlurmUser=root\nSlurmdUser=root\n\
         AuthType=auth/munge\nAuthInfo=socket={here}/munge/socket\nCredType=cred/munge\n\
         ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\n\
         AccountingStorageType=accounting_storage/none\nJobCompType=jobcomp/none\nMpiDefault=none\nSwitchType=switch/none\n\
         SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\nSchedulerType=sched/backfill\n\
         SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,default_queue_depth=100000,sched_max_job_start=0\n\
         ReturnToService=2\nSlurmdParameters=config_overrides\nMaxJobCount=200000\nMaxArraySize=200001\nMessageTimeout=60\n\
         StateSaveLocation={here}/state\nSlurmdSpoolDir={here}/spool/%n\n\
         SlurmctldPidFile={here}/slurmctld.pid\nSlurmdPidFile={here}/slurmd-%n.pid\n\
         SlurmctldLogFile={here}/slurmctld.log\nSlurmdLogFile={here}/slurmd-%n.log\n"
    );
    let cpus = places.div_ceil(daemons);
    for number in 1..=daemons {
        let port = port()?;
        writeln!(
            text,
            "NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=1000"
        )?;
    }
    writeln!(
        text,
        "PartitionName=all Nodes=n[1-{daemons}] Default=YES MaxTime=INFINITE State=UP"
    )?;
    Ok(text)
}

/// How often these words stand in a log; a log that is not there yet has none.
fn count(log: &Path, words: &str) -> anyhow::Result<u64> {
    if !log.exists() {
        return Ok(0);
    }
    Ok(std::fs::read_to_string(log)?.matches(words).count() as u64)
}

async fn until(ready: impl Fn() -> bool, what: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !ready() {
        if begun.elapsed() > READY_WITHIN {
            bail!("{what} does not start");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Munge takes its key only if nobody else can read it.
fn only_mine(file: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}
