//! Random numbers from the operating system, for tokens, names nobody can guess, and waits that do not fall together.

use std::fs::File;
use std::io::Read;

/// Bytes from the system's random source.
pub fn bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// 128 random bits as 32 hexadecimal digits.
pub fn token() -> std::io::Result<String> {
    Ok(hex(&bytes::<16>()?))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number in `0..below`, for jitter. Falls back to 0 where there is no random source.
pub fn below(below: u64) -> u64 {
    let number = bytes::<8>().map_or(0, u64::from_le_bytes);
    if below == 0 { 0 } else { number % below }
}

/// The bytes that hexadecimal digits stand for.
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits
        .len()
        .is_multiple_of(2)
        .then(|| pairs.map(byte).collect())
        .flatten()
}
