//! Of equal workers those are chosen that take less for the same, by what the job's owner chooses by.

use std::collections::BTreeMap;

use stepcast_records::{Hardware, UsdMicros};
use stepcast_scheduler::ids::{InstanceId, JobId, TokenHash, WorkerId};
use stepcast_scheduler::model::{Inventory, JobSpec, Objective, TrainerKind};
use stepcast_scheduler::placement::{Forecast, ForecastSource, Planner, explain};
use stepcast_scheduler::{Command, Reply, codec};

use crate::drawn::staging;
use crate::history::History;
use crate::support::{Table, workload};

/// The table's minutes, on workers of which some take longer.
struct Drifting(Table, BTreeMap<WorkerId, u32>);

impl ForecastSource for Drifting {
    fn version(&self) -> Option<u64> {
        Some(0)
    }

    fn forecast(&self, spec: &JobSpec, hardware: Hardware) -> Option<Forecast> {
        self.0.forecast(spec, hardware)
    }

    fn drift(&self, worker: WorkerId) -> u32 {
        self.1.get(&worker).copied().unwrap_or(1_000)
    }

    fn least_drift(&self) -> u32 {
        self.1
            .values()
            .fold(1_000, |least, drift| least.min(*drift))
    }
}

/// Hosts with a GPU each, at such prices in cents an hour.
fn cluster(cents: &[Option<u64>]) -> History {
    let mut history = History::new();
    let version = codec::VERSION;
    history.propose(Command::Barrier { version }, None);
    for (host, cents) in (1..).zip(cents) {
        let hash = TokenHash([host; 32]);
        let name = format!("host-{host}").parse().expect("a label");
        history.propose(Command::CreateWorkerToken { name, hash }, None);
        let joins = Command::RegisterWorker {
            token_hash: hash,
            instance: InstanceId([host; 16]),
            inventory: Inventory {
                gpus: vec!["h100".parse().expect("a GPU")],
                trainers: [TrainerKind::SimpleTuner].into(),
                labels: BTreeMap::new(),
                price_per_gpu_hour: cents.map(|cents| UsdMicros(cents * 10_000)),
                address: format!("10.0.0.{host}:29500").parse().ok(),
                outputs: None,
            },
        };
        assert!(history.propose(joins, None).reply.is_ok());
    }
    history
}

/// Hosts with these prices and drifts, and what is known of them.
fn drifting(hosts: &[(Option<u64>, u32)]) -> (History, Drifting) {
    let prices: Vec<Option<u64>> = hosts.iter().map(|(cents, _)| *cents).collect();
    let history = cluster(&prices);
    let workers = history.state.workers().map(|worker| worker.id);
    let drifts = workers.zip(hosts.iter().map(|(_, drift)| *drift)).collect();
    let source = Drifting(history.forecast.clone(), drifts);
    (history, source)
}

fn submit(history: &mut History, number: u64, objective: Objective, hosts: u8) -> JobId {
    let mut spec = JobSpec {
        objective,
        ..JobSpec::new(workload(), staging(number))
    };
    spec.terms.more_hosts = hosts - 1;
    let spec = Box::new(spec);
    match history.propose(Command::SubmitJob { spec }, None).reply {
        Ok(Reply::JobSubmitted { job }) => job,
        other => panic!("{other:?}"),
    }
}

/// The hosts on which a job on so many of them starts that has this objective, of hosts with these prices and drifts.
fn hosts_of(objective: Objective, count: u8, hosts: &[(Option<u64>, u32)]) -> Vec<usize> {
    let (mut history, source) = drifting(hosts);
    submit(&mut history, 1, objective, count);
    let workers: Vec<WorkerId> = history.state.workers().map(|worker| worker.id).collect();
    let mut chosen = Vec::new();
    for mut planner in [Planner::default(), Planner::default().with_crowds_above(0)] {
        let planned = planner.plan(&history.state, &source, history.now_ms, 9);
        let [placement] = &planned.placements[..] else {
            panic!("one job starts");
        };
        let hosts = placement.seats().map(|(id, _)| {
            let host = workers.iter().position(|worker| *worker == id);
            host.expect("a host that is there")
        });
        chosen.push(hosts.collect::<Vec<_>>());
    }
    assert_eq!(chosen[0], chosen[1], "few or many");
    chosen.remove(0)
}

fn host_of(objective: Objective, hosts: &[(Option<u64>, u32)]) -> usize {
    hosts_of(objective, 1, hosts)[0]
}

#[test]
fn a_slow_worker_is_chosen_last_unless_it_is_as_much_cheaper() {
    let objectives = [Objective::Cheapest, Objective::Fastest, Objective::Balanced];
    for objective in objectives {
        for price in [None, Some(200)] {
            assert_eq!(host_of(objective, &[(price, 1_000), (price, 1_000)]), 0);
            assert_eq!(host_of(objective, &[(price, 1_200), (price, 1_000)]), 1);
            assert_eq!(host_of(objective, &[(price, 1_000), (price, 900)]), 1);
        }
    }
    // A tenth slower, a fifth cheaper.
    let dear = [(Some(200), 1_000), (Some(160), 1_100)];
    assert_eq!(host_of(Objective::Cheapest, &dear), 1);
    assert_eq!(host_of(Objective::Fastest, &dear), 0);
    assert_eq!(host_of(Objective::Balanced, &dear), 1);
    // A third slower, a fifth cheaper.
    let slow = [(Some(200), 1_000), (Some(160), 1_350)];
    assert_eq!(host_of(Objective::Cheapest, &slow), 0);
}

#[test]
fn a_gang_is_as_slow_as_its_slowest_host_and_costs_what_all_of_them_cost() {
    let objectives = [Objective::Cheapest, Objective::Fastest, Objective::Balanced];
    for objective in objectives {
        for price in [None, Some(200)] {
            let hosts = |drifts: [u32; 4]| drifts.map(|drift| (price, drift));
            let equal = hosts([1_000, 1_000, 1_000, 1_000]);
            assert_eq!(hosts_of(objective, 2, &equal), [0, 1]);
            let one_slow = hosts([1_000, 1_300, 1_000, 1_050]);
            assert_eq!(hosts_of(objective, 2, &one_slow), [0, 2]);
            assert_eq!(hosts_of(objective, 3, &one_slow), [0, 2, 3]);
            // With one slow host it does not matter how fast the others are.
            let two_slow = hosts([1_300, 900, 1_300, 1_000]);
            assert_eq!(hosts_of(objective, 3, &two_slow), [0, 1, 2]);
        }
    }
    // The slow one is a quarter cheaper, which is an eighth of both.
    let cheap = [(Some(200), 1_000), (Some(150), 1_100), (Some(200), 1_000)];
    assert_eq!(hosts_of(Objective::Cheapest, 2, &cheap), [1, 0]);
    assert_eq!(hosts_of(Objective::Fastest, 2, &cheap), [0, 2]);
    assert_eq!(hosts_of(Objective::Balanced, 2, &cheap), [0, 2]);
    let slower = [(Some(200), 1_000), (Some(150), 1_200), (Some(200), 1_000)];
    assert_eq!(hosts_of(Objective::Cheapest, 2, &slower), [0, 2]);
}

#[test]
fn an_explanation_names_the_workers_that_are_slow() {
    let (mut history, source) = drifting(&[(None, 1_250), (None, 1_000), (None, 950)]);
    let job = submit(&mut history, 1, Objective::Cheapest, 1);
    let slow = "slower than others with the same GPUs: host-1 by 25 %";
    let why = |history: &History, job| {
        explain(&history.state, &source, job, history.now_ms).expect("the job is there")
    };
    let waits = why(&history, job);
    assert_eq!(
        waits.headline,
        format!("{job} starts on host-3 with the next look at the queue")
    );
    assert_eq!(waits.lines[0].detail, slow);
    // The third job gets what is left.
    let jobs = [job, submit(&mut history, 2, Objective::Cheapest, 1)];
    let last = submit(&mut history, 3, Objective::Cheapest, 1);
    let placements = Planner::default()
        .plan(&history.state, &source, history.now_ms, 9)
        .placements;
    history.propose(Command::Place { placements }, None);
    assert_eq!(
        why(&history, last).headline,
        format!("{last} runs on host-1; {slow}")
    );
    assert!(
        !jobs
            .map(|job| why(&history, job).headline)
            .concat()
            .contains("slower")
    );
    let more = submit(&mut history, 4, Objective::Cheapest, 1);
    let [busy] = &why(&history, more).lines[..] else {
        panic!("all are busy");
    };
    assert!(
        busy.detail.ends_with(&format!("runs there; {slow}")),
        "{}",
        busy.detail
    );
}
