//! A server that others can reach, with nothing but its defaults: its own certificate, and its first operator.

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Stdio};

use crate::support::{Process, Said, program, until};

/// A server that listens everywhere, and what it has printed.
struct Open {
    folder: tempfile::TempDir,
    said: Vec<String>,
    _server: Process,
}

impl Open {
    fn start() -> Self {
        Self::over(tempfile::tempdir().unwrap())
    }

    fn over(folder: tempfile::TempDir) -> Self {
        let arguments = [
            "server",
            "--data",
            "data",
            "--listen",
            "0.0.0.0:0",
            "--metrics-listen",
            "0.0.0.0:0",
        ];
        let mut server = program(folder.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Process)
            .unwrap();
        let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
        let next =
            |lines: &mut std::io::Lines<BufReader<ChildStdout>>| lines.next().unwrap().unwrap();
        let mut said = vec![next(&mut lines)];
        // In one piece, and what the first operator needs comes last.
        while !said.last().unwrap().starts_with("who calls trusts it") {
            said.push(next(&mut lines));
        }
        said.push(next(&mut lines));
        Self {
            folder,
            said,
            _server: server,
        }
    }

    /// What stands behind these words.
    fn printed(&self, words: &str) -> &str {
        let found = self.said.iter().find_map(|line| line.strip_prefix(words));
        found.unwrap_or_else(|| panic!("{words}: {:?}", self.said))
    }

    /// Where this host reaches a port that listens everywhere.
    fn address(&self, words: &str) -> String {
        self.printed(words).replace("0.0.0.0", "127.0.0.1")
    }

    fn call(&self, arguments: &[&str]) -> Said {
        let address = self.address("listening on ");
        self.call_at(&address, Some("data/tls/certificate.pem"), arguments)
    }

    fn call_at(&self, address: &str, ca_file: Option<&str>, arguments: &[&str]) -> Said {
        let mut command = program(self.folder.path());
        command.env("STEPCAST_SERVER", address).args(arguments);
        if let Some(file) = ca_file {
            command.env("STEPCAST_CA_FILE", file);
        }
        command.output().unwrap().into()
    }
}

#[test]
fn it_makes_a_certificate_prints_its_fingerprint_and_speaks_nothing_else() {
    let open = Open::start();
    let address = open.address("listening on ");
    assert!(address.starts_with("https://"), "{address}");
    assert!(open.address("metrics on ").starts_with("https://"));
    let fingerprint = open.printed("certificate of its own: SHA-256 ").to_owned();
    assert_eq!(fingerprint.split(':').count(), 32, "{fingerprint}");
    // Who trusts it gets as far as being asked who they are; who does not gets no answer at all.
    let asked = open.call(&["jobs"]).refused(1);
    assert!(asked.contains("access token"), "{asked}");
    for (address, ca_file) in [
        (address.clone(), None),
        (
            address.replace("https", "http"),
            Some("data/tls/certificate.pem"),
        ),
    ] {
        let refused = open.call_at(&address, ca_file, &["jobs"]);
        assert_ne!(refused.code, 0, "{}", refused.stdout);
        assert!(
            !refused.stderr.contains("access token"),
            "{}",
            refused.stderr
        );
    }
    // Whoever trusts the file goes on to after a restart.
    let Open {
        folder, _server, ..
    } = open;
    drop(_server);
    let again = Open::over(folder);
    assert_eq!(
        again.printed("certificate of its own: SHA-256 "),
        fingerprint
    );
}

#[test]
fn the_printed_token_makes_one_operator_and_no_second() {
    let open = Open::start();
    let words = open.printed("first operator: stepcast ").to_owned();
    let words: Vec<&str> = words.split_whitespace().collect();
    let [
        "--server",
        at,
        "--ca-file",
        trusted,
        "user",
        "first",
        token,
        "NAME",
        "--out",
        "FILE",
    ] = words[..]
    else {
        panic!("{words:?}");
    };
    // As it is printed: whoever types it gets as far as the token.
    let typed = open.call_at(
        "http://127.0.0.1:1",
        None,
        &[
            "--server",
            at,
            "--ca-file",
            trusted,
            "user",
            "first",
            "sco1_wrong",
            "ana",
            "--out",
            "f",
        ],
    );
    let refused = typed.refused(1);
    assert!(
        !refused.contains("trusted") && !refused.contains("answers"),
        "{refused}"
    );
    let wrong = format!("{}0", &token[..token.len() - 1]);
    if wrong != token {
        open.call(&["user", "first", &wrong, "mallory", "--out", "m.token"])
            .refused(1);
    }
    // People are of the newest format, which a new log reaches in a moment.
    until(|| {
        let said = open.call(&["user", "first", token, "ana", "--out", "me.token"]);
        assert!(
            said.code == 0 || said.stderr.contains("not every node knows"),
            "{}",
            said.stderr
        );
        said.code == 0
    });
    let again = open.call(&["user", "first", token, "bo", "--out", "bo.token"]);
    assert_ne!(again.code, 0, "{}", again.stdout);
    let me = ["--access-token-file", "me.token"];
    let as_ana = |arguments: &[&str]| open.call(&[arguments, &me].concat());
    as_ana(&["jobs"]).ok();
    open.call(&["jobs"]).refused(1);
    let made = as_ana(&["org", "create", "cats", "--json"]).json();
    assert!(made.to_string().contains("cats"), "{made}");
    // Whoever is let in is told where they reach the server and what they show it, not where this call went.
    let let_in = as_ana(&["user", "create", "bo", "--out", "bo.token"]);
    let port = open
        .address("listening on ")
        .rsplit_once(':')
        .map(|(_, port)| port.to_owned());
    let next = format!(
        "Next: stepcast --server https://HOST:{} --ca-file data/tls/certificate.pem --access-token-file bo.token jobs    (where bo is, with copies of both files)",
        port.unwrap()
    );
    assert!(let_in.stderr.contains(&next), "{}", let_in.stderr);
    assert!(
        !let_in.stderr.contains("this host alone"),
        "{}",
        let_in.stderr
    );
    // What was done stands in the trail, in her name.
    let trail = as_ana(&["audit", "--json"]).json().to_string();
    assert!(trail.contains("CREATE_ORG"), "{trail}");
    // A server that has an operator prints nothing for a second one.
    let Open {
        folder, _server, ..
    } = open;
    drop(_server);
    let again = Reopened::over(folder);
    assert!(
        !again.0.iter().any(|line| line.contains("sco1_")),
        "{:?}",
        again.0
    );
}

/// What a server prints that has an operator: nothing comes behind its certificate.
struct Reopened(Vec<String>);

impl Reopened {
    fn over(folder: tempfile::TempDir) -> Self {
        let mut server = program(folder.path())
            .args(["server", "--data", "data", "--listen", "0.0.0.0:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Process)
            .unwrap();
        let lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        for line in lines.map_while(Result::ok) {
            // It prints all at once: whatever else there is comes before the end that this makes.
            if line.starts_with("who calls trusts it") {
                let _ = server.0.kill();
            }
            said.push(line);
        }
        Self(said)
    }
}
