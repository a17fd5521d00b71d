//! Tests of simulations: lone jobs, every policy to its end, the same again, and files that are wrong.

use super::*;
use crate::forward::Forward;
use crate::policy::{Aim, Policy, Preemption};

const SPEEDS: &str = "gpu,model,batch,scale_factor,steps_per_s
v100,net,8,1,4
p100,net,8,1,2
v100,net,8,2,8
v100,other,,1,3
p100,other,,1,3
";

fn scene(trace: &str) -> Result<Scene, String> {
    let trace = Trace::read(trace).map_err(|error| error.to_string())?;
    let speeds = Speeds::read(SPEEDS).map_err(|error| error.to_string())?;
    let group = |gpu: &str, count| Group {
        gpu: gpu.parse().expect("a GPU"),
        count,
        price_per_hour: Some(stepcast_records::UsdMicros(1_000_000)),
    };
    let cluster = vec![group("v100", 2), group("p100", 2)];
    Scene::new(cluster, trace, &speeds, Noise::default(), 30_000).map_err(|error| error.to_string())
}

fn options(aim: Aim) -> Options {
    Options {
        policy: Policy {
            aim,
            preemption: Preemption::Priced,
            min_run_ms: 0,
            preemptions_max: 24,
            restart_ms: 30_000,
        },
        look_every_ms: 0,
    }
}

fn played(trace: &str, aim: Aim) -> Outcome {
    let scene = scene(trace).expect("a scene");
    let outcome = play(&scene, options(aim), |forward: &mut Forward<'_>| {
        Some(forward.look(usize::MAX))
    });
    outcome.expect("it ends").expect("nobody gives up")
}

const HEAD: &str = "job_id,model,batch,total_steps,arrival_s,scale_factor,weight\n";

#[test]
fn a_lone_job_runs_on_its_fastest_hardware_from_the_start() {
    for aim in [
        Aim::Balanced,
        Aim::ShortestRemaining,
        Aim::Priority,
        Aim::Makespan,
    ] {
        let outcome = played(&format!("{HEAD}1,net,8,4000,10,1,1\n"), aim);
        assert!(
            (outcome.completion_s[0] - 1_000.0).abs() < 0.1,
            "{aim}: {outcome:?}"
        );
        assert_eq!(outcome.wait_s[0], 0.0);
        assert!((outcome.makespan_bound_s - 1_000.0).abs() < 0.1);
    }
}

#[test]
fn every_policy_ends_every_job_and_none_beats_the_bound() {
    let mut trace = HEAD.to_owned();
    for job in 0..40 {
        let (model, batch) = if job % 3 == 0 {
            ("other", "")
        } else {
            ("net", "8")
        };
        let width = if job % 7 == 1 && model == "net" { 2 } else { 1 };
        let steps = 500 + 977 * (job * job % 11);
        trace += &format!("{job},{model},{batch},{steps},{},{width},1\n", job * 37);
    }
    for aim in Aim::ALL {
        let outcome = played(&trace, aim);
        assert!(outcome.completion_s.iter().all(|s| s.is_finite()), "{aim}");
        assert!(
            outcome.makespan_s >= outcome.makespan_bound_s * 0.999,
            "{aim}"
        );
        assert!(outcome.utilisation <= 1.0, "{aim}");
    }
}

/// Forty days where it is fastest: in a cluster the last of them would be given up before its turn, and the first forgotten
/// before the last one ends.
#[test]
fn what_waits_for_months_is_played_to_its_end() {
    let mut trace = HEAD.to_owned();
    for job in 0..14 {
        trace += &format!("{job},net,8,13824000,{job},1,1\n");
    }
    for aim in [Aim::Fifo, Aim::Balanced] {
        let outcome = played(&trace, aim);
        assert!(outcome.completion_s.iter().all(|s| s.is_finite()), "{aim}");
        assert!(outcome.makespan_s > 150.0 * 86_400.0, "{aim}");
        assert!(
            outcome.makespan_s >= outcome.makespan_bound_s * 0.999,
            "{aim}"
        );
        assert!(outcome.gpu_hours >= 14.0 * 40.0 * 24.0, "{aim}");
    }
}

#[test]
fn a_cluster_that_is_too_large_is_not_taken_for_a_job() {
    let trace = Trace::read(&format!("{HEAD}1,net,8,10,0,1,1\n")).expect("a trace");
    let speeds = Speeds::read(SPEEDS).expect("speeds");
    let group = |gpu: &str, count| Group {
        gpu: gpu.parse().expect("a GPU"),
        count,
        price_per_hour: None,
    };
    let cluster = vec![group("v100", 320_000), group("p100", 16)];
    let scene = Scene::new(cluster, trace, &speeds, Noise::default(), 0).expect("a scene");
    let stopped = play(&scene, options(Aim::Balanced), |_| None).expect_err("too large");
    let said = stopped.to_string();
    assert!(said.starts_with("the cluster is refused: "), "{said}");
}

#[test]
fn the_same_simulation_comes_out_the_same() {
    let trace = format!("{HEAD}1,net,8,4000,10,1,1\n2,net,8,900,11,2,1\n3,other,,5000,0,1,1\n");
    assert_eq!(played(&trace, Aim::Balanced), played(&trace, Aim::Balanced));
}

#[test]
fn bad_rows_are_named_with_what_to_do() {
    let wrong = |rows: &str| scene(&format!("{HEAD}{rows}")).expect_err("a bad trace");
    assert_eq!(
        wrong("1,net,8,10,0,3,1\n"),
        "line 2: a job runs on 1, 2, 4 or 8 GPUs, not on 3"
    );
    assert_eq!(
        wrong("1,net,8,10,0,1,1\n2,net,8,-5,0,1,1\n"),
        "line 3: total_steps is a number from 0 on, not -5"
    );
    assert_eq!(
        wrong("1,net,8,10,0,1,5\n"),
        "line 2: weight is 1, not 5: every job counts once here, and does if the column is left out"
    );
    assert_eq!(
        wrong("1,net,8,10,0,1,much\n"),
        "line 2: weight is 1, not \"much\""
    );
    assert_eq!(
        wrong("1,net,8,10,1e17,1,1\n"),
        "line 2: arrival_s is at most 3153600000, a hundred years, not 100000000000000000"
    );
    assert_eq!(
        wrong("1,net,8,10,-1,1,1\n"),
        "line 2: arrival_s is a number from 0 on, not -1"
    );
    assert_eq!(
        wrong("1,net,8,1e20,0,1,1\n"),
        "job 1 takes more than a hundred years wherever it runs"
    );
    assert_eq!(
        wrong("x1,net,8,10,0,1,1\n"),
        "line 2: job_id is a whole number, not \"x1\""
    );
    assert_eq!(
        wrong("1,,8,10,0,1,1\n"),
        "line 2: model is empty: name what is trained"
    );
    assert_eq!(
        wrong("1,net,8,10,0,8,1\n"),
        "job 1: no speed is known of net with batch \"8\" on 8 GPUs"
    );
    assert_eq!(
        wrong("1,net,8,ten,0,1,1\n"),
        "line 2: total_steps is a number, not \"ten\""
    );
    assert_eq!(
        wrong("1,net,8,10,0,1,1\n1,net,8,10,0,1,1\n"),
        "line 3: job_id 1 was there before: give every job its own"
    );
    assert_eq!(
        wrong("1,net,8,10,0,1\n"),
        "line 2: 6 columns where the first line has 7: values hold no commas"
    );
    assert_eq!(wrong(""), "line 1: there is no job in the trace");
    assert_eq!(
        wrong("1,net,16,10,0,1,1\n"),
        "job 1: no speed is known of net with batch \"16\" on 1 GPUs"
    );
    let head = scene("job_id,model\n1,net\n").expect_err("no columns");
    assert!(
        head.starts_with("line 1: the first line names the columns, and these are missing: batch")
    );
    assert_eq!(
        scene(&format!("{HEAD}1,net,8,inf,0,1,1\n")).expect_err("no number"),
        "line 2: total_steps is a number from 0 on, not inf"
    );
}

#[test]
fn bad_speeds_are_named_with_what_to_do() {
    let head = "gpu,model,batch,scale_factor,steps_per_s\n";
    let wrong = |text: &str| Speeds::read(text).expect_err("bad speeds").to_string();
    assert_eq!(wrong(head), "line 1: there is no speed in the file");
    assert_eq!(
        wrong(&format!("{head}h1000,net,8,1,4\n")),
        "line 2: there is no GPU called h1000"
    );
    assert_eq!(
        wrong(&format!("{head}v100,net,8,1,4\nv100,net,8,1,-4\n")),
        "line 3: steps_per_s is a number from 0 on, not -4"
    );
    assert_eq!(
        wrong(&format!("{head}v100,net,8,many,4\n")),
        "line 2: scale_factor is 1, 2, 4 or 8, not \"many\""
    );
    assert_eq!(
        wrong("gpu,model\nv100,net\n"),
        "line 1: the first line names the columns, and these are missing: batch, scale_factor, steps_per_s"
    );
}
