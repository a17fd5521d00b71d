//! What settings, options, headers and variables are called that hold a secret.

/// Names of settings that hold a secret, by their letters alone: in a configuration their words may be joined in any way.
/// In the order of their letters.
pub(super) const SECRET_NAMES: [(&str, &str); 37] = [
    ("accesskey", "access_key"),
    ("accesskeyid", "access_key_id"),
    ("accesstoken", "access_token"),
    ("accountkey", "account_key"),
    ("apikey", "api_key"),
    ("apitoken", "api_token"),
    ("applicationkey", "application_key"),
    ("appsecret", "app_secret"),
    ("authorization", "authorization"),
    ("authtoken", "auth_token"),
    ("awsaccesskeyid", "aws_access_key_id"),
    ("awssecretaccesskey", "aws_secret_access_key"),
    ("awssessiontoken", "aws_session_token"),
    ("bearertoken", "bearer_token"),
    ("clientsecret", "client_secret"),
    ("connectionstring", "connection_string"),
    ("credential", "credential"),
    ("hftoken", "hf_token"),
    ("hubtoken", "hub_token"),
    ("huggingfacehubtoken", "huggingface_hub_token"),
    ("huggingfacetoken", "huggingface_token"),
    ("passwd", "passwd"),
    ("password", "password"),
    ("privatekey", "private_key"),
    ("pushtohubtoken", "push_to_hub_token"),
    ("refreshtoken", "refresh_token"),
    ("requestheaders", "request_headers"),
    ("sastoken", "sas_token"),
    ("secret", "secret"),
    ("secretaccesskey", "secret_access_key"),
    ("secretkey", "secret_key"),
    ("sessiontoken", "session_token"),
    ("token", "token"),
    ("uploadtoken", "upload_token"),
    ("wandbapikey", "wandb_api_key"),
    ("wandbkey", "wandb_key"),
    ("webhooksecret", "webhook_secret"),
];

/// Letters of the longest of them.
pub(super) const SECRET_NAME_LETTERS_MAX: usize = 19;

/// The letters that one of them begins with, and those that one ends with: a bit for each of the alphabet. Most settings
/// are told from secrets by these two.
const ENDS: (u32, u32) = {
    let (mut first, mut last, mut index) = (0, 0, 0);
    while index < SECRET_NAMES.len() {
        let name = SECRET_NAMES[index].0.as_bytes();
        first |= 1 << (name[0] - b'a');
        last |= 1 << (name[name.len() - 1] - b'a');
        index += 1;
    }
    (first, last)
};

/// Parts of a name that say the same wherever they stand in it, as SimpleTuner's own list has them: their letters, and the
/// name in the words of the list above.
const SECRET_PARTS: [(&str, &str); 8] = [
    ("secret", "secret"),
    ("password", "password"),
    ("passwd", "passwd"),
    ("credential", "credential"),
    ("accesskey", "access_key"),
    ("apikey", "api_key"),
    ("privatekey", "private_key"),
    ("authorization", "authorization"),
];

/// The secret that a setting of this name holds, in the words of a closed list; `None` for a name that says nothing of one.
#[must_use]
pub fn name(key: &str) -> Option<&'static str> {
    whole_name(key).or_else(|| name_by_part(key))
}

/// The secret that a name tells by one of its words.
fn name_by_part(key: &str) -> Option<&'static str> {
    let bytes = key.as_bytes();
    // `webshart_hf_token` and `hfToken` are about one token, `token` within a word is about something else.
    if let Some(at) = bytes.len().checked_sub("token".len())
        && bytes[at..].eq_ignore_ascii_case(b"token")
        && (bytes[at] == b'T' || at == 0 || !bytes[at - 1].is_ascii_alphanumeric())
    {
        return Some("token");
    }
    let begins = |at: usize, part: &str| {
        let letters = bytes[at..]
            .iter()
            .filter(|byte| byte.is_ascii_alphanumeric());
        letters
            .map(u8::to_ascii_lowercase)
            .take(part.len())
            .eq(part.bytes())
    };
    (0..bytes.len()).find_map(|at| {
        // All of them begin with one of these.
        if !b"spcaSPCA".contains(&bytes[at]) {
            return None;
        }
        let part = SECRET_PARTS.iter().find(|(part, _)| begins(at, part));
        part.map(|(_, name)| *name)
    })
}

/// The secret that a name tells as a whole.
fn whole_name(key: &str) -> Option<&'static str> {
    let letters = || key.bytes().filter(u8::is_ascii_alphanumeric);
    let is_end = |ends: u32, letter: Option<u8>| {
        letter.is_some_and(|letter| {
            letter.is_ascii_alphabetic() && ends >> (letter.to_ascii_lowercase() - b'a') & 1 == 1
        })
    };
    if !is_end(ENDS.0, letters().next()) || !is_end(ENDS.1, letters().next_back()) {
        return None;
    }
    let mut name = [0; SECRET_NAME_LETTERS_MAX];
    let mut length = 0;
    for letter in letters() {
        // What is longer is none of the names.
        *name.get_mut(length)? = letter.to_ascii_lowercase();
        length += 1;
    }
    let name = &name[..length];
    let at = SECRET_NAMES.binary_search_by(|(known, _)| known.as_bytes().cmp(name));
    at.ok().map(|at| SECRET_NAMES[at].1)
}
