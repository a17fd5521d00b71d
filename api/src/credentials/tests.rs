//! What is taken out of a submission, what stands in its place, and what is refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use stepcast_proto::v1;

use super::*;

fn submission(files: &[(v1::FileRole, &str, &str)]) -> Submission {
    let file = |(role, name, text): &(v1::FileRole, &str, &str)| v1::JobFile {
        role: (*role).into(),
        name: (*name).to_owned(),
        content: text.as_bytes().to_vec(),
    };
    Submission::read(files.iter().map(file).collect()).unwrap()
}

fn text(submission: &Submission, role: Role) -> String {
    String::from_utf8(submission.file(role).unwrap().content.clone()).unwrap()
}

#[test]
fn secrets_are_taken_out_under_names_of_a_closed_list() {
    let mut sent = submission(&[
        (
            v1::FileRole::Config,
            "config.json",
            r#"{"--hub_token": "canary-1", "model_family": "flux", "learning_rate": 1e-4,
                "of_ana": "hf_canarycanarycanarycanary", "validation_prompt": "a token of love",
                "publishing_config": [{"secretKey": "canary-2"}, {"secret_key": ["canary-3"]}]}"#,
        ),
        (
            v1::FileRole::DataLoader,
            "multidatabackend.json",
            r#"[{"id": "a", "aws_secret_access_key": "canary-4", "url": "s3://ana:canary-5@host/x"},
                {"id": "b", "aws_secret_access_key": "canary-4", "aws_access_key_id": "none"}]"#,
        ),
    ]);
    let taken = take_out(&mut sent).unwrap();
    let names: Vec<String> = taken.names().iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "hub_token",
            "secret",
            "secret_key",
            "secret_key_2",
            "aws_secret_access_key",
            "secret_2"
        ]
    );
    assert_eq!(
        text(&sent, Role::Config),
        "{\"model_family\":\"flux\",\"learning_rate\":0.0001,\
         \"of_ana\":\"{env:STEPCAST_CREDENTIAL_SECRET}\",\"validation_prompt\":\"a token of love\",\
         \"publishing_config\":[{\"secretKey\":\"{env:STEPCAST_CREDENTIAL_SECRET_KEY}\"},\
         {\"secret_key\":[\"{env:STEPCAST_CREDENTIAL_SECRET_KEY_2}\"]}]}"
    );
    let loader = text(&sent, Role::DataLoader);
    assert_eq!(
        loader.matches("_AWS_SECRET_ACCESS_KEY}").count(),
        2,
        "{loader}"
    );
    assert!(!loader.contains("canary"), "{loader}");
    let held = taken.only(&["secret_key_2".parse().unwrap()]).unwrap();
    let values: Vec<String> = held.iter().map(|one| one.value.to_string()).collect();
    assert_eq!(values, ["canary-3"]);
    // The same files give the same again, and nothing is taken twice.
    assert!(take_out(&mut sent).unwrap().is_empty());
}

#[test]
fn toml_is_written_anew_and_stays_toml() {
    let config = "model_family = \"flux\"\nwandb_key = \"canary-1\"\nstarted = 2026-01-01\n[a]\nwandb_api_key = \"canary-2\"\n";
    let mut sent = submission(&[(v1::FileRole::Config, "config.toml", config)]);
    assert_eq!(take_out(&mut sent).unwrap().names().len(), 2);
    let written = text(&sent, Role::Config);
    assert!(written.contains("started = 2026-01-01"), "{written}");
    assert!(!written.contains("wandb_key"), "{written}");
    assert!(
        written.contains("wandb_api_key = \"{env:STEPCAST_CREDENTIAL_WANDB_API_KEY}\""),
        "{written}"
    );
}

#[test]
fn structures_that_are_given_as_texts_stay_texts_without_their_secrets() {
    let config = r#"{"publishing_config": "[{\"bucket\": \"b\", \"secret_key\": \"canary-1\"}]",
        "validation_prompt": "[1, 2]", "post_upload_script": "up.sh --token canary-2"}"#;
    let mut sent = submission(&[(v1::FileRole::Config, "config.json", config)]);
    let names = take_out(&mut sent).unwrap().names();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["secret_key", "secret"]);
    let written: serde_json::Value = serde_json::from_str(&text(&sent, Role::Config)).unwrap();
    assert_eq!(
        written,
        serde_json::json!({
            "publishing_config":
                "[{\"bucket\":\"b\",\"secret_key\":\"{env:STEPCAST_CREDENTIAL_SECRET_KEY}\"}]",
            "validation_prompt": "[1, 2]",
            "post_upload_script": "{env:STEPCAST_CREDENTIAL_SECRET}",
        })
    );
}

#[test]
fn of_a_command_with_a_header_nothing_is_left() {
    for command in [
        "curl -H 'Authorization: Bearer canaryword' https://x/up",
        "curl -u ana:canaryword https://x/up",
        "https://api.telegram.org/bot1:canaryword/send",
    ] {
        let config = serde_json::json!({ "post_upload_script": command }).to_string();
        let mut sent = submission(&[(v1::FileRole::Config, "config.json", &config)]);
        let taken = take_out(&mut sent).unwrap();
        let written = text(&sent, Role::Config);
        assert!(!written.contains("canary"), "{written}");
        let held = taken.only(&["secret".parse().unwrap()]).unwrap();
        let values: Vec<String> = held.iter().map(|one| one.value.to_string()).collect();
        assert_eq!(values, [command]);
    }
}

#[test]
fn receivers_of_webhooks_are_dropped() {
    for (name, config) in [
        (
            "config.json",
            r#"{"--webhook_config": [{"webhook_url": "https://x/canary"}], "seed": 1}"#,
        ),
        (
            "config.toml",
            "seed = 1\n[webhook_config]\nauth_token = \"canary\"\n",
        ),
        (
            "config.json",
            "\u{feff}{\"webhook_config\": [{\"webhook_url\": \"https://x/canary\"}], \"seed\": 1}",
        ),
        (
            "config.json",
            r#"{"config": {"webhook_config": [{"webhook_url": "https://x/canary"}], "seed": 1}}"#,
        ),
    ] {
        let mut sent = submission(&[(v1::FileRole::Config, name, config)]);
        assert!(take_out(&mut sent).unwrap().is_empty());
        let written = text(&sent, Role::Config);
        assert!(written.contains("seed"), "{written}");
        assert!(!written.contains("webhook"), "{written}");
    }
}

#[test]
fn what_cannot_be_taken_out_is_refused_and_not_repeated() {
    let plain = (v1::FileRole::Config, "config.json", "{}");
    for files in [
        vec![(v1::FileRole::Config, "config.env", "HF_TOKEN=canary")],
        vec![(
            v1::FileRole::Config,
            "config.json",
            "{\"hub_token\": \"canary\"} more",
        )],
        vec![
            plain,
            (v1::FileRole::Lycoris, "l.json", r#"{"api_key": "canary"}"#),
        ],
        vec![
            plain,
            (
                v1::FileRole::Prompts,
                "p.json",
                r#"{"a": "hf_canarycanarycanarycanary"}"#,
            ),
        ],
        vec![(
            v1::FileRole::Config,
            "config.json",
            r#"{"hf_canarycanarycanarycanary": "a name"}"#,
        )],
        vec![(
            v1::FileRole::Config,
            "config.json",
            "{\"hub_token\": \"canary\\u0000\"}",
        )],
        vec![(
            v1::FileRole::Config,
            "config.json",
            r#"{"publishing_config": "[{\"secret_key\": \"canary\\n1\"}]"}"#,
        )],
    ] {
        let refused = take_out(&mut submission(&files)).err();
        let refused = refused.unwrap_or_else(|| panic!("{files:?}"));
        assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let mut taken = Taken::default();
    let names: Vec<Label> = ["hub_token", "secret_key"]
        .map(|name| name.parse().unwrap())
        .into();
    taken
        .add("hub_token".to_owned(), "a".to_owned().into())
        .unwrap();
    taken
        .add("hub_token".to_owned(), "b".to_owned().into())
        .unwrap();
    assert!(
        taken
            .add("secret_key".to_owned(), String::new().into())
            .is_err()
    );
    assert_eq!(taken.only(&names).unwrap_err(), names[1..]);
}

#[test]
fn a_number_under_a_secret_s_name_is_taken_out_as_a_text() {
    let config = r#"{"model_family": "flux", "rank": 16, "hub_token": 1, "publishing_config":
        "[{\"secret_key\": 71827364554}]", "password": 0}"#;
    let loader = r#"[{"id": "a", "aws_secret_access_key": 918273645547, "aws_session_token": [-5551234567],
        "aws_access_key_id": false, "repeats": 918273645548}]"#;
    let mut sent = submission(&[
        (v1::FileRole::Config, "config.json", config),
        (v1::FileRole::DataLoader, "multidatabackend.json", loader),
    ]);
    let taken = take_out(&mut sent).unwrap();
    assert_eq!(
        text(&sent, Role::Config),
        "{\"model_family\":\"flux\",\"rank\":16,\"hub_token\":1,\"publishing_config\":\
         \"[{\\\"secret_key\\\":\\\"{env:STEPCAST_CREDENTIAL_SECRET_KEY}\\\"}]\",\"password\":0}"
    );
    assert_eq!(
        text(&sent, Role::DataLoader),
        "[{\"id\":\"a\",\"aws_secret_access_key\":\"{env:STEPCAST_CREDENTIAL_AWS_SECRET_ACCESS_KEY}\",\
         \"aws_session_token\":[\"{env:STEPCAST_CREDENTIAL_AWS_SESSION_TOKEN}\"],\
         \"aws_access_key_id\":false,\"repeats\":918273645548}]"
    );
    let names = taken.names();
    let held = taken.only(&names).unwrap();
    let values: Vec<String> = held.iter().map(|one| one.value.to_string()).collect();
    assert_eq!(values, ["71827364554", "918273645547", "-5551234567"]);
    let toml = "[a]\nsecret_key = 918273645547\nrank = 918273645547\n";
    let mut sent = submission(&[(v1::FileRole::Config, "config.toml", toml)]);
    assert_eq!(take_out(&mut sent).unwrap().names().len(), 1);
    let written = text(&sent, Role::Config);
    assert!(written.contains("rank = 918273645547"), "{written}");
    assert_eq!(written.matches("918273645547").count(), 1, "{written}");
    // Nothing says how this was written.
    let fraction = r#"{"secret_key": 9182736455.47}"#;
    let mut sent = submission(&[(v1::FileRole::Config, "config.json", fraction)]);
    assert!(take_out(&mut sent).is_err());
    let lycoris = r#"{"secret_key": 918273645547}"#;
    let mut sent = submission(&[
        (v1::FileRole::Config, "config.json", r#"{"seed": 1}"#),
        (v1::FileRole::Lycoris, "lycoris.json", lycoris),
    ]);
    assert!(take_out(&mut sent).is_err());
}

/// A configuration with one data set for each id and key, and what it publishes as a text.
fn with_keys(keys: &[(&str, &str)], publisher: &str) -> Submission {
    let set = |(id, key): &(&str, &str)| json!({ "id": id, "aws_secret_access_key": key });
    let loader = Value::Array(keys.iter().map(set).collect());
    let publishers = json!([{ "secret_key": publisher }]).to_string();
    let config = json!({ "seed": 1, "publishing_config": publishers });
    submission(&[
        (v1::FileRole::Config, "config.json", &config.to_string()),
        (v1::FileRole::DataLoader, "loader.json", &loader.to_string()),
    ])
}

/// What the second submission gives a job that was made of the first: each name with its value, or why nothing.
fn given_again(mut first: Submission, mut second: Submission) -> Result<Vec<String>, String> {
    let needed = take_out(&mut first).unwrap().names();
    let taken = take_out(&mut second).unwrap();
    let found = taken.beside(&second, first.files(), &needed);
    let found = found.map_err(|refused| refused.message().to_owned())?;
    let found = found.only(&needed).map_err(|missing| {
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        format!("missing: {}", missing.join(", "))
    })?;
    let told = found
        .iter()
        .map(|one| format!("{}={}", one.name, *one.value));
    Ok(told.collect())
}

#[test]
fn credentials_that_are_given_again_are_taken_by_their_places() {
    let two = || with_keys(&[("a", "key-1"), ("b", "key-2")], "key-3");
    let names = [
        "secret_key",
        "aws_secret_access_key",
        "aws_secret_access_key_2",
    ];
    let are = |values: [&str; 3]| {
        let told = names.iter().zip(values);
        Ok(told
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>())
    };
    for (second, values) in [
        (two(), ["key-3", "key-1", "key-2"]),
        // What was different may be the same today, and so many values have fewer names.
        (
            with_keys(&[("a", "new-1"), ("b", "new-1")], "new-3"),
            ["new-3", "new-1", "new-1"],
        ),
        // A data set is where its id is.
        (
            with_keys(&[("b", "new-2"), ("a", "new-1")], "new-3"),
            ["new-3", "new-1", "new-2"],
        ),
    ] {
        assert_eq!(given_again(two(), second), are(values));
    }
}

#[test]
fn credentials_of_another_configuration_are_refused() {
    let two = || with_keys(&[("a", "key-1"), ("b", "key-2")], "key-3");
    let same = || with_keys(&[("a", "key-1"), ("b", "key-1")], "key-3");
    for (first, second, why) in [
        (
            same(),
            two(),
            "aws_secret_access_key was one credential in several places",
        ),
        (
            two(),
            with_keys(&[("a", "key-1"), ("b", "key-2"), ("c", "key-4")], "key-3"),
            "have none (aws_secret_access_key_3)",
        ),
        (
            two(),
            with_keys(&[("a", "key-1")], "key-3"),
            "missing: aws_secret_access_key_2",
        ),
    ] {
        let refused = given_again(first, second).unwrap_err();
        assert!(
            refused.contains(why) && !refused.contains("key-"),
            "{refused}"
        );
    }
}

#[test]
fn the_token_of_a_service_is_taken_by_its_setting() {
    let config = |token: &str, key: &str| {
        let config = json!({ "--hub_token": token, "publishing_config": [{ "hub_token": key }] });
        submission(&[(v1::FileRole::Config, "config.json", &config.to_string())])
    };
    let told = given_again(config("key-1", "key-2"), config("new-1", "new-1"));
    let both = ["hub_token=new-1", "hub_token_2=new-1"].map(str::to_owned);
    assert_eq!(told, Ok(both.into()));
    let refused = given_again(config("key-1", "key-1"), config("new-1", "new-2")).unwrap_err();
    assert!(
        refused.contains("hub_token was one credential"),
        "{refused}"
    );
}
