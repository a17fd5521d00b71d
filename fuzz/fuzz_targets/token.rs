//! Whatever is pasted as a join token: it is refused, or it is the text of the token that it is read as.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepcast_cluster::peers::JoinToken;

fuzz_target!(|text: &str| {
    if let Ok(token) = JoinToken::parse(text) {
        assert_eq!(token.text(), text.trim());
        assert!(!format!("{token:?}").contains(text.trim()));
    }
});
