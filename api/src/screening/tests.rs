//! What is taken for a secret, and what is not.

use stepcast_proto::v1;

use super::text::SECRET_SHAPES;
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
fn every_name_of_a_secret_is_found() {
    for (letters, name) in SECRET_NAMES {
        assert_eq!(secret_name(name), Some(name));
        assert_eq!(secret_name(&letters.to_ascii_uppercase()), Some(name));
    }
    for (key, name) in [
        ("X-SimpleTuner-Secret", "secret"),
        ("X-API-Key", "api_key"),
        ("webshart_hf_token", "token"),
        ("myHfToken", "token"),
        ("gcs_private-key_pem", "private_key"),
    ] {
        assert_eq!(secret_name(key), Some(name), "{key}");
    }
    for key in [
        "tokenizer_max_length",
        "max_tokens",
        "detoken",
        "primary_key",
        "ekey",
    ] {
        assert_eq!(secret_name(key), None, "{key}");
    }
    assert_eq!(secret_name("seed"), None);
    assert_eq!(secret_name(""), None);
}

#[test]
fn every_shape_of_a_secret_is_found() {
    for (prefix, letters) in SECRET_SHAPES {
        let long = format!(" {prefix}{} ", "a".repeat(letters));
        assert!(is_secret(&long), "{long}");
        let short = format!("{prefix}{}", "a".repeat(letters - 1));
        assert!(!is_secret(&short), "{short}");
    }
    assert!(is_secret("-----BEGIN RSA PRIVATE KEY-----\nMII"));
    assert!(is_secret("://:c@"));
    for secret in [
        "/x/up.sh --token hf_canarycanarycanarycanary",
        "up --api-key 'canary-1234' now",
        "--token=canary-1234",
        "AWS_SECRET_ACCESS_KEY=canary-1234 aws s3 cp",
        "https://a.example.org/?sv=1&sig=canary-1234",
        "https://b.s3/x?X-Amz-Signature=canary-1234",
        "https://x/?token=canary-1234",
        "https://canary-1234@example.org/x",
        "two: http://example.org and s3://ana:canary@host",
        "[{'secret_key': 'canary-1234'}]",
    ] {
        assert!(is_secret(secret), "{secret}");
    }
    for plain in [
        "",
        " ",
        "h",
        "hf_",
        "a@b",
        "https://example.org/a:b@c",
        "up.sh --token $HF_TOKEN --seed 1234567",
        "up.sh --token={env:HF_TOKEN}",
        "https://{env:HF_TOKEN}@example.org/?token={env:HF_TOKEN}",
        "[{'secret_key': '{env:HF_TOKEN}', 'bucket': 'my-bucket'}]",
        "a secret: garden, and a token of happiness",
        "ssh://git@example.org/x",
        "https://example.org/?download=true&page=1234567",
    ] {
        assert!(!is_secret(plain), "{plain}");
    }
}

#[test]
fn no_name_of_a_secret_is_too_long_to_be_compared() {
    let longest = SECRET_NAMES.iter().map(|(letters, _)| letters.len()).max();
    assert_eq!(longest, Some(SECRET_NAME_LETTERS_MAX));
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
