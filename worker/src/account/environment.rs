//! What a trainer under an account of its own has in its environment: nothing that leads to the worker's own home.

use std::ffi::OsString;
use std::path::Path;

use super::Account;
use crate::trainer::Launch;

/// Variables that name whom the worker runs as, where that has its things, or who may be asked in its name.
const OF_THE_WORKER: [&str; 15] = [
    "HOME",
    "USER",
    "LOGNAME",
    "MAIL",
    "SHELL",
    "PWD",
    "OLDPWD",
    "TMPDIR",
    "TMP",
    "TEMP",
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "DBUS_SESSION_BUS_ADDRESS",
    "KRB5CCNAME",
    "GNUPGHOME",
];

/// The same by how they begin.
const BEGIN: [&str; 3] = ["XDG_", "SUDO_", "SSH_"];

/// Where a program of Hugging Face's keeps models.
const HF_HOME: &str = "HF_HOME";

/// Has a trainer find itself in an account, with its home and its temporary files in the attempt's `folder`. Models are large,
/// so they stay where the worker's environment says, or else in the account's own home.
pub(crate) fn step_into(launch: &mut Launch, account: &Account, folder: &Path) {
    let environment = &mut launch.environment;
    environment.retain(|(name, _)| !name.to_str().is_some_and(is_the_worker_s));
    let name = &account.ids.name;
    let mut set = |variable: &str, value: OsString| environment.push((variable.into(), value));
    set("USER", name.into());
    set("LOGNAME", name.into());
    set("HOME", folder.join(super::folders::HOME).into());
    set("TMPDIR", folder.join(super::folders::TEMPORARY).into());
    let is_set = environment.iter().any(|(name, _)| name == HF_HOME);
    if let Some(home) = account.home.as_ref().filter(|_| !is_set) {
        environment.push((HF_HOME.into(), home.join(".cache/huggingface").into()));
    }
}

fn is_the_worker_s(name: &str) -> bool {
    OF_THE_WORKER.contains(&name) || BEGIN.iter().any(|begin| name.starts_with(begin))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::account::Ids;

    fn told(inherited: &[(&str, &str)], home: Option<&str>) -> Vec<String> {
        let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        let mut launch = Launch {
            command: Vec::new(),
            environment: inherited.iter().map(pair).collect(),
            directory: PathBuf::new(),
            signal_file: PathBuf::new(),
            from: 0,
        };
        let ids = Ids {
            name: "trainer".to_owned(),
            uid: 998,
            gid: 998,
            groups: Vec::new(),
        };
        let home = home.map(PathBuf::from);
        step_into(
            &mut launch,
            &Account { ids, home },
            Path::new("/s/attempts/7"),
        );
        let shown = |(name, value): (OsString, OsString)| {
            format!(
                "{}={}",
                name.into_string().unwrap(),
                value.into_string().unwrap()
            )
        };
        let mut shown: Vec<String> = launch.environment.into_iter().map(shown).collect();
        shown.sort();
        shown
    }

    #[test]
    fn nothing_leads_to_the_worker_s_home_and_models_stay_where_they_are() {
        let own = [
            "HOME=/s/attempts/7/home",
            "LOGNAME=trainer",
            "TMPDIR=/s/attempts/7/tmp",
            "USER=trainer",
        ];
        let worker_s = [
            ("HOME", "/var/worker"),
            ("USER", "root"),
            ("TMPDIR", "/var/worker/tmp"),
            ("XDG_CACHE_HOME", "/var/worker/.cache"),
            ("SSH_AUTH_SOCK", "/run/agent"),
        ];
        assert_eq!(told(&worker_s, None), own);
        let models = ["HF_HOME=/var/trainer/.cache/huggingface"];
        assert_eq!(
            told(&worker_s, Some("/var/trainer")),
            [&models[..], &own].concat()
        );
        let given = told(
            &[("HF_HOME", "/models"), ("PATH", "/bin")],
            Some("/var/trainer"),
        );
        let [models, rest @ ..] = &given[..] else {
            panic!("{given:?}")
        };
        assert_eq!(models, "HF_HOME=/models");
        assert!(
            rest.contains(&"PATH=/bin".to_owned()) && given.len() == 6,
            "{given:?}"
        );
    }
}
