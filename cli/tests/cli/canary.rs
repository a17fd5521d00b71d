//! A random word in every secret and personal field of a submission: after the jobs have ended and the server has stopped,
//! no byte of its folders, of the object store, of what it and its worker logged, or of its metrics holds it.
//!
//! What people call a job, an organisation or a person is no such field: the policy keeps it as long as the job, or the
//! account.

mod moto;
mod search;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use self::moto::Bucket;
use self::search::{Canary, Searched};
use crate::support::{Process, Said, http, program, until};

/// What everything logs: all that this program and the libraries under it have to say.
const LOGGED: &str = "debug,stepcast=trace,stepcast_api=trace,stepcast_cluster=trace,stepcast_worker=trace,hyper=trace,\
                      h2=trace,tonic=trace,tower=trace,rustls=debug,object_store=trace";

/// A server with everything captured that it says.
struct Nest<'a> {
    folder: &'a Path,
    access_token: String,
    environment: Vec<(&'static str, String)>,
    places: Vec<String>,
    address: String,
    metrics: String,
    server: Option<Process>,
}

impl Nest<'_> {
    fn start(&mut self, log: &str) {
        let log = File::create(self.folder.join("logs").join(log)).unwrap();
        let mut arguments: Vec<&str> = vec!["server", "--data", "data", "--listen", "127.0.0.1:0"];
        arguments.extend(["--metrics-listen", "127.0.0.1:0"]);
        arguments.extend(["--access-token-file", "own.token"]);
        arguments.extend(self.places.iter().map(String::as_str));
        let mut server = program(self.folder)
            .args(arguments)
            .env("RUST_LOG", LOGGED)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map(Process)
            .unwrap();
        let lines =
            std::io::BufRead::lines(std::io::BufReader::new(server.0.stdout.take().unwrap()));
        let said: Vec<String> = lines.take(3).map(Result::unwrap).collect();
        self.address = said[0].trim_start_matches("listening on ").to_owned();
        self.metrics = said[2].trim_start_matches("metrics on ").to_owned();
        self.server = Some(server);
        // People and credentials are of the newest format, which a new log reaches in a moment.
        let status = || self.call(&["cluster", "status", "--json"]);
        until(|| {
            let said = status();
            said.code == 0 && said.json()["log_format"].as_u64() >= Some(3)
        });
    }

    /// Asks in HTTP, in the name of the server's own token.
    fn get(&self, path: &str) -> (u16, String) {
        http(&self.address, "GET", path, Some(&self.access_token), None)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let (status, text) = http(
            &self.address,
            "POST",
            path,
            Some(&self.access_token),
            Some(&body),
        );
        assert!((200..300).contains(&status), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A job; nothing where the server says that it is asked too often.
    fn job(&self, id: &str) -> Value {
        let (status, text) = self.get(&format!("/v1/jobs/{id}"));
        if status == 429 {
            return Value::Null;
        }
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    fn call(&self, arguments: &[&str]) -> Said {
        let mut command = program(self.folder);
        command
            .env("STEPCAST_SERVER", &self.address)
            .env("STEPCAST_ACCESS_TOKEN_FILE", "own.token")
            .args(arguments);
        command.output().unwrap().into()
    }

    /// A worker of its own state folder, whose log is captured too.
    fn worker(&self, name: &str, offer: &[&str]) -> Child {
        let token = format!("{name}.token");
        self.call(&["workers", "token", "create", name, "--out", &token])
            .ok();
        let log = File::create(self.folder.join("logs").join(format!("{name}.log"))).unwrap();
        let state = format!("workers/{name}");
        let mut command = program(self.folder);
        command
            .env("STEPCAST_SERVER", &self.address)
            .env("RUST_LOG", LOGGED)
            .args(["worker", "--state", &state, "--join-token-file", &token])
            .args(offer)
            .stdout(Stdio::null())
            .stderr(log);
        command.spawn().unwrap()
    }
}

/// A submission with the canary wherever something secret or personal can stand.
fn submission(canary: &Canary, on: &str, samples: &Path) -> Value {
    let secret = |what: &str| canary.with(what);
    json!({
        "config": {
            "model_family": "flux", "model_flavour": "dev", "model_type": "lora", "lora_type": "standard", "lora_rank": 16,
            "optimizer": "adamw_bf16", "resolution": 1024, "train_batch_size": 4, "mixed_precision": "bf16",
            "base_model_precision": "int8-quanto", "gradient_checkpointing": true, "num_train_epochs": 0,
            "max_train_steps": 40, "checkpoint_step_interval": 20, "validation_resolution": "1024x1024",
            "validation_num_inference_steps": 20, "validation_step_interval": 20, "stepcast_on": on,
            "hub_token": secret("hub"), "--wandb_api_key": secret("wandb"),
            "publishing_config": [{"provider": "s3", "bucket": secret("bucket"), "access_key": secret("access"),
                                   "secret_key": secret("publisher")}],
            "webhook_config": [{"webhook_type": "raw", "callback_url": format!("https://ana:{}@example.org/", canary.word()),
                                "auth_token": secret("webhook")}],
            "validation_prompt": secret("prompt"), "validation_negative_prompt": secret("negative"),
            "output_dir": format!("/home/{}/out", canary.word()), "data_backend_config": secret("loader.json"),
            "hub_model_id": format!("ana/{}", canary.word()), "tracker_project_name": secret("project"),
            "tracker_run_name": secret("run"), "instance_prompt": secret("instance"),
            "resume_from_checkpoint": secret("checkpoint"),
        },
        "dataloader_config": [
            {"id": secret("cats"), "type": "local", "dataset_type": "image", "instance_data_dir": samples,
             "instance_prompt": secret("caption")},
            {"id": "far", "type": "aws", "dataset_type": "text_embeds", "default": true,
             "aws_bucket_name": secret("bucket"), "aws_access_key_id": secret("key-id"),
             "aws_secret_access_key": secret("key"), "aws_endpoint_url": format!("https://{}.example.org", "store")},
        ],
        "prompt_library": {"a": secret("library")},
    })
}

/// A trainer that says all that it knows of its credentials, in the ways in which programs say such things, and its settings.
const TELLTALE: &str = r#"#!/bin/sh
echo "token is $HF_TOKEN and $WANDB_API_KEY"
printf %s "$HF_TOKEN" | base64
printf %s "$STEPCAST_CREDENTIAL_AWS_SECRET_ACCESS_KEY" | od -An -tx1 | tr -d ' \n'; echo
env | grep -c '^STEPCAST_CREDENTIAL_' | sed 's/^/credentials: /'
for file in "$(dirname "$CONFIG_PATH")"/*.json; do cat "$file"; echo; done
echo "error: cannot log in with $STEPCAST_CREDENTIAL_SECRET_KEY" >&2
exit 2
"#;

fn nothing_is_left(
    places: Vec<String>,
    environment: Vec<(&'static str, String)>,
    bucket: Option<&Bucket>,
) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let canary = Canary::new();
    let mut searched = Searched::new(canary.clone());
    for name in ["logs", "workers"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let samples = folder.join("samples").join(canary.word());
    fs::create_dir_all(&samples).unwrap();
    let telltale = folder.join("telltale");
    fs::write(&telltale, TELLTALE).unwrap();
    let access_token = canary.with("own-access-token");
    fs::write(folder.join("own.token"), &access_token).unwrap();
    let mut nest = Nest {
        folder,
        access_token,
        environment,
        places,
        address: String::new(),
        metrics: String::new(),
        server: None,
    };
    nest.start("server-1.log");

    // Somebody with tokens of their own, which are as secret.
    let org = nest.post("/v1/orgs", &json!({"name": "cats"}));
    let user = json!({"org_id": org["id"], "name": "ana", "role": "member"});
    let user = nest.post("/v1/users", &user);
    let made = nest.post("/v1/tokens", &json!({"user_id": user["id"]}));
    let refresh = made["refresh_token"].as_str().unwrap().to_owned();
    let exchange = json!({"refresh_token": refresh, "org_id": "cats"});
    let ticket = nest.post("/v1/auth/cli/token", &exchange);
    searched.look_for(&refresh);
    searched.look_for(ticket["access_token"].as_str().unwrap());

    // One job that succeeds, one whose trainer tells all that it knows and fails.
    let mut replay = Process(nest.worker("pretend", &["--replay", "1", "--replay-speed", "0"]));
    let command = format!("/bin/sh {}", telltale.display());
    let offer = ["--cpu", "--simpletuner-command", &command];
    let mut cpu = Process(nest.worker("real", &offer));
    until(|| {
        let workers = nest.call(&["workers", "--json"]).json();
        let workers = workers["workers"].as_array().unwrap();
        workers.len() == 2 && workers.iter().all(|one| one["attached"] == true)
    });
    let done = nest.post("/v1/jobs", &submission(&canary, "replay", &samples));
    let failed = nest.post("/v1/jobs", &submission(&canary, "cpu", &samples));
    let (done, failed) = (done["id"].as_str().unwrap(), failed["id"].as_str().unwrap());
    nest.call(&["job", "watch", done]).ok();
    nest.call(&["job", "watch", failed]).refused(1);
    let told = nest.job(failed);
    assert_eq!(told["job"]["failure_reason"], "CONFIG_INVALID", "{told}");
    // It had them all, and what it said of them was taken out.
    let mut said = String::new();
    until(|| {
        let (status, text) = nest.get(&format!("/v1/jobs/{failed}/logs"));
        if status == 200 {
            let logs: Value = serde_json::from_str(&text).unwrap();
            said = logs["logs"].as_str().unwrap().to_owned();
        }
        said.contains("credentials: ")
    });
    assert!(
        said.contains("credentials: 6")
            && said.contains("[redacted]")
            && said.contains("validation_prompt")
            && said.contains("[private]")
            && said.contains("[data set 1]"),
        "{said}"
    );
    searched.text("an answer", &said);
    searched.text("an answer", &told.to_string());

    // One that waits while the server is killed: it says so, and does not run without.
    nest.call(&["workers", "drain", "pretend"]).ok();
    let waiting = nest.post("/v1/jobs", &submission(&canary, "replay", &samples));
    let waiting = waiting["id"].as_str().unwrap();
    // While it waits its prompts lie in the staging area, where they are found: the search is worth something.
    if bucket.is_none() {
        let mut now = Searched::new(canary.clone());
        now.folder(&folder.join("data"));
        assert!(now.found_something());
    }
    searched.text("metrics", &http(&nest.metrics, "GET", "", None, None).1);
    drop(nest.server.take());
    nest.start("server-2.log");
    until(|| nest.job(waiting)["job"]["awaits_credentials"] == true);
    let why = nest.get(&format!("/v1/jobs/{waiting}/why")).1;
    assert!(
        why.contains("AWAITING_CREDENTIALS") || why.contains("credentials"),
        "{why}"
    );
    let mut again = submission(&canary, "replay", &samples);
    let again = json!({"config": again["config"].take(), "dataloader_config": again["dataloader_config"].take()});
    let given = nest.post(&format!("/v1/jobs/{waiting}/credentials"), &again);
    assert_eq!(given["job"]["awaits_credentials"], false);
    nest.post(&format!("/v1/jobs/{waiting}/cancel"), &json!({}));
    for path in ["/v1/jobs", "/v1/audit", "/v1/users", "/v1/workers"] {
        searched.text(path, &nest.get(path).1);
    }
    searched.text("metrics", &http(&nest.metrics, "GET", "", None, None).1);

    // The sweep has nothing more to do once the last job's files are gone.
    until(|| {
        bucket.is_none_or(|bucket| {
            bucket
                .names("staging/")
                .iter()
                .all(|name| !name.contains("/s"))
        })
    });
    for worker in [&mut replay, &mut cpu] {
        search::end(&mut worker.0);
    }
    search::end(&mut nest.server.take().unwrap().0);
    searched.folder(&folder.join("data"));
    searched.folder(&folder.join("logs"));
    searched.folder(&folder.join("workers"));
    if let Some(bucket) = bucket {
        for name in bucket.names("") {
            searched.bytes(&name, &bucket.read(&name));
        }
    }
    searched.conclude();
}

#[test]
fn nothing_is_left_in_folders() {
    nothing_is_left(Vec::new(), Vec::new(), None);
}

#[test]
fn nothing_is_left_in_an_object_store() {
    let Some(bucket) = Bucket::start() else {
        return;
    };
    let places = [
        "--store",
        "s3://nest/records",
        "--staging",
        "s3://nest/staging",
    ];
    let places = places.map(str::to_owned).into();
    nothing_is_left(places, bucket.environment(), Some(&bucket));
}
