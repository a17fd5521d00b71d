//! What is taken for a secret, and what is not.

use stepcast_proto::v1;

use super::*;
use crate::submission::Submission;

fn screened(name: &str, text: &str) -> Option<String> {
    let file = v1::JobFile {
        role: v1::FileRole::Config.into(),
        name: name.into(),
        content: text.into(),
    };
    let submission = Submission::read(vec![file]).expect("within bounds");
    let mut found = Vec::new();
    for file in submission.files() {
        find(file, &mut found);
    }
    refuse(&found)
        .err()
        .map(|status| status.message().to_owned())
}

#[test]
fn secrets_are_found_where_they_stand_and_not_repeated() {
    let cases = [
        (
            "config.json",
            r#"{"--hub_token": "canary"}"#,
            "$.--hub_token",
        ),
        (
            "config.json",
            r#"[{"a": {"aws_secret_access_key": "canary"}}]"#,
            "$[0].a.aws_secret_access_key",
        ),
        (
            "config.json",
            r#"{"publishing_config": [{"provider": "s3", "secret_key": "canary"}]}"#,
            "$.publishing_config[0].secret_key",
        ),
        (
            "config.json",
            r#"{"webhook_config": {"auth_token": "canary"}}"#,
            "$.webhook_config.auth_token",
        ),
        (
            "config.json",
            r#"{"note": "hf_canarycanarycanarycanary"}"#,
            "$.note",
        ),
        (
            "config.json",
            r#"{"url": "https://ana:canary@example.org/x"}"#,
            "$.url",
        ),
        (
            "config.json",
            r#"{"publishing_config": "[{\"bucket\": \"b\", \"secret_key\": \"canary\"}]"}"#,
            "$.publishing_config",
        ),
        (
            "config.json",
            r#"{"publishing_config": [{"request_headers": {"X-Mine": "canary"}}]}"#,
            "$.publishing_config[0].request_headers.X-Mine",
        ),
        (
            "config.toml",
            "[a]\nwandb_api_key = \"canary\"",
            "$.a.wandb_api_key",
        ),
        ("config.env", "export A=1\nHF_TOKEN='canary'", "line 2"),
        (
            "config.env",
            "A=1\nUP='curl -H \"Authorization: Bearer canary-1\" https://x'",
            "line 2",
        ),
        (
            "config.json",
            r#"{"hub_token": "canary", "hub_token": ""}"#,
            "$.hub_token",
        ),
        (
            "config.json",
            r#"{"hub_token": "canary"} and more"#,
            "line 1",
        ),
        (
            "config.json",
            "{ broken\n \"hub_token\": \"canary\",",
            "line 2",
        ),
    ];
    for (name, text, place) in cases {
        let message = screened(name, text).unwrap_or_default();
        assert!(
            message.contains(place) && !message.contains("canary"),
            "{text}: {message}"
        );
    }
}

#[test]
fn plain_settings_pass() {
    let plain = r#"{"tokenizer_max_length": 77, "hub_token": "", "token": null, "api_key": "None", "secret": "$HF_TOKEN",
        "caption_dropout_probability": 0.1, "validation_prompt": "a token of love", "url": "https://example.org:80/@x",
        "instance_prompt": "sk-cat", "hub_model_id": "ana/flux"}"#;
    assert_eq!(screened("config.json", plain), None);
    assert_eq!(
        screened("config.env", "TRAINING_STEPS=100\nPROMPT=\"a token: love\""),
        None
    );
}

#[test]
fn a_secret_is_found_however_deep_it_is_nested() {
    let (open, close) = (r#"{"a": ["#.repeat(20), "]}".repeat(20));
    let deep = format!(r#"{open}{{"secret_key": "canary"}}{close}"#);
    let message = screened("config.json", &deep).expect("it is found");
    assert!(message.contains("secret_key"), "{message}");
}
