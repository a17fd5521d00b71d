//! What people and operators do over HTTP and JSON alone: jobs changed and approved, sweeps, teams and the policy, workers
//! let in and drained, figures brought in, nodes looked after.

use serde_json::{Value, json};

use crate::access::{Town, post};
use crate::http::{ask, submission};
use crate::scheduling::raised;
use crate::support::{Agent, Server};

async fn get(port: u16, by: Option<&str>, path: &str) -> (u16, Value) {
    let answer = ask(port, "GET", path, by, None).await;
    (answer.status, answer.json())
}

/// A request that is taken; the answer.
async fn done(port: u16, by: Option<&str>, path: &str, sent: Value) -> Value {
    let (status, answer) = post(port, by, path, sent).await;
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    answer
}

/// A request that is not; its status and its code.
async fn refused(port: u16, by: Option<&str>, path: &str, sent: Value) -> (u16, String) {
    let (status, answer) = post(port, by, path, sent).await;
    assert!(status >= 400, "{path}: {status} {answer}");
    (status, answer["code"].as_str().unwrap().to_owned())
}

/// The status of a refusal and its code.
fn of(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_job_asks_for_something_else() {
    let town = Town::build().await;
    let port = town.server.port;
    let by = |role| Some(&*town.person(1, role).ticket);
    let mut sent = submission();
    // What stands beside the configuration counts over what stands in it.
    sent["config"]["--stepcast_priority"] = 1.into();
    sent["config"]["--stepcast_gpus"] = 2.into();
    sent["wishes"] = json!({"priority": 3, "max_cost_usd_micros": 5_000_000});
    let job = done(port, by('m'), "/v1/jobs", sent.clone()).await;
    let wishes = &job["job"]["wishes"];
    assert_eq!(
        [&wishes["priority"], &wishes["gpu_count"], &wishes["allow"]],
        [&json!(3), &json!(2), &json!(["replay"])]
    );
    assert_eq!(wishes["max_runtime_ms"], 240 * 60_000);
    sent["wishes"] = json!({"max_cost": 5});
    let unknown = refused(port, by('m'), "/v1/jobs", sent).await;
    assert_eq!(unknown, of(400, "INVALID_FIELD"));

    let update = format!("/v1/jobs/{}/update", job["id"].as_str().unwrap());
    let change = json!({"wishes": {"priority": 7, "max_cost_usd_micros": null},
                        "etag": job["job"]["etag"], "request_id": "a".repeat(32)});
    let changed = done(port, by('m'), &update, change.clone()).await;
    let wishes = &changed["job"]["wishes"];
    assert_eq!(
        [
            &wishes["priority"],
            &wishes["max_cost_usd_micros"],
            &wishes["gpu_count"]
        ],
        [&json!(7), &Value::Null, &json!(2)]
    );
    // The same request has the same answer, and another one by what was seen before is refused.
    let mut same = change.clone();
    same["wishes"] = json!({"max_cost_usd_micros": null, "priority": 7});
    let again = done(port, by('m'), &update, same).await;
    assert_eq!(again["job"]["etag"], changed["job"]["etag"]);
    let stale = json!({"wishes": {"priority": 1}, "etag": change["etag"]});
    for (role, sent, status, code) in [
        ('m', stale, 409, "CHANGED"),
        ('m', json!({"wishes": {}}), 400, "INVALID_FIELD"),
        ('m', json!({"wishes": {"priorty": 1}}), 400, "INVALID_FIELD"),
        (
            'm',
            json!({"wishes": {"priority": 1}, "etags": ""}),
            400,
            "INVALID_FIELD",
        ),
        (
            'm',
            json!({"wishes": {"priority": 11}}),
            400,
            "INVALID_FIELD",
        ),
        (
            'm',
            json!({"wishes": {"team": "nowhere"}}),
            404,
            "NO_SUCH_TEAM",
        ),
        ('v', json!({"wishes": {"priority": 1}}), 403, "FORBIDDEN"),
    ] {
        let told = refused(port, by(role), &update, sent.clone()).await;
        assert_eq!(told, of(status, code), "{role} {sent}");
    }
    let elsewhere = Some(&*town.person(2, 'o').ticket);
    let sent = json!({"wishes": {"priority": 1}});
    assert_eq!(
        refused(port, elsewhere, &update, sent.clone()).await,
        of(404, "NO_SUCH_JOB")
    );
    // Who misspells a member is told what there is.
    let wrong = json!({"wishes": {"priorty": 1}});
    let told = post(port, by('m'), &update, wrong).await.1;
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains("`priority`"), "{detail}");
    done(
        port,
        by('m'),
        &update.replace("update", "cancel"),
        json!({}),
    )
    .await;
    assert_eq!(
        refused(port, by('m'), &update, sent).await,
        of(409, "NOT_WAITING")
    );
    town.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_has_limits_and_what_is_dear_is_approved() {
    let server = raised().await;
    let port = server.port;
    let mut worker = server.worker("h", &["h100"]).await;
    let rules = json!({"name": "acme/vision", "weight": 2, "gpu_quota": 4, "budget_usd_micros": 900_000_000,
                       "budget_period": "month", "approve_above_usd_micros": 1});
    let orphan = refused(port, None, "/v1/teams", rules.clone()).await;
    assert_eq!(orphan, of(404, "NO_SUCH_TEAM"));
    done(port, None, "/v1/teams", json!({"name": "acme"})).await;
    let made = done(port, None, "/v1/teams", rules.clone()).await;
    assert_eq!(
        [
            &made["name"],
            &made["weight"],
            &made["budget_period"],
            &made["members"]
        ],
        [
            &json!("acme/vision"),
            &json!(2),
            &json!("MONTH"),
            &json!([])
        ]
    );
    for wrong in [
        json!({"name": "acme", "weight": 0}),
        json!({"name": "acme", "budget_period": "week"}),
        json!({"name": "acme", "budget": 5}),
    ] {
        let told = refused(port, None, "/v1/teams", wrong.clone()).await;
        assert_eq!(told, of(400, "INVALID_FIELD"), "{wrong}");
    }
    let mut sent = submission();
    sent["wishes"] = json!({"allow": ["h100"], "team": "acme/vision"});
    let job = done(port, None, "/v1/jobs", sent).await;
    let job = job["id"].as_str().unwrap().to_owned();
    for (query, is_said) in [("", false), ("?outlook=true", true)] {
        let shown = get(port, None, &format!("/v1/jobs/{job}{query}")).await.1;
        let listed = get(port, None, &format!("/v1/jobs{query}")).await.1;
        for job in [&shown["job"], &listed["items"][0]] {
            assert_eq!(job["outlook"].is_object(), is_said, "{query}: {job}");
        }
    }
    let why = get(port, None, &format!("/v1/jobs/{job}/why")).await.1;
    let headline = why["headline"].as_str().unwrap();
    assert!(headline.contains("must be approved"), "{why}");
    let approve = format!("/v1/jobs/{job}/approve");
    let approved = done(port, None, &approve, json!({})).await;
    assert_eq!(approved["job"]["wishes"]["team"], "acme/vision");
    assert!(approved["job"]["approved_at"].is_string(), "{approved}");
    assert_eq!(worker.assigned().await.job, format!("jobs/{job}"));

    let listed = get(port, None, "/v1/teams").await.1;
    let vision = &listed["items"][2];
    assert_eq!(
        (&vision["name"], &vision["use"]["gpus"]),
        (&json!("acme/vision"), &json!(1))
    );
    let remove = "/v1/teams/acme%2Fvision/remove";
    assert_eq!(
        refused(port, None, remove, json!({})).await,
        of(409, "TEAM_IN_USE")
    );
    let members = "/v1/teams/acme%2Fvision/members";
    for (sent, status, code) in [
        (json!({}), 400, "INVALID_FIELD"),
        (json!({"members": ["orgs/zzzz"]}), 404, "NO_SUCH_ORG"),
        (json!({"members": ["jobs/x"]}), 400, "INVALID_FIELD"),
    ] {
        let told = refused(port, None, members, sent.clone()).await;
        assert_eq!(told, of(status, code), "{sent}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_is_for_its_members_and_the_policy_is_the_operators() {
    let town = Town::build().await;
    let port = town.server.port;
    let operator = Some(&*town.person(0, 'O').ticket);
    let by = |org, role| Some(&*town.person(org, role).ticket);
    let team = json!({"name": "acme"});
    for path in ["/v1/teams", "/v1/policy"] {
        let told = refused(port, by(1, 'o'), path, team.clone()).await;
        assert_eq!(told, of(403, "FORBIDDEN"), "{path}");
    }
    done(port, operator, "/v1/teams", team).await;
    let only = json!({"members": [format!("orgs/{}", town.orgs[0])]});
    let set = done(port, operator, "/v1/teams/acme/members", only.clone()).await;
    assert_eq!(set["members"], only["members"]);
    let seen = async |by| {
        let listed = get(port, by, "/v1/teams").await.1;
        let items = listed["items"].as_array().unwrap().clone();
        let names = items
            .iter()
            .map(|team| (team["name"].clone(), team["use"].is_null()));
        names.collect::<Vec<_>>()
    };
    let (default, acme) = (json!("default"), json!("acme"));
    let own = seen(by(1, 'v')).await;
    assert_eq!(own, [(default.clone(), true), (acme, false)]);
    assert_eq!(seen(by(2, 'v')).await, [(default, true)]);

    let policy = json!({"aim": "fifo", "min_run_ms": 90_000});
    let set = done(port, operator, "/v1/policy", policy).await;
    assert_eq!(
        [&set["aim"], &set["preemption"], &set["min_run_ms"]],
        [&json!("fifo"), &json!("for-priority"), &json!(90_000)]
    );
    assert_eq!(get(port, operator, "/v1/policy").await, (200, set));
    for wrong in [json!({"aim": "quickest"}), json!({"aims": "fifo"})] {
        let told = refused(port, operator, "/v1/policy", wrong).await;
        assert_eq!(told, of(400, "INVALID_FIELD"));
    }
    done(port, operator, "/v1/teams/acme/remove", json!({})).await;
    // Each of it is written down.
    let trail = get(port, operator, "/v1/audit").await.1;
    let entries = trail["items"].as_array().unwrap();
    let rules = entries.iter().filter(|one| one["action"] == "CHANGE_RULES");
    assert_eq!(rules.count(), 4, "{trail}");
    town.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_is_submitted_looked_at_and_cancelled() {
    let town = Town::build().await;
    let port = town.server.port;
    let by = |org, role| Some(&*town.person(org, role).ticket);
    let rate = |rate: u32| json!({"config": {"--learning_rate": rate}});
    let mut sweep = submission();
    sweep["tasks"] = json!([rate(1), rate(2), rate(3)]);
    sweep["parallel"] = 2.into();
    sweep["request_id"] = "b".repeat(32).into();
    let made = done(port, by(1, 'm'), "/v1/sweeps", sweep.clone()).await;
    let jobs = made["jobs"].as_array().unwrap();
    assert_eq!((jobs.len(), &made["id"]), (3, &jobs[0]));
    let again = done(port, by(1, 'm'), "/v1/sweeps", sweep.clone()).await;
    assert_eq!(again["jobs"], made["jobs"]);
    let id = made["id"].as_str().unwrap();
    let last = jobs[2].as_str().unwrap();
    let job = get(port, by(1, 'v'), &format!("/v1/jobs/{last}")).await.1;
    let part = json!({"id": id, "index": 2, "tasks": 3, "parallel": 2});
    assert_eq!(job["job"]["sweep"], part);

    let shown = get(port, by(1, 'v'), &format!("/v1/sweeps/{last}")).await.1;
    assert_eq!(
        [
            &shown["sweep"]["id"],
            &shown["sweep"]["unfinished"],
            &shown["sweep"]["running"]
        ],
        [&made["id"], &json!(3), &json!(0)]
    );
    let waits = json!({"id": last, "state": "PENDING"});
    assert_eq!(shown["jobs"][2], waits, "{shown}");
    // A second one comes before it.
    sweep["request_id"] = "c".repeat(32).into();
    let second = done(port, by(1, 'm'), "/v1/sweeps", sweep.clone()).await;
    let page = get(port, by(1, 'v'), "/v1/sweeps?page_size=1").await.1;
    assert_eq!(page["items"][0]["id"], second["id"]);
    let token = page["next_page_token"].as_str().unwrap();
    let next = format!("/v1/sweeps?page_size=1&page_token={token}");
    let next = get(port, by(1, 'v'), &next).await.1;
    assert_eq!(
        (&next["items"][0], &next["next_page_token"]),
        (&shown["sweep"], &json!(""))
    );
    let foreign = get(port, by(2, 'o'), "/v1/sweeps").await.1;
    assert_eq!(foreign["items"], json!([]));
    let foreign = get(port, by(2, 'o'), &format!("/v1/sweeps/{id}")).await;
    assert_eq!(
        (foreign.0, &foreign.1["code"]),
        (404, &json!("NO_SUCH_JOB"))
    );

    let cancel = format!("/v1/sweeps/{last}/cancel");
    let told = refused(port, by(2, 'o'), &cancel, json!({})).await;
    assert_eq!(told, of(404, "NO_SUCH_JOB"));
    let cancelled = done(port, by(1, 'm'), &cancel, json!({})).await;
    assert_eq!(cancelled, json!({"id": id, "cancelled_jobs": 3}));
    let shown = get(port, by(1, 'v'), &format!("/v1/sweeps/{id}")).await.1;
    assert_eq!(
        (&shown["sweep"]["unfinished"], &shown["jobs"][0]["state"]),
        (&json!(0), &json!("CANCELLED"))
    );
    let alone = done(port, by(1, 'm'), "/v1/jobs", submission()).await;
    let alone = format!("/v1/sweeps/{}/cancel", alone["id"].as_str().unwrap());
    let told = refused(port, by(1, 'm'), &alone, json!({})).await;
    assert_eq!(told, of(409, "NO_ARRAY"));
    town.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_that_is_wrong_leaves_nothing() {
    let server = raised().await;
    let port = server.port;
    let with = |member: &str, value: Value| {
        let mut sweep = submission();
        sweep["tasks"] = json!([{"config": {"seed": 1}}, {"config": {"seed": 2}}]);
        sweep[member] = value;
        sweep
    };
    for wrong in [
        with("tasks", json!([])),
        with(
            "tasks",
            json!([{"config": {"seed": 1}}, {"config": {"seed": 1}}]),
        ),
        with(
            "tasks",
            json!([{"config": {"max_train_steps": 9}}, {"config": {}}]),
        ),
        with("tasks", json!([{"config": {"stepcast_gpus": 2}}])),
        with("tasks", json!([{"configs": {}}])),
        with("tasks", json!(vec![json!({"config": {}}); 1_001])),
        with("paralel", 1.into()),
        with("wishes", json!({"gpus": 2})),
    ] {
        let told = post(port, None, "/v1/sweeps", wrong).await;
        assert_eq!(told.0, 400, "{}", told.1);
    }
    assert_eq!(server.staged().len(), 0);
    let checked = with("validate_only", true.into());
    let checked = done(port, None, "/v1/sweeps", checked).await;
    assert_eq!((&checked["id"], &checked["jobs"]), (&json!(""), &json!([])));
    assert!(!checked["estimates"].as_array().unwrap().is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_let_in_drained_and_shut_out() {
    let server = raised().await;
    let port = server.port;
    let name = json!({"name": "gpu-1"});
    let made = done(port, None, "/v1/worker-tokens", name.clone()).await;
    let told = refused(port, None, "/v1/worker-tokens", name).await;
    assert_eq!(told.0, 409, "{told:?}");
    let wrong = refused(port, None, "/v1/worker-tokens", json!({"names": ""})).await;
    assert_eq!(wrong, of(400, "INVALID_FIELD"));
    let agent = Agent::new(&server, made["secret"].as_str().unwrap().to_owned());
    let worker = agent.register('a', &["replay"]).await.unwrap().worker;
    let mut attached = agent.attach(worker.clone(), 'a').await.unwrap();
    let id = worker.trim_start_matches("workers/");
    let tokens = get(port, None, "/v1/worker-tokens").await.1;
    let token = &tokens["items"][0];
    assert_eq!(
        (&token["id"], &token["worker_id"], &token["name"]),
        (&made["token"]["id"], &json!(id), &json!("gpu-1"))
    );
    assert!(tokens.to_string().find("secret").is_none(), "{tokens}");

    let job = done(port, None, "/v1/jobs", submission()).await;
    assert_eq!(
        attached.assigned().await.job,
        format!("jobs/{}", job["id"].as_str().unwrap())
    );
    let workers = get(port, None, "/v1/workers").await.1;
    assert_eq!(workers["items"][0]["gpus"][0]["job"], job["id"]);
    let drain = format!("/v1/workers/{id}/drain?stop_running=true");
    done(port, None, &drain, json!({})).await;
    let workers = get(port, None, "/v1/workers").await.1;
    assert_eq!(workers["items"][0]["state"], "DRAINING");
    let stops = server.handle.read_stale(|state| {
        let mut workers = state.workers();
        workers.any(|worker| worker.drain.is_some_and(|drain| drain.stop_running))
    });
    assert!(stops);

    let revoke = made["token"]["id"].as_str().unwrap();
    let revoke = format!("/v1/worker-tokens/{revoke}/revoke");
    done(port, None, &revoke, json!({})).await;
    let workers = get(port, None, "/v1/workers").await.1;
    assert_eq!(workers["items"][0]["state"], "REVOKED");
    let gone = refused(port, None, "/v1/worker-tokens/kzzzz/revoke", json!({})).await;
    assert_eq!(gone, of(404, "NO_SUCH_TOKEN"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_are_brought_in() {
    let server = Server::start().await;
    let port = server.port;
    let csv = "recipe,hardware,resolution_mp,batch_size,gradient_accumulation_steps,precision,quantization,avg_step_ms,\
               steps_observed\nflux.dev/lora,rtx4090x1,1.0,4,1,bf16,int8,14000,150\nnobody/knows,rtx4090x1,1.0,4,1,bf16,\
               int8,14000,150\n";
    let file = json!({"source": "test", "csv": csv});
    let imported = done(port, None, "/v1/records", file.clone()).await;
    assert_eq!(
        [&imported["lines"], &imported["rows_stored"]],
        [&json!(2), &json!(1)]
    );
    assert_eq!(imported["refused"][0]["first_line"], 3);
    let again = done(port, None, "/v1/records", file).await;
    assert_eq!(again["rows_known"], 1);
    let listed = get(port, None, "/v1/records").await.1;
    assert_eq!(
        (&listed["items"][0]["name"], &listed["training_rows"]),
        (&json!("test"), &json!(1))
    );
    let status = get(port, None, "/v1/records/status").await.1;
    let table = &status["tables"][0];
    assert_eq!(
        (&table["rows"], &table["aside"], &status["tidying"]["done"]),
        (&json!(1), &json!([]), &json!(0)),
        "{status}"
    );
    // Larger than any other body, and still a file of figures.
    let large = format!("{csv}{}", "\n".repeat(4 << 20));
    let sent = json!({"source": "large", "csv": large});
    done(port, None, "/v1/records", sent).await;
    let too_large = json!({"source": "large", "csv": "a".repeat(17 << 20)});
    let told = refused(port, None, "/v1/records", too_large).await;
    assert_eq!(told, of(400, "INVALID_FIELD"));
    let too_large = json!({"source": "large", "csv": "a".repeat(19 << 20)});
    let told = refused(port, None, "/v1/records", too_large).await;
    assert_eq!(told, of(413, "BODY_TOO_LARGE"));
    let wrong = json!({"source": "x", "csv": csv, "mappings": ""});
    let told = refused(port, None, "/v1/records", wrong).await;
    assert_eq!(told, of(400, "INVALID_FIELD"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_are_shown_and_what_is_none_is_not_found() {
    let town = Town::build().await;
    let port = town.server.port;
    let operator = Some(&*town.person(0, 'O').ticket);
    let status = get(port, operator, "/v1/cluster").await.1;
    assert_eq!(
        [
            &status["health"],
            &status["leading"],
            &status["nodes"][0]["role"]
        ],
        [&json!("SERVING"), &json!(true), &json!("VOTER")]
    );
    let own = status["node_id"].as_u64().unwrap();
    let own_removal = format!("/v1/nodes/{own}/remove");
    for (path, sent, status, code) in [
        ("/v1/nodes/99/remove", json!({}), 404, "NO_SUCH_NODE"),
        ("/v1/nodes/zz/remove", json!({}), 404, "NO_SUCH_NODE"),
        ("/v1/nodes/0/remove", json!({}), 400, "INVALID_FIELD"),
        (&own_removal, json!({}), 409, "LAST_VOTER"),
        (
            "/v1/leadership",
            json!({"node_id": 99}),
            404,
            "NO_SUCH_NODE",
        ),
        ("/v1/leadership", json!({"node": 1}), 400, "INVALID_FIELD"),
        ("/v1/join-tokens", json!({}), 409, "NO_PEER_ADDRESS"),
        (
            "/v1/join-tokens",
            json!({"valid_seconds": 1_000_000}),
            400,
            "INVALID_FIELD",
        ),
    ] {
        let told = refused(port, operator, path, sent).await;
        assert_eq!(told, of(status, code), "{path}");
    }
    let stays = done(port, operator, "/v1/leadership", json!({"node_id": own})).await;
    assert_eq!(stays["leader_id"], own);
    let owner = Some(&*town.person(1, 'o').ticket);
    for path in "nodes/1/remove leadership join-tokens cluster/rotate".split(' ') {
        let path = &format!("/v1/{path}");
        let told = refused(port, owner, path, json!({})).await;
        assert_eq!(told, of(403, "FORBIDDEN"), "{path}");
    }
    assert_eq!(get(port, owner, "/v1/cluster").await.0, 403);
    town.server.stop().await;
}
