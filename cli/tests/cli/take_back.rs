//! Rows that should not have come go out of the tables again, for people and for programs.

use serde_json::Value;

use crate::support::{FIGURES, Ring};

#[test]
fn what_was_imported_by_mistake_is_taken_back() {
    let ring = Ring::start();
    let file = ring.file("figures.csv", FIGURES);
    ring.call(&["records", "import", &file, "--source", "measured"])
        .ok();
    let versions = ring.call(&["records", "versions", "--json"]).json();
    let newest = &versions["tables"][0]["versions"][0];
    assert_eq!(
        (&newest["what"], &newest["rows"]),
        (&"imported".into(), &2.into())
    );
    let take_back = ["records", "take-back", "--since", "1h"];
    let with = |more: &[&str]| ring.call(&[&take_back, more].concat());
    let said = with(&[]).refused(2);
    assert!(said.contains("--dry-run"), "{said}");
    for (how, rows, before) in [("--dry-run", 2, 0), ("--yes", 2, 0), ("--yes", 0, 2)] {
        let taken = with(&[how, "--json"]).json();
        let taken = &taken["tables"][0];
        assert_eq!(
            (&taken["rows"], &taken["rows_before"]),
            (&Value::from(rows), &Value::from(before))
        );
    }
    let count = ["sql", "SELECT count(*) AS n FROM training_steps", "--csv"];
    assert_eq!(ring.call(&count).ok(), "n\n0\n");
    let shown = ring.call(&["records", "versions", "--newest", "2"]).ok();
    assert!(shown.contains("-2\ttook back 1 to 1"), "{shown}");
    assert!(
        shown.contains("+2\timport of measured, taken back"),
        "{shown}"
    );
}
