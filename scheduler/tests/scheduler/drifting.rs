//! Of equal workers the one is chosen that takes less for the same, by what the job's owner chooses by.

use std::collections::BTreeMap;

use stepcast_records::{Hardware, UsdMicros};
use stepcast_scheduler::Command;
use stepcast_scheduler::ids::{InstanceId, TokenHash, WorkerId};
use stepcast_scheduler::model::{Inventory, JobSpec, Objective, TrainerKind};
use stepcast_scheduler::placement::{Forecast, ForecastSource, Planner};

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
}

/// Hosts with a GPU each, at such prices in cents an hour.
fn cluster(cents: &[Option<u64>]) -> History {
    let mut history = History::new();
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
                address: None,
            },
        };
        assert!(history.propose(joins, None).reply.is_ok());
    }
    history
}

/// The host on which a job with this objective starts, of hosts with these prices and drifts.
fn host_of(objective: Objective, hosts: &[(Option<u64>, u32)]) -> usize {
    let prices: Vec<Option<u64>> = hosts.iter().map(|(cents, _)| *cents).collect();
    let mut history = cluster(&prices);
    let spec = Box::new(JobSpec {
        objective,
        ..JobSpec::new(workload(), staging(1))
    });
    history.propose(Command::SubmitJob { spec }, None);
    let workers: Vec<WorkerId> = history.state.workers().map(|worker| worker.id).collect();
    let drifts = workers
        .iter()
        .copied()
        .zip(hosts.iter().map(|(_, drift)| *drift));
    let source = Drifting(history.forecast.clone(), drifts.collect());
    let mut chosen = Vec::new();
    for mut planner in [Planner::default(), Planner::default().with_crowds_above(0)] {
        let planned = planner.plan(&history.state, &source, history.now_ms, 9);
        let [placement] = &planned.placements[..] else {
            panic!("one job starts");
        };
        let host = workers
            .iter()
            .position(|worker| *worker == placement.worker);
        chosen.extend(host);
    }
    assert_eq!(chosen[0], chosen[1], "few or many");
    chosen[0]
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
