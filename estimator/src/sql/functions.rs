//! The functions a statement may call: those that questions about times need, and none that makes much from little.
//!
//! Left out on purpose: whatever repeats, pads or replaces text, builds lists or ranges, or reads the session. Such
//! a call can ask for gigabytes while the statement is still being planned, where no limit reaches it.

use std::sync::{Arc, LazyLock};

use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

use super::histogram;

/// Functions of one row.
const SCALAR: [&str; 40] = [
    "abs",
    "ceil",
    "exp",
    "floor",
    "ln",
    "log",
    "log10",
    "log2",
    "power",
    "round",
    "signum",
    "sqrt",
    "trunc",
    "isnan",
    "nanvl",
    "pi",
    "cbrt",
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "nvl",
    "character_length",
    "concat",
    "contains",
    "ends_with",
    "initcap",
    "left",
    "lower",
    "btrim",
    "ltrim",
    "rtrim",
    "reverse",
    "right",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "upper",
    "arrow_typeof",
];
/// Functions of many rows that keep little for each of them.
const AGGREGATE: [&str; 21] = [
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "avg",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "first_value",
    "grouping",
    "last_value",
    "max",
    "median",
    "min",
    "percentile_cont",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

/// Made once: the engine's whole list is long, and each statement has a session of its own.
pub(super) fn scalar() -> &'static [Arc<ScalarUDF>] {
    static ALLOWED: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
        let all = SessionStateDefaults::default_scalar_functions();
        all.into_iter()
            .filter(|function| SCALAR.contains(&function.name()))
            .collect()
    });
    &ALLOWED
}

pub(super) fn aggregate() -> &'static [Arc<AggregateUDF>] {
    static ALLOWED: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
        let all = SessionStateDefaults::default_aggregate_functions();
        all.into_iter()
            .filter(|function| AGGREGATE.contains(&function.name()))
            .chain(histogram::functions())
            .collect()
    });
    &ALLOWED
}

pub(super) fn window() -> &'static [Arc<WindowUDF>] {
    static ALLOWED: LazyLock<Vec<Arc<WindowUDF>>> =
        LazyLock::new(SessionStateDefaults::default_window_functions);
    &ALLOWED
}

/// Every name that may be called, for hints.
pub(super) fn names() -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    names.extend(
        scalar()
            .iter()
            .flat_map(|f| f.aliases().iter().cloned().chain([f.name().to_owned()])),
    );
    names.extend(
        aggregate()
            .iter()
            .flat_map(|f| f.aliases().iter().cloned().chain([f.name().to_owned()])),
    );
    names.extend(
        window()
            .iter()
            .flat_map(|f| f.aliases().iter().cloned().chain([f.name().to_owned()])),
    );
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_function_exists() {
        let known: Vec<_> = scalar().iter().map(|f| f.name().to_owned()).collect();
        let missing: Vec<_> = SCALAR
            .iter()
            .filter(|name| !known.iter().any(|k| k == *name))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
        let known: Vec<_> = aggregate().iter().map(|f| f.name().to_owned()).collect();
        let missing: Vec<_> = AGGREGATE
            .iter()
            .filter(|name| !known.iter().any(|k| k == *name))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn what_makes_much_from_little_is_left_out() {
        let names = names();
        for name in [
            "repeat",
            "lpad",
            "rpad",
            "replace",
            "range",
            "generate_series",
            "array_repeat",
            "make_array",
            "string_agg",
            "array_agg",
            "version",
            // There are no structures to take it from.
            "get_field",
        ] {
            assert!(!names.iter().any(|known| known == name), "{name}");
        }
    }
}
