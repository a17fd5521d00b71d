//! What each command answers when all is well, for people and for programs.

use serde_json::Value;

use crate::support::{FIGURES, Ring, alone, example, until};

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn an_estimate_has_stable_names() {
    let ring = Ring::start();
    let path = example();
    let answer = ring
        .call(&[
            "estimate",
            path.to_str().unwrap(),
            "--on",
            "rtx4090,h100x2",
            "--json",
        ])
        .json();
    let names = [
        "title",
        "workload",
        "steps_total",
        "validation_passes",
        "validation_prompts",
        "notes",
        "estimates",
        "prices_date",
        "files_missing",
    ];
    assert_eq!(keys(&answer), names);
    assert_eq!(answer["steps_total"], 150);
    assert_eq!(answer["workload"]["recipe"], "flux.dev/lora+ckpt");
    assert_eq!(answer["estimates"].as_array().unwrap().len(), 2);
    let names = [
        "hardware",
        "hardware_title",
        "basis",
        "rows",
        "steps_observed",
        "step_time_s",
        "train_time_s",
        "validation_time_s",
        "run_time_s",
        "setup_time_s",
        "whole_time_s",
        "phases",
        "memory",
        "cost_usd_micros",
        "whole_cost_usd_micros",
        "price_per_hour_usd_micros",
        "dominated",
        "headline",
        "notes",
    ];
    let estimate = &answer["estimates"][0];
    assert_eq!(keys(estimate), names);
    let names = [
        "kind",
        "half_megapixels",
        "count",
        "time_s",
        "basis",
        "rows",
        "observed",
    ];
    let phases = estimate["phases"].as_array().unwrap();
    assert!(
        phases.iter().all(|phase| keys(phase) == names),
        "{phases:?}"
    );
    let steps = phases
        .iter()
        .find(|phase| phase["kind"] == "TRAIN")
        .unwrap();
    assert_eq!(
        (&steps["count"], &steps["time_s"]),
        (&Value::from(150), &estimate["train_time_s"])
    );
    assert_eq!(
        keys(&estimate["memory"]),
        ["need_mib", "gpu_mib", "basis", "fit", "phase"]
    );
}

#[test]
fn imported_prices_count_and_lines_that_are_none_are_named() {
    let ring = Ring::start();
    let offers = "date,provider,gpu,on_demand_usd_per_gpu_hr,spot_usd_per_gpu_hr\n\
                  2026-11-01,one,H100 80GB SXM,2.4,\n2026-11-01,two,H100 80GB SXM,2.600001,\n\
                  2026-11-01,two,H100 80GB SXM,-1,\n";
    let file = ring.file("offers.csv", offers);
    let import = || {
        ring.call(&["prices", "import", &file, "--source", "feed", "--json"])
            .json()
    };
    let first = import();
    assert_eq!(
        (&first["lines"], &first["prices_stored"]),
        (&Value::from(3), &Value::from(1))
    );
    assert_eq!(
        (&first["refused"][0]["line"], &first["refused"][0]["cell"]),
        (&Value::from(4), &Value::from("-1"))
    );
    let again = import();
    assert_eq!(
        (&again["prices_stored"], &again["prices_known"]),
        (&Value::from(0), &Value::from(1))
    );
    // A day before any price is one on which none holds, and no day at all is told to be none.
    let early = ring.call(&["prices", "--on", "1980-01-01"]);
    assert_eq!((early.code, early.stdout.as_str()), (0, ""));
    let said = "No price holds on 1980-01-01: the first one holds from 20";
    assert!(early.stderr.starts_with(said), "{}", early.stderr);
    let early = ring
        .call(&["prices", "--on", "1980-01-01", "--json"])
        .json();
    assert_eq!(early["prices"], Value::Array(Vec::new()));
    let none = ring.call(&["prices", "--on", "1900-01-01"]).refused(1);
    assert!(
        none.contains("date: write a day as 2026-10-01, from 1970 on"),
        "{none}"
    );
    let middle = Value::from(2_500_001);
    let listed = ring
        .call(&["prices", "--on", "2026-11-02", "--json"])
        .json();
    let h100 = listed["prices"].as_array().unwrap();
    let h100 = h100
        .iter()
        .find(|price| price["hardware"] == "h100")
        .unwrap();
    assert_eq!(h100["per_gpu_hour_usd_micros"], middle);
    assert_eq!(h100["source"], "feed: median of 2 list prices");
    let before = ring
        .call(&["prices", "--on", "2026-10-31", "--json"])
        .json();
    let before = before["prices"].as_array().unwrap();
    assert!(
        before
            .iter()
            .all(|price| price["per_gpu_hour_usd_micros"] != middle)
    );
    let path = example();
    let answer = ring.call(&["estimate", path.to_str().unwrap(), "--on", "h100", "--json"]);
    // From its first day on, and this is later.
    assert_eq!(
        answer.json()["estimates"][0]["price_per_hour_usd_micros"],
        middle
    );
}

#[test]
fn a_folder_its_file_and_its_root_are_the_same_configuration() {
    let ring = Ring::start();
    let folder = example();
    let title = |path: &str| {
        ring.call(&["estimate", path, "--on", "rtx4090", "--json"])
            .json()["title"]
            .clone()
    };
    let whole = title(folder.to_str().unwrap());
    assert_eq!(title(folder.join("config.json").to_str().unwrap()), whole);
    for name in ["config.json", "multidatabackend.json"] {
        ring.file(
            &format!("root/config/{name}"),
            &std::fs::read_to_string(folder.join(name)).unwrap(),
        );
    }
    assert_eq!(title("root"), whole);
}

#[test]
fn a_job_is_submitted_once_by_its_request_id() {
    let ring = Ring::start();
    let path = example();
    let submit = || {
        let id = "0123456789abcdef0123456789abcdef";
        ring.call(&[
            "submit",
            path.to_str().unwrap(),
            "--request-id",
            id,
            "--json",
            "--name",
            "cats",
            "--max-cost",
            "5",
        ])
        .json()
    };
    let (first, second) = (submit(), submit());
    assert_eq!(
        keys(&first),
        [
            "dry_run",
            "request_id",
            "job",
            "notes",
            "estimates",
            "files_missing"
        ]
    );
    assert_eq!(first["job"]["job"], second["job"]["job"]);
    assert_eq!(first["job"]["wishes"]["max_cost_usd_micros"], 5_000_000);
    let jobs = ring.call(&["jobs", "--json"]).json();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(jobs["jobs"][0]["wishes"]["display_name"], "cats");
}

#[test]
fn a_dry_run_keeps_nothing() {
    let ring = Ring::start();
    let path = example();
    // What is said to come next is the same command, as a shell takes it.
    let folder = ring.folder.path().join("my cfg");
    std::fs::create_dir(&folder).unwrap();
    for file in ["config.json", "multidatabackend.json"] {
        std::fs::copy(path.join(file), folder.join(file)).unwrap();
    }
    let said = ring.call(&["submit", "my cfg", "--trainer", "replay", "--dry-run"]);
    assert!(
        said.stderr
            .ends_with("Next: stepcast submit 'my cfg' --trainer replay\n"),
        "{}",
        said.stderr
    );
    let said = ring.call(&["submit", path.to_str().unwrap(), "--dry-run"]);
    assert!(
        said.stderr.contains("Nothing was submitted."),
        "{}",
        said.stderr
    );
    assert_eq!(
        ring.call(&["submit", path.to_str().unwrap(), "--dry-run", "--json"])
            .json()["dry_run"],
        true
    );
    assert_eq!(
        ring.call(&["jobs", "--json"]).json()["jobs"],
        Value::Array(Vec::new())
    );
}

#[test]
fn a_waiting_job_is_shown_explained_and_cancelled() {
    let ring = Ring::start();
    let job = ring.submit(&[]);
    assert_eq!(
        ring.call(&["job", "show", &job, "--json"]).json()["state"],
        "PENDING"
    );
    assert_eq!(
        ring.call(&["job", "show", &format!("jobs/{job}"), "--json"])
            .json()["job"],
        job.as_str()
    );
    let why = ring.call(&["job", "why-pending", &job, "--json"]).json();
    assert_eq!(
        keys(&why),
        [
            "job",
            "tier",
            "headline",
            "lines",
            "jobs_ahead",
            "hints",
            "outlook",
            "sooner"
        ]
    );
    let suppose = ["what-if", &job, "--add", "h100", "--json"];
    let would = ring.call(&suppose).json();
    assert_eq!(keys(&would), ["jobs", "left_out"]);
    assert_eq!(
        keys(&would["jobs"][0]),
        ["job", "title", "state", "before", "after"]
    );
    assert!(would["jobs"][0]["before"]["start_time_p50"].is_null());
    assert!(would["jobs"][0]["after"]["start_time_p50"].is_string());
    let eager = ring.call(&["what-if", "--priority", "3"]);
    assert!(
        eager.stderr.contains("name the one job"),
        "{}",
        eager.stderr
    );
    assert_eq!(
        ring.call(&["jobs", "--state", "pending"])
            .ok()
            .lines()
            .count(),
        2
    );
    assert_eq!(
        ring.call(&["job", "logs", &job, "--json"]).json()["lines"],
        Value::Array(Vec::new())
    );
    assert_eq!(
        ring.call(&["job", "cancel", &job, "--json"]).json()["state"],
        "CANCELLED"
    );
    assert_eq!(
        ring.call(&["jobs", "--state", "pending", "--json"]).json()["jobs"],
        Value::Array(Vec::new())
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_statement_runs_in_a_process_whose_end_is_not_the_servers() {
    let ring = Ring::start();
    let one = || ring.call(&["sql", "SELECT 1 AS one", "--csv"]).ok();
    assert_eq!(one(), "one\n1\n");
    let first = ring.sql_processes();
    assert_eq!(first.len(), 1, "{first:?}");
    let process = rustix::process::Pid::from_raw(first[0]).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    until(|| ring.sql_processes().is_empty());
    assert_eq!(one(), "one\n1\n");
    assert_ne!(ring.sql_processes(), first);
    // Who calls it by hand is told what it is.
    let said = ring.call(&["sql-process"]).refused(1);
    assert!(said.contains("stepcast sql"), "{said}");
}

#[test]
fn figures_are_imported_once_and_answer_sql() {
    let ring = Ring::start();
    let file = ring.file("figures.csv", FIGURES);
    let import = || {
        ring.call(&["records", "import", &file, "--source", "measured", "--json"])
            .json()
    };
    assert_eq!(import()["rows_stored"], 2);
    let again = import();
    assert_eq!(
        (&again["rows_stored"], &again["rows_known"]),
        (&Value::from(0), &Value::from(2))
    );
    let sources = ring.call(&["records", "ls", "--json"]).json();
    assert_eq!(sources["sources"][0]["name"], "measured");
    assert_eq!(sources["training_rows"], 2);
    let query = "SELECT hardware, avg_step_ms FROM training_steps ORDER BY avg_step_ms";
    let rows = ring.call(&["sql", query, "--json"]).json();
    assert_eq!(
        rows["rows"][0],
        serde_json::json!({ "hardware": "h100x1", "avg_step_ms": 4200 })
    );
    assert_eq!(
        ring.call(&["sql", query, "--csv"]).ok(),
        "hardware,avg_step_ms\nh100x1,4200\nrtx4090x1,14000\n"
    );
    assert_eq!(
        ring.call(&["sql", query]).ok(),
        "hardware\tavg_step_ms\nh100x1\t4200\nrtx4090x1\t14000\n"
    );
    ring.call(&["sql", query, "--parquet", "answer.parquet"])
        .ok();
    let parquet = std::fs::read(ring.folder.path().join("answer.parquet")).unwrap();
    assert!(parquet.starts_with(b"PAR1"));
    assert_eq!(
        ring.call(&["sql", "\\d", "--json"]).json()["tables"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_worker_s_token_is_made_listed_and_taken_back() {
    let ring = Ring::start();
    let made = ring
        .call(&["workers", "token", "create", "w1", "--json"])
        .json();
    assert!(made["secret"].as_str().unwrap().len() > 20);
    let listed = ring.call(&["workers", "token", "list", "--json"]).json();
    assert_eq!(listed["tokens"][0]["display_name"], "w1");
    assert!(
        !listed
            .to_string()
            .contains(made["secret"].as_str().unwrap())
    );
    ring.call(&["workers", "token", "revoke", "w1"]).ok();
    assert_eq!(
        ring.call(&["workers", "token", "list", "--json"]).json()["tokens"],
        Value::Array(Vec::new())
    );
    assert_eq!(
        ring.call(&["workers", "--json"]).json()["workers"],
        Value::Array(Vec::new())
    );
}

#[test]
fn the_cluster_says_where_it_stands() {
    let ring = Ring::start();
    ring.submit(&[]);
    let status = ring.call(&["cluster", "status", "--json"]).json();
    assert_eq!(
        (
            &status["health"],
            &status["leading"],
            &status["jobs_pending"]
        ),
        (&"SERVING".into(), &true.into(), &1.into())
    );
}

#[test]
fn settings_say_where_they_came_from() {
    let ring = Ring::start();
    ring.file(
        ".config/stepcast/config.toml",
        "ca_file = \"authority.pem\"\n",
    );
    let settings = ring.call(&["config", "show", "--json"]).json();
    let origins: Vec<&str> = settings["settings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|setting| setting["origin"].as_str().unwrap())
        .collect();
    assert_eq!(origins[..2], ["environment STEPCAST_SERVER", "default"]);
    assert!(origins[2].starts_with("file "), "{origins:?}");
    let flag = ring
        .call(&["config", "show", "--json", "--server", "http://a:1"])
        .json();
    assert_eq!(flag["settings"][0]["origin"], "flag");
    ring.file("server.toml", "listen = \"127.0.0.1:9\"\n");
    let server = ring
        .call(&[
            "server",
            "config",
            "show",
            "--json",
            "--config",
            "server.toml",
            "--data",
            "d",
        ])
        .json();
    assert_eq!(server["settings"][0]["origin"], "flag");
    assert_eq!(server["settings"][1]["value"], "127.0.0.1:9");
}

#[test]
fn help_begins_with_an_example_and_ends_with_the_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let help = alone(folder.path(), &["--help"]).ok();
    assert!(help.starts_with("Example: stepcast estimate"), "{help}");
    assert!(help.trim_end().ends_with("130  interrupted"), "{help}");
    for shell in ["bash", "zsh", "fish", "powershell"] {
        assert!(
            alone(folder.path(), &["completions", shell])
                .ok()
                .contains("stepcast")
        );
    }
}
