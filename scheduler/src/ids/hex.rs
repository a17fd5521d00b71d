//! Random ids of fixed width, drawn outside and written in hexadecimal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;

macro_rules! hex_id {
    ($name:ident, $bytes:literal, $expected:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                read(text).map(Self).ok_or(Error {
                    expected: $expected,
                })
            }
        }
    };
}

hex_id!(
    RequestId,
    16,
    "a request id of 32 hexadecimal digits",
    "One wish of a caller: sent twice, it takes effect once."
);
hex_id!(
    InstanceId,
    16,
    "an instance id of 32 hexadecimal digits",
    "One worker's state folder: two processes with one token differ in it."
);
hex_id!(
    OutputsId,
    16,
    "an id of a folder for results of 32 hexadecimal digits",
    "One folder for results: workers that say the same share it, and go on from each other's checkpoints."
);
hex_id!(
    StagingId,
    16,
    "a staging id of 32 hexadecimal digits",
    "Where the files of one submission wait. Random, and unlike the job's id."
);
hex_id!(
    TokenHash,
    32,
    "a token hash of 64 hexadecimal digits",
    "The hash of a worker's token. The token itself is never in the log."
);

fn read<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let high = char::from(digits[0]).to_digit(16)?;
        let low = char::from(digits[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_read_as_it_is_written() {
        let text = "00ff10a0b0c0d0e0f00102030405060a";
        assert_eq!(
            text.parse::<RequestId>().map(|id| id.to_string()),
            Ok(text.to_owned())
        );
        for other in [
            "",
            "00",
            "zzff10a0b0c0d0e0f00102030405060a",
            "+1ff10a0b0c0d0e0f00102030405060a",
        ] {
            assert!(other.parse::<RequestId>().is_err(), "{other}");
        }
    }
}
