//! Keeps a trainer's webhooks on this host where the worker's environment names a proxy.
//!
//! Python's `requests`, by which SimpleTuner posts, goes by `HTTP_PROXY` and `ALL_PROXY` for loopback addresses as well, unless
//! `NO_PROXY` names them: prompts, pictures and the token would leave the host in plain text, and the worker would hear nothing.

use std::ffi::{OsStr, OsString};

/// Where webhooks go.
const LOOPBACK: &str = "127.0.0.1";

/// Says no proxy at all, and only where it stands alone.
const EVERYTHING: &str = "*";

/// Both spellings: some programs read one, some the other, and most the small letters first.
const NAMES: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// Has whatever reads this environment post to loopback without a proxy. What is already excepted stays so.
pub(super) fn except_loopback(environment: &mut Vec<(OsString, OsString)>) {
    let told = NAMES.map(|name| {
        let value = environment.iter().find(|(told, _)| told == name);
        value
            .map(|(_, value)| value.clone())
            .filter(|value| !value.is_empty())
    });
    environment.retain(|(name, _)| !NAMES.iter().any(|known| name == known));
    let [small, large] = &told;
    for (name, value) in [
        (NAMES[0], small.as_ref().or(large.as_ref())),
        (NAMES[1], large.as_ref().or(small.as_ref())),
    ] {
        environment.push((name.into(), with_loopback(value.map(OsString::as_os_str))));
    }
}

fn with_loopback(told: Option<&OsStr>) -> OsString {
    let Some(told) = told else {
        return LOOPBACK.into();
    };
    if told.to_string_lossy().trim() == EVERYTHING {
        return EVERYTHING.into();
    }
    let mut value = told.to_owned();
    value.push(",");
    value.push(LOOPBACK);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(inherited: &[(&str, &str)]) -> Vec<(String, String)> {
        let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        let mut environment: Vec<_> = inherited.iter().map(pair).collect();
        except_loopback(&mut environment);
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let mut told: Vec<_> = environment
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect();
        told.sort();
        told
    }

    #[test]
    fn loopback_is_excepted_beside_what_was() {
        for (inherited, large, small) in [
            (&[][..], "127.0.0.1", "127.0.0.1"),
            (
                &[("NO_PROXY", "localhost,.corp")],
                "localhost,.corp,127.0.0.1",
                "localhost,.corp,127.0.0.1",
            ),
            (
                &[("no_proxy", "a"), ("NO_PROXY", "b")],
                "b,127.0.0.1",
                "a,127.0.0.1",
            ),
            (
                &[("no_proxy", ""), ("NO_PROXY", "b")],
                "b,127.0.0.1",
                "b,127.0.0.1",
            ),
            (&[("no_proxy", "*")], "*", "*"),
        ] {
            let expected = [("NO_PROXY", large), ("no_proxy", small)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(told(inherited), expected);
        }
        let others = told(&[("HTTP_PROXY", "http://proxy:3128")]);
        assert_eq!(others[0].1, "http://proxy:3128", "the hub is behind it");
    }
}
