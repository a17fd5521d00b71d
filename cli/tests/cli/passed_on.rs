//! What a node passes on to the one that leads, for clients that know one address.

use serde_json::Value;

use crate::nodes::Cluster;
use crate::support::{example, http, until};

/// Measured figures of one run.
const FIGURES: &str = "recipe,hardware,resolution_mp,batch_size,gradient_accumulation_steps,precision,quantization,avg_step_ms,\
                       steps_observed\nflux.dev/lora,rtx4090x1,1.0,4,1,bf16,int8,14000,150\n";

/// A client that knows a follower's address alone, as SimpleTuner's does, submits and cancels there, with credentials that
/// only the leader can hold.
pub(crate) fn passes_changes_on(cluster: &Cluster, follower: &str) {
    let read = |name: &str| {
        let text = std::fs::read(example().join(name)).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()
    };
    let mut config = read("config.json");
    config["hub_token"] = "a-token-of-somebody".into();
    let sent =
        serde_json::json!({"config": config, "dataloader_config": read("multidatabackend.json")});
    let mut answer = (0, String::new());
    // The format that credentials need is reached once every node reads it.
    until(|| {
        answer = http(follower, "POST", "/v1/jobs", None, Some(&sent.to_string()));
        answer.0 != 409
    });
    assert_eq!(answer.0, 201, "{}", answer.1);
    let made: Value = serde_json::from_str(&answer.1).unwrap();
    let id = made["id"].as_str().unwrap();
    let shown = cluster.ask(&["job", "show", id, "--json"]);
    assert_eq!(
        (&shown["credentials"][0], &shown["awaits_credentials"]),
        (&"hub_token".into(), &false.into())
    );
    let update = format!("/v1/jobs/{id}/update");
    let change = r#"{"wishes": {"priority": 3}}"#;
    let (status, text) = http(follower, "POST", &update, None, Some(change));
    assert_eq!(status, 200, "{text}");
    let (status, text) = http(follower, "POST", "/v1/nodes/99/remove", None, None);
    assert_eq!(status, 404, "the leader knows who there is: {text}");
    let cancel = format!("/v1/jobs/{id}/cancel");
    let (status, text) = http(follower, "POST", &cancel, None, None);
    assert_eq!(status, 200, "{text}");
    let figures = serde_json::json!({"source": "somebody", "csv": FIGURES}).to_string();
    for (stored, known) in [(1, 0), (0, 1)] {
        let (status, text) = http(follower, "POST", "/v1/records", None, Some(&figures));
        assert_eq!(status, 200, "{text}");
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&told["rows_stored"], &told["rows_known"]),
            (&stored.into(), &known.into())
        );
    }
    let (status, text) = http(follower, "POST", "/v1/jobs", None, Some("{}"));
    assert_eq!(status, 400, "the leader's own refusal: {text}");
}

#[test]
fn a_leader_hands_over_and_passes_on_that_it_is_to_go() {
    let mut cluster = Cluster::of(3);
    // Asked itself, and then by a node that leads after it.
    for by_itself in [true, false] {
        let leader = cluster.leader();
        let status = cluster.ask(&["cluster", "status", "--json"]);
        let voters = status["voters"].as_array().unwrap().iter();
        let mut others = voters.filter_map(Value::as_u64).filter(|id| *id != leader);
        let asked = match by_itself {
            true => leader,
            false => others.next().unwrap(),
        };
        let path = format!("/v1/nodes/{leader}/remove");
        let address = cluster.node(asked).address.clone();
        let (status, text) = http(&address, "POST", &path, None, None);
        assert_eq!(status, 200, "{text}");
        let (code, log) = cluster.ended(leader);
        assert!(code == Some(1) && log.contains("was removed"), "{log}");
        assert_ne!(cluster.leader(), leader);
    }
}
