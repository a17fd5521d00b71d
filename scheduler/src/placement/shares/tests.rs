//! That teams get what their weights say, that nobody waits for ever for it, and that nothing changes for who is alone.

use std::collections::BTreeMap;

use stepcast_records::simpletuner::{Dataset, Length, Preparation, Sharing, Workload};
use stepcast_records::{FrameClass, HalfMegapixels, Precision, Quantization, Recipe, UsdMicros};

use super::*;
use crate::forward::{Forward, Truth};
use crate::ids::{InstanceId, JobId, StagingId, TokenHash};
use crate::model::{Inventory, JobSpec, TeamRules, TrainerKind};
use crate::placement::{Forecast, ForecastSource};
use crate::policy::{Policy, Preemption};
use crate::reply::Reply;
use crate::{Command, codec};

const HOUR_MS: u64 = 3_600_000;

/// Every job takes an hour.
struct Hour;

impl ForecastSource for Hour {
    fn forecast(&self, _: &JobSpec, _: stepcast_records::Hardware) -> Option<Forecast> {
        Some(Forecast {
            run_ms_p50: HOUR_MS,
            run_ms_p90: HOUR_MS,
        })
    }

    fn version(&self) -> Option<u64> {
        Some(0)
    }
}

impl Truth for Hour {
    fn run_ms(&self, _: &Job, _: stepcast_records::Hardware) -> Option<u64> {
        Some(HOUR_MS)
    }

    fn restart_ms(&self) -> u64 {
        0
    }
}

fn workload() -> Workload {
    Workload {
        recipe: Recipe::parse("flux.dev/lora+ckpt").expect("a recipe"),
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
        accumulation: 1,
        context_parallel: 1,
        datasets: vec![Dataset {
            resolution: HalfMegapixels::new(2).expect("a bucket"),
            frames: FrameClass::Single,
            batch_size: 4,
            samples: Some(120),
            repeats: 0,
            padded: false,
        }],
        length: Length::Steps(3_000),
        checkpoint_every: None,
        validation: None,
        off_record: Vec::new(),
        preparation: Preparation::default(),
        sharing: Sharing::default(),
    }
}

/// A host with four GPUs, and a policy that takes nothing back.
fn cluster(aim: Aim, price: Option<u64>) -> Forward<'static> {
    let mut cluster = Forward::new(State::new(), &Hour, &Hour, 1_000 * HOUR_MS);
    let policy = Policy {
        aim,
        preemption: Preemption::Never,
        ..Policy::default()
    };
    let hash = TokenHash([1; 32]);
    let commands = [
        Command::Barrier {
            version: codec::VERSION,
        },
        Command::SetPolicy { policy },
        Command::CreateWorkerToken {
            name: "host".parse().expect("a label"),
            hash,
        },
        Command::RegisterWorker {
            token_hash: hash,
            instance: InstanceId([1; 16]),
            inventory: Inventory {
                gpus: vec!["h100".parse().expect("a GPU"); 4],
                trainers: [TrainerKind::SimpleTuner].into(),
                labels: BTreeMap::new(),
                price_per_gpu_hour: price.map(UsdMicros),
                address: None,
                outputs: None,
            },
        },
    ];
    for command in commands {
        cluster.apply(command).expect("it is taken");
    }
    cluster
}

fn team(cluster: &mut Forward<'_>, name: &str, weight: u32) -> TeamId {
    let rules = TeamRules {
        weight,
        ..TeamRules::default()
    };
    let name = name.parse().expect("a name");
    match cluster.apply(Command::SetTeam { name, rules }) {
        Ok(Reply::TeamSet { team }) => team,
        other => panic!("{other:?}"),
    }
}

/// Submits so many jobs that ask for the same but their files, and are no line since each has a length of its own.
fn submit(cluster: &mut Forward<'_>, team: TeamId, count: u64) -> Vec<JobId> {
    let one = |_| {
        let number = cluster.state().jobs().count() as u64 + 1;
        let mut staging = [0; 16];
        staging[..8].copy_from_slice(&number.to_le_bytes());
        let mut spec = JobSpec::new(workload(), StagingId(staging));
        spec.workload.length = Length::Steps(3_000 + number);
        spec.terms.team = team;
        cluster.submit(spec).expect("a job")
    };
    (0..count).map(one).collect()
}

/// Runs it for so long.
fn run(cluster: &mut Forward<'_>, hours: u64) {
    let until_ms = cluster.now_ms() + hours * HOUR_MS;
    loop {
        while !cluster.look(256).plan.is_empty() {}
        match cluster.next_ms() {
            Some(ms) if ms < until_ms => cluster.go_on(ms),
            _ => break,
        }
    }
    cluster.go_on(until_ms);
}

/// How many of some jobs are over.
fn over(cluster: &Forward<'_>, jobs: &[JobId]) -> usize {
    let is_over = |id: &&JobId| cluster.state().open_job(**id).is_none();
    jobs.iter().filter(is_over).count()
}

/// Four GPUs for a hundred hours are four hundred jobs. The heavier team has come last.
#[test]
fn teams_get_what_their_weights_say() {
    for aim in [Aim::Balanced, Aim::Priority, Aim::Cost] {
        for price in [None, Some(2_000_000)] {
            let mut cluster = cluster(aim, price);
            let light = team(&mut cluster, "light", 1);
            let heavy = team(&mut cluster, "heavy", 3);
            let light = submit(&mut cluster, light, 400);
            let heavy = submit(&mut cluster, heavy, 400);
            run(&mut cluster, 100);
            let (light, heavy) = (over(&cluster, &light), over(&cluster, &heavy));
            assert!(light + heavy >= 396, "{aim}: {light} and {heavy}");
            let part = heavy as f64 / (light + heavy) as f64;
            assert!(
                (part - 0.75).abs() < 0.03,
                "{aim}, {price:?}: {light} and {heavy}"
            );
        }
    }
}

/// Of a whole team with two parts the lighter part and the other team each get their own, whoever came first.
#[test]
fn parts_share_what_their_team_gets() {
    let mut cluster = cluster(Aim::Balanced, Some(1_000_000));
    let whole = team(&mut cluster, "acme", 1);
    let first = team(&mut cluster, "acme/first", 4);
    let second = team(&mut cluster, "acme/second", 1);
    let other = team(&mut cluster, "other", 1);
    let teams = [first, second, other].map(|team| submit(&mut cluster, team, 400));
    run(&mut cluster, 200);
    let [first, second, other] = teams.map(|jobs| over(&cluster, &jobs));
    let all = (first + second + other) as f64;
    assert!(cluster.state().usage(whole, cluster.now_ms()).usd.0 > 0);
    for (got, due) in [(first, 0.4), (second, 0.1), (other, 0.5)] {
        assert!(
            (got as f64 / all - due).abs() < 0.03,
            "{first}, {second} and {other}"
        );
    }
}

/// Who has used the cluster alone for long lets others catch up, but not for ever.
#[test]
fn nobody_waits_for_ever_for_others_to_catch_up() {
    let mut cluster = cluster(Aim::Balanced, None);
    let early = team(&mut cluster, "early", 1);
    submit(&mut cluster, early, 4 * 24 * 30);
    run(&mut cluster, 24 * 30);
    let late = team(&mut cluster, "late", 1);
    let alone = Shares::of(cluster.state(), Aim::Balanced, cluster.now_ms());
    assert_eq!(alone, Shares::default(), "there is nobody else");
    let waits = submit(&mut cluster, early, 8);
    submit(&mut cluster, late, 1);
    let shares = Shares::of(cluster.state(), Aim::Balanced, cluster.now_ms());
    assert_eq!(shares.late_ms(early), HALF_LIFE_MS as i64);
    assert_eq!(shares.late_ms(late), 0);
    // The others never have enough.
    for _ in 0..24 * 10 {
        submit(&mut cluster, late, 8);
        run(&mut cluster, 1);
    }
    assert_eq!(over(&cluster, &waits), 8);
}
