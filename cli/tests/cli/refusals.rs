//! What each mistake comes to: an exit code that scripts can rely on, and words that say what to do.

use std::process::Stdio;

use crate::support::{Process, Ring, Said, alone, example};

#[test]
fn a_wrong_command_line_is_usage() {
    let folder = tempfile::tempdir().unwrap();
    for wrong in [
        &["estimate"][..],
        &["nonsense"],
        &["job", "show", "a/b"],
        &["submit", "x", "--priority", "11"],
        &["jobs", "--server", "::"],
        &["job"],
        &["policy", "set"],
    ] {
        assert_eq!(alone(folder.path(), wrong).code, 2, "{wrong:?}");
        let said = alone(folder.path(), &[wrong, &["--json"]].concat());
        assert_eq!((said.code, said.stdout.as_str()), (2, ""), "{wrong:?}");
        let told: serde_json::Value = serde_json::from_str(&said.stderr)
            .unwrap_or_else(|error| panic!("{wrong:?}: {error}: {}", said.stderr));
        assert_eq!(told["error"]["exit_code"], 2, "{wrong:?}");
        assert_ne!(told["error"]["message"], "", "{wrong:?}");
    }
}

#[test]
fn what_names_a_gpu_twice_is_usage() {
    let folder = tempfile::tempdir().unwrap();
    let simulate = ["simulate", "--trace", "t", "--throughput", "s", "--cluster"];
    for (more, words) in [
        (
            &["v100=1,k80=2,V100=2"][..],
            "error: --cluster names v100-16 twice",
        ),
        (
            &["v100=1", "--price", "v100=1,v100=2"],
            "error: --price names v100-16 twice",
        ),
    ] {
        let stderr = alone(folder.path(), &[&simulate, more].concat()).refused(2);
        assert!(stderr.starts_with(words), "{stderr}");
    }
}

#[test]
fn what_is_told_in_words_has_no_json() {
    let folder = tempfile::tempdir().unwrap();
    let told = alone(folder.path(), &["demo", "--json"]).refused(2);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        told["error"]["message"],
        "the demo is told in words; it has no JSON"
    );
}

#[test]
fn what_is_not_there_is_not_found() {
    let ring = Ring::start();
    let job = ring.submit(&[]);
    for wrong in [
        &["job", "show", "nosuch"][..],
        &["job", "why", "nosuch"],
        &["job", "watch", "nosuch"],
        &["job", "cancel", "nosuch"],
        &["job", "logs", "nosuch"],
        &["workers", "drain", "nobody"],
        &["workers", "token", "revoke", "nobody"],
        &["estimate", "nowhere"],
        &["estimate", "."],
        &["records", "import", "nowhere.csv", "--source", "x"],
        &["sql", "\\d nosuch"],
    ] {
        let stderr = ring.call(wrong).refused(3);
        assert!(stderr.starts_with("error: "), "{wrong:?}: {stderr}");
        let unknown_job = wrong.contains(&"nosuch") && wrong[0] == "job";
        if unknown_job {
            assert!(stderr.contains("there is no such job"), "{stderr}");
            assert!(stderr.contains("hint: `stepcast jobs` lists"), "{stderr}");
        }
    }
    ring.still_has(&job);
    let json = ring.call(&["job", "show", "nosuch", "--json"]).refused(3);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["error"]["exit_code"], 3);
    ring.call(&["sql", "\\d nosuch", "--json"]).refused(3);
    let one = ring.call(&["sql", "\\d training_steps", "--json"]).json();
    assert_eq!(one["tables"].as_array().unwrap().len(), 1);
}

#[test]
fn nobody_there_is_its_own_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let stderr = alone(folder.path(), &["jobs", "--server", "127.0.0.1:1"]).refused(4);
    assert!(
        stderr.starts_with("error: no server answers at http://127.0.0.1:1\n"),
        "{stderr}"
    );
    assert!(
        stderr.contains("hint: start one with `stepcast dev`"),
        "{stderr}"
    );
}

#[test]
fn a_malformed_configuration_is_refused_with_its_place() {
    let ring = Ring::start();
    let job = ring.submit(&[]);
    let deep = format!("{{\"model_family\": {}", "[".repeat(100_000));
    for (text, words) in [
        ("{\n  \"model_family\": \"flux\",,\n}", "config.json line 2"),
        ("", "config.json line 1"),
        ("{", "config.json line 1"),
        ("[]", "config.json"),
        (deep.as_str(), "config.json"),
        ("{\"model_family\": 1}", "model_family"),
    ] {
        ring.file("broken/config.json", text);
        for command in [&["estimate", "broken"][..], &["submit", "broken", "--yes"]] {
            let stderr = ring.call(command).refused(1);
            assert!(
                stderr.starts_with("error: the configuration cannot be used: "),
                "{stderr}"
            );
            assert!(stderr.contains(words), "{words}: {stderr}");
        }
    }
    ring.file(
        "poor/config.json",
        "{\"model_family\": \"nonsense\", \"data_backend_config\": \"nowhere.json\"}",
    );
    let stderr = ring.call(&["submit", "poor", "--yes"]).refused(1);
    assert!(stderr.contains("model_family"), "{stderr}");
    assert!(stderr.contains("nowhere.json: not found here"), "{stderr}");
    std::fs::write(ring.folder.path().join("broken/config.json"), [0xff; 99]).unwrap();
    ring.call(&["submit", "broken", "--yes"]).refused(1);
    ring.still_has(&job);
}

#[test]
fn a_huge_configuration_is_refused_before_anything_is_read() {
    let ring = Ring::start();
    let job = ring.submit(&[]);
    let path = ring.file("huge/config.json", "");
    std::fs::File::create(path)
        .unwrap()
        .set_len(100 << 20)
        .unwrap();
    // The file that it names may be the huge one as well.
    ring.file(
        "names/config.json",
        "{\"model_family\": \"flux\", \"data_backend_config\": \"../huge/config.json\"}",
    );
    for folder in ["huge", "names"] {
        for command in [&["estimate", folder][..], &["submit", folder, "--yes"]] {
            let stderr = ring.call(command).refused(1);
            assert!(stderr.contains("is too large\n  100.0 MiB; "), "{stderr}");
            assert!(stderr.contains("hint: is it the right file?"), "{stderr}");
        }
    }
    ring.still_has(&job);
}

#[test]
fn a_secret_that_cannot_be_taken_out_is_refused_with_its_place_and_not_repeated() {
    let ring = Ring::start();
    let job = ring.submit(&[]);
    let text = std::fs::read_to_string(example().join("config.json")).unwrap();
    let secret = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345";
    let text = text.replacen('{', &format!("{{\n  \"{secret}\": true,"), 1);
    ring.file("secret/config.json", &text);
    let loader = std::fs::read_to_string(example().join("multidatabackend.json")).unwrap();
    ring.file("secret/multidatabackend.json", &loader);
    let stderr = ring.call(&["submit", "secret", "--yes"]).refused(1);
    assert!(stderr.contains("config.json $"), "{stderr}");
    assert!(stderr.contains("environment of the worker"), "{stderr}");
    assert!(!stderr.contains(secret), "{stderr}");
    assert_eq!(
        ring.call(&["jobs", "--json"]).json()["jobs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    ring.still_has(&job);
}

#[test]
fn a_refused_query_changes_nothing() {
    let ring = Ring::start();
    for query in [
        "DROP TABLE training_steps",
        "SELEC 1",
        "SELECT nosuch FROM training_steps",
    ] {
        let stderr = ring.call(&["sql", query]).refused(1);
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
    assert_eq!(
        ring.call(&["sql", "SELECT 1 AS one", "--csv"]).ok(),
        "one\n1\n"
    );
}

#[test]
fn settings_that_nobody_knows_are_refused_with_the_nearest_known() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join(".config/stepcast");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.toml"), "servr = \"http://a:1\"\n").unwrap();
    let stderr = alone(folder.path(), &["jobs"]).refused(1);
    assert!(stderr.contains("hint: did you mean `server`?"), "{stderr}");
    let stderr = alone(folder.path(), &["server", "--config", "none.toml"]).refused(3);
    assert!(stderr.contains("there is no such file"), "{stderr}");
}

#[test]
fn two_servers_with_one_folder_are_one_too_many() {
    let ring = Ring::start();
    let stderr = alone(
        ring.folder.path(),
        &["server", "--data", "data", "--listen", "127.0.0.1:0"],
    )
    .refused(1);
    assert!(stderr.contains("error: "), "{stderr}");
}

#[test]
fn an_interrupted_watch_ends_with_130() {
    let ring = Ring::start();
    let job = ring.submit(&[]);
    let mut watch = ring
        .command(&["job", "watch", &job])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its first line says that it watches; from then on it waits.
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(watch.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    assert!(line.contains("is pending"), "{line}");
    let id = rustix::process::Pid::from_child(&watch);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let mut watch = Process(watch);
    assert_eq!(watch.0.wait().unwrap().code(), Some(130));
}

#[test]
fn the_server_stays_up_after_every_mistake() {
    let ring = Ring::start();
    let path = example();
    ring.file("broken/config.json", "{");
    for _ in 0..3 {
        let said: Said = ring.call(&["submit", "broken", "--yes"]);
        assert_eq!(said.code, 1);
    }
    assert_eq!(
        ring.call(&[
            "submit",
            path.to_str().unwrap(),
            "--on",
            "nonsense",
            "--yes"
        ])
        .code,
        1
    );
    ring.call(&["cluster", "status"]).ok();
}

#[test]
fn zero_of_something_is_refused_and_not_taken_as_unset() {
    let folder = tempfile::tempdir().unwrap();
    let (path, sweep) = (example(), "learning_rate=1e-4,2e-4");
    let path = path.to_str().unwrap();
    for arguments in [
        &["submit", path, "--gpus", "0"][..],
        &["submit", path, "--hosts", "0"],
        &["submit", path, "--sweep", sweep, "--parallel", "0"],
        &["job", "update", "j1", "--gpus", "0"],
        &["job", "update", "j1", "--hosts", "0"],
        &["sql", "SELECT 1 AS one", "--limit", "0"],
    ] {
        let stderr = alone(folder.path(), arguments).refused(2);
        assert!(
            stderr.contains("0 is less than 1") || stderr.contains("0 is not from 1 to"),
            "{arguments:?}: {stderr}"
        );
    }
}

#[test]
fn a_label_with_two_values_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = example();
    let path = path.to_str().unwrap();
    for option in ["--label", "--avoid"] {
        let arguments = ["submit", path, option, "zone=eu", option, "zone=us"];
        let stderr = alone(folder.path(), &arguments).refused(2);
        assert!(
            stderr.starts_with("error: label zone is given two values"),
            "{stderr}"
        );
    }
}

#[test]
fn https_to_a_server_without_tls_says_so() {
    let ring = Ring::start();
    let address = ring.address.replacen("http://", "https://", 1);
    let stderr = ring.call(&["jobs", "--server", &address]).refused(4);
    assert!(
        stderr.contains("does the server speak TLS? Its address begins with http:// if not"),
        "{stderr}"
    );
}

#[test]
fn a_server_that_cannot_serve_says_so_before_it_makes_anything() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "server",
        "--data",
        "data",
        "--listen",
        "127.0.0.1:0",
        "--tls-cert",
        "no.pem",
        "--tls-key",
        "no.key",
    ];
    let said = alone(folder.path(), &arguments);
    assert_eq!(said.stdout, "");
    assert!(!folder.path().join("data").exists());
    let stderr = said.refused(1);
    assert!(
        stderr.contains("error: the certificate cannot be used\n  no.pem cannot be read"),
        "{stderr}"
    );
}

#[test]
fn a_second_server_on_one_data_folder_is_refused_in_one_sentence() {
    let ring = Ring::start();
    let arguments = ["server", "--data", "data", "--listen", "127.0.0.1:0"];
    let second = ring.command(&arguments).env("RUST_LOG", "off").output();
    let stderr = Said::from(second.unwrap()).refused(1);
    assert_eq!(
        stderr,
        "error: another server runs on the data folder data\n  \
         hint: stop it first, or choose another folder with --data\n"
    );
}
