//! The forms that a configuration may have beside the settings alone: with a mark of Windows' editors before it, and
//! within or beside what SimpleTuner's page writes. Everybody but the reader sees it without the mark and what is around it.

use serde_json::Value;

use super::files::{File, Format};

/// What some editors write before the text of a file, in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Where SimpleTuner's page writes the settings, in a configuration in which they do not stand alone.
pub(super) const PAGE_WRAPPER: &str = "config";

/// What SimpleTuner's page notes for itself, an object, around the settings or among them.
pub(super) const PAGE_NOTES: &str = "_metadata";

/// A configuration with this key is none that SimpleTuner's page has wrapped.
pub(super) const NOT_WRAPPED: &str = "model_family";

/// A file's bytes without the mark of an encoding, if one stands before them.
#[must_use]
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// The settings of a configuration as SimpleTuner's page writes it (`{"config": {...}}`), alone; `None` for any other.
#[must_use]
pub fn unwrapped(config: &File<'_>) -> Option<Vec<u8>> {
    if config.format() != Format::Json {
        return None;
    }
    // Most have no such key, however it may be written, which is seen sooner than read.
    let text = std::str::from_utf8(config.bytes).ok()?;
    if !text.contains("\"config\"") && !text.contains("\\u") {
        return None;
    }
    let mut members: serde_json::Map<String, Value> =
        serde_json::from_slice(without_mark(config.bytes)).ok()?;
    if members.contains_key(NOT_WRAPPED) {
        return None;
    }
    let settings = members.remove(PAGE_WRAPPER).filter(Value::is_object)?;
    serde_json::to_vec(&settings).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_has_wrapped_comes_out_as_its_settings() {
        let unwrapped = |name, text: &str| {
            let bytes = unwrapped(&File::new(name, text.as_bytes()));
            bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let page = r#"{"model_name": "a", "config": {"--seed": 1, "model_family": "flux"}}"#;
        let flat = r#"{"--seed":1,"model_family":"flux"}"#;
        assert_eq!(unwrapped("config.json", page).as_deref(), Some(flat));
        let marked = format!("\u{feff}{page}");
        assert_eq!(unwrapped("config.json", &marked).as_deref(), Some(flat));
        assert_eq!(without_mark(marked.as_bytes()), page.as_bytes());
        let escaped = page.replace("config", "c\\u006fnfig");
        assert_eq!(unwrapped("config.json", &escaped).as_deref(), Some(flat));
        for (name, text) in [
            ("config.toml", page),
            ("config.json", flat),
            ("config.json", r#"{"config": "a"}"#),
            ("config.json", r#"{"config": {}, "model_family": "flux"}"#),
            ("config.json", "[]"),
            ("config.json", ""),
        ] {
            assert_eq!(unwrapped(name, text), None, "{text}");
        }
    }
}
