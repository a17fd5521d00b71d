//! The file of a LyCORIS adapter, checked as SimpleTuner checks it.

use super::files::File;
use super::findings::Findings;
use super::json::Value;
use super::source;

/// Algorithms that a title names; any other is called LyCORIS alone.
const ALGORITHMS: [&str; 9] = [
    "lora", "locon", "loha", "lokr", "dylora", "full", "glora", "diag-oft", "boft",
];

/// The algorithm of an adapter's file, if it is a known one; `None` with or without a problem found.
pub(super) fn algorithm(file: &File<'_>, found: &mut Findings) -> Option<&'static str> {
    let Value::Object(adapter) = source::json(file, found)? else {
        found.problem(
            file.name,
            "$",
            "the LyCORIS settings are not a JSON object",
            "write {\"algo\": \"lokr\", ...}",
        );
        return None;
    };
    let full_matrix = adapter.get("full_matrix") == Some(&Value::Bool(true));
    let mut needed = vec!["algo", "multiplier", "linear_alpha"];
    if !full_matrix {
        needed.push("linear_dim");
    }
    for key in needed {
        if !adapter.contains_key(key) {
            let what = format!("{key} is missing, and SimpleTuner does not start without it");
            found.problem(file.name, format!("$.{key}"), what, format!("add {key}"));
        }
    }
    let algorithm = adapter.get("algo").and_then(Value::as_str)?;
    ALGORITHMS
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(algorithm))
}
