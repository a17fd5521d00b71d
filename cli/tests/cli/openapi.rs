//! The OpenAPI document against the server that gives it: Schemathesis asks every route what the document allows and
//! forbids, the same questions every time.

use stepcast_tests::python::Python;

use crate::support::{Ring, until};

/// Enough for each route's edges, and little enough for every test run.
const QUESTIONS: &str = "12";

/// It asks for so long: the edges of every route first, and then at random from a fixed seed.
const SECONDS: &str = "30";

/// Below what one caller may ask, so that refusals for asking too often do not stand in the place of answers.
const RATE: &str = "40/s";

/// What must hold of every answer: no failure of the server's own, and status, kind and shape as the document says.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[test]
fn every_answer_is_one_that_the_document_names() {
    let Some(python) = Python::with(&["schemathesis"]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let token = "own-token-of-this-server";
    std::fs::write(folder.path().join("own.token"), token).unwrap();
    let own = ["--access-token-file", "own.token"];
    let ring = Ring::over(folder, &own, &[]);
    let call = |arguments: &[&str]| ring.call(&[arguments, &own].concat());
    until(|| call(&["cluster", "status", "--json"]).json()["log_format"].as_u64() >= Some(3));
    // Something to be found: a job, and somebody.
    let job = ring.submit(&own);
    call(&["org", "create", "cats"]).ok();
    let (document, header) = (
        format!("{}/v1/openapi.json", ring.address),
        format!("Authorization: Bearer {token}"),
    );
    let asked = python.module(
        ring.folder.path(),
        "schemathesis.cli",
        &[
            "run",
            &document,
            "--header",
            &header,
            "--phases",
            "coverage,fuzzing",
            "--checks",
            CHECKS,
            "--max-examples",
            QUESTIONS,
            "--max-time",
            SECONDS,
            "--rate-limit",
            RATE,
            "--request-timeout",
            "20",
            "--generation-deterministic",
            "--continue-on-failure",
            "--no-shrink",
            "--no-color",
        ],
    );
    let said = String::from_utf8_lossy(&asked.stdout);
    assert!(
        asked.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&asked.stderr)
    );
    assert!(said.contains("generated"), "{said}");
    // It has asked a lot, and nobody was thrown out.
    let shown = call(&["job", "show", &job, "--json"]).json();
    assert_eq!(shown["job"], job.as_str());
    assert_eq!(
        call(&["cluster", "status", "--json"]).json()["health"],
        "SERVING"
    );
}
