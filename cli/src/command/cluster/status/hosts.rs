//! What of the hosts under the nodes somebody should look at: certificates that end soon.

use prost_types::Timestamp;

use crate::output::time;

/// A certificate that ends within so many seconds is told, three days: what renews them by itself has done so long before.
const SOON_SECONDS: i64 = 3 * 86_400;

/// What to say of a node's certificate, which ends then; both in seconds since 1970.
pub(super) fn certificate(id: u64, end: i64, now: i64) -> Option<String> {
    let day = time::utc_day(Some(&Timestamp {
        seconds: end,
        nanos: 0,
    }));
    let ends = match end - now {
        ..=0 => format!("has ended on {day}, so whoever calls refuses it"),
        1..=SOON_SECONDS => format!("ends on {day}"),
        _ => return None,
    };
    Some(format!(
        "n{id}: its certificate {ends}: put a new one with its key into the files that --tls-cert and --tls-key name; it is \
         shown within a minute, without a restart"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_when_it_ends_soon_or_has_ended() {
        let end = 1_795_824_000;
        assert_eq!(certificate(2, end, end - SOON_SECONDS - 1), None);
        let soon = certificate(2, end, end - SOON_SECONDS).expect("a line");
        assert!(
            soon.starts_with("n2: its certificate ends on 2026-11-28: "),
            "{soon}"
        );
        let over = certificate(2, end, end).expect("a line");
        assert!(over.contains("has ended on 2026-11-28"), "{over}");
    }
}
