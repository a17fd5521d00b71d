//! What is taken for a secret, where it stands, and what is not.

use super::names::{SECRET_NAME_LETTERS_MAX, SECRET_NAMES};
use super::*;

#[test]
fn every_name_of_a_secret_is_found() {
    for (letters, known) in SECRET_NAMES {
        assert_eq!(name(known), Some(known));
        assert_eq!(name(&letters.to_ascii_uppercase()), Some(known));
    }
    for (key, known) in [
        ("X-SimpleTuner-Secret", "secret"),
        ("X-API-Key", "api_key"),
        ("webshart_hf_token", "token"),
        ("myHfToken", "token"),
        ("gcs_private-key_pem", "private_key"),
        ("Proxy-Authorization", "authorization"),
    ] {
        assert_eq!(name(key), Some(known), "{key}");
    }
    for key in [
        "tokenizer_max_length",
        "max_tokens",
        "detoken",
        "primary_key",
        "ekey",
    ] {
        assert_eq!(name(key), None, "{key}");
    }
    assert_eq!(name("seed"), None);
    assert_eq!(name(""), None);
}

#[test]
fn every_shape_of_a_secret_is_found() {
    for (prefix, letters) in PREFIXES {
        let long = format!(" {prefix}{} ", "a".repeat(letters));
        assert!(is_in(&long), "{long}");
        let short = format!("{prefix}{}", "a".repeat(letters - 1));
        assert!(!is_in(&short), "{short}");
    }
    assert!(is_in("-----BEGIN RSA PRIVATE KEY-----\nMII"));
    assert!(is_in("://:c@"));
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
        assert!(is_in(secret), "{secret}");
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
        assert!(!is_in(plain), "{plain}");
    }
}

#[test]
fn no_name_of_a_secret_is_too_long_to_be_compared() {
    let longest = SECRET_NAMES.iter().map(|(letters, _)| letters.len()).max();
    assert_eq!(longest, Some(SECRET_NAME_LETTERS_MAX));
}

fn words(text: &str, kind: Kind) -> Vec<&str> {
    let ranges = within(text, kind).into_iter();
    ranges.map(|range| &text[range]).collect()
}

#[test]
fn a_secret_in_a_command_is_found_however_it_is_given() {
    for text in [
        "curl -H 'Authorization: Bearer canaryword' https://x/up",
        "curl -H \"X-Api-Key: canaryword\" https://x/up",
        "curl -H Authorization:canaryword https://x/up",
        "curl -u ana:canaryword https://x/up",
        "curl -uana:canaryword https://x/up",
        "curl --user=ana:canaryword https://x/up",
        "/x/gen.py token:canaryword",
        "/x/gen.py --header 'Basic canaryword'",
        "up.sh {\"api_key\":\"canaryword\"}",
        "up.sh {\"a\": 1, \"Authorization\": \"Token canaryword\"}",
        "mysql -pcanaryword -e 'select 1'",
        "[{'Authorization': 'Bearer canaryword'}]",
    ] {
        assert_eq!(words(text, Kind::Setting), ["canaryword"], "{text}");
        assert!(is_in(text), "{text}");
    }
    for plain in [
        "curl -H 'Authorization: Bearer $HF_TOKEN' https://x/up",
        "curl -H 'Authorization: Bearer {env:HF_TOKEN}' https://x/up",
        "docker run -u 100000:100000 -p 18080:18080 image:newest",
        "find . -print0 -newer a",
        "up.sh {\"api_key\": \"{env:HF_TOKEN}\"}",
    ] {
        assert!(!is_in(plain), "{plain}");
    }
}

#[test]
fn a_sentence_holds_a_secret_where_nobody_would_write_a_word() {
    for text in [
        "Authorization: Bearer canaryword",
        "Authorization: canary1X9zq8",
        "password: canary1X9zq8",
        "Bearer canary1X9zq8",
        "password:canary1X9zq8",
        "note: token:hf_canarycanarycanarycanary",
    ] {
        assert!(is_in(text), "{text}");
    }
    for plain in [
        "the flag bearer, mid-19th-century painting",
        "a ring bearer walking through the mountains",
        "a secret: garden, and a token of happiness",
        "the password: swordfish, written on a wall",
        "an authorization: something signed",
        "Basic training; a token: something golden",
        "a poster with the words \"secret: everything\" on it",
        "sk_landscape_photos_of_2024",
        "portrait, 8k -professional -ar 16:9",
    ] {
        assert!(!is_in(plain), "{plain}");
    }
}

#[test]
fn an_address_that_lets_in_whoever_knows_it_is_a_secret() {
    for (text, secret) in [
        (
            "https://api.telegram.org/bot123:canary/send",
            "123:canary/send",
        ),
        (
            "post to https://Hooks.Slack.com/services/T0/B0/canary now",
            "services/T0/B0/canary",
        ),
        ("https://discord.com/api/webhooks/1/canary", "1/canary"),
        ("http://u:canary@proxy:3128", "canary"),
        ("https://{env:USER}:canary@example.org", "canary"),
    ] {
        assert_eq!(words(text, Kind::Setting), [secret], "{text}");
    }
    assert!(!is_in(
        "https://core.telegram.org/bots and https://hooks.slack.com/"
    ));
}

#[test]
fn a_printed_line_is_no_secret_for_its_words() {
    for plain in [
        "step 12/30 loss=0.41 lr=1e-4",
        "[2026-01-01 10:00:00] loading token of clip-vit-large-patch14",
        "tokenizer: T5TokenizerFast2",
        "eos_token='</s>' pad_token=49407",
        "secret: nothing",
    ] {
        assert!(words(plain, Kind::Printed).is_empty(), "{plain}");
    }
    for line in [
        "args --token canary1X9zq8",
        "post_upload_script curl -H 'Authorization: Bearer canary1X9zq8' https://x",
        "{'api_key': 'canary1X9zq8'}",
        "{\"Authorization\": \"Basic canary1X9zq8\"}",
        "password=canary1X9zq8",
    ] {
        assert_eq!(words(line, Kind::Printed), ["canary1X9zq8"], "{line}");
    }
}

/// As many as a configuration has room for: each is looked at once, whatever stands before and behind it.
#[test]
fn of_many_addresses_every_secret_is_found_once() {
    let count = 70_000;
    let passwords = "https://ann:canary@c ".repeat(count);
    let found = within(&passwords, Kind::Setting);
    assert_eq!(found.len(), count);
    assert!(found.iter().all(|at| &passwords[at.clone()] == "canary"));
    let users = "HTTPS://canary@c ".repeat(count);
    assert_eq!(within(&users, Kind::Printed).len(), count);
    let hooks = "https://hooks.slack.com/".repeat(count);
    let found = within(&hooks, Kind::Printed);
    let ends: Vec<_> = found.iter().map(|at| (at.start, at.end)).collect();
    assert_eq!(ends, [(24, hooks.len())], "one path without an end");
    let options = format!("mysql {}", "-pcanary ".repeat(count));
    assert_eq!(within(&options, Kind::Handed).len(), count);
    let options = format!("run.sh {}", "-pcanary ".repeat(count));
    assert!(
        within(&options, Kind::Handed).is_empty(),
        "of no program that takes one"
    );
}
