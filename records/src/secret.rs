//! What secrets look like, so that they are never kept: the server looks for them in what it is sent, and a worker in what
//! its trainers print. Both go by the same names and the same shapes.

mod address;
mod names;
mod shape;
mod words;

#[cfg(test)]
mod tests;

pub use names::name;
pub use shape::PREFIXES;
pub use words::{Kind, is_in, within};

/// Whether a setting with a secret's name is set at all: words that switch it off are no secret, and neither is the name
/// of a variable that holds one.
#[must_use]
pub fn is_value(text: &str) -> bool {
    let text = text.trim();
    let off = ["", "none", "null", "false", "true"];
    let is_off = off.iter().any(|off| text.eq_ignore_ascii_case(off));
    !is_off && !is_variable(text)
}

/// The same of a number: those that switch something on or off are no secret.
#[must_use]
pub fn is_number_value(number: i128) -> bool {
    !(-1..=1).contains(&number)
}

/// Whether a text is written as a list or an object, which SimpleTuner reads as one.
#[must_use]
pub fn is_structure(text: &str) -> bool {
    text.trim_start().starts_with(['[', '{']) && !is_variable(text.trim())
}

/// Whether a text is nothing but the name of a variable, such as `$HF_TOKEN`, `${HF_TOKEN}` or `{env:HF_TOKEN}`.
fn is_variable(text: &str) -> bool {
    let braced = |begin: &str| text.strip_prefix(begin)?.strip_suffix('}');
    let name = braced("{env:").or_else(|| braced("${"));
    let name = name.or_else(|| text.strip_prefix('$'));
    name.is_some_and(|name| {
        let letter = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        !name.is_empty() && name.bytes().all(letter)
    })
}
