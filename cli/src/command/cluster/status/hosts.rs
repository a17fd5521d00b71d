//! What of the hosts under the nodes somebody should look at: certificates that end soon, and clocks that differ.

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

/// Clocks of hosts that are kept right differ by less, in milliseconds; what a node knows of its own is right to two seconds.
const APART_MS: i64 = 5_000;

/// What to say of the nodes' clocks: by how many milliseconds each is ahead of the cluster's time. That is the leader's to
/// tell, and may be the one that is wrong; so a clock is compared with the middle one.
pub(super) fn clocks(said: &[(u64, i64)]) -> Vec<String> {
    const HINT: &str = "keep the clocks of all hosts right (chrony, or another client of NTP)";
    let mut sorted: Vec<i64> = said.iter().map(|(_, ahead)| *ahead).collect();
    sorted.sort_unstable();
    let Some(middle) = sorted.get(sorted.len() / 2).copied() else {
        return Vec::new();
    };
    let is_apart = |ms: i64| ms.saturating_abs() > APART_MS;
    let apart = |ms: i64| {
        let way = if ms > 0 { "ahead of" } else { "behind" };
        let span = time::rough_span(ms.unsigned_abs() as f64 / 1e3);
        format!("{span} {way}")
    };
    // Of two nobody can say which is wrong.
    if let [(first, one), (second, other)] = *said {
        let between = other.saturating_sub(one);
        if is_apart(between) {
            return vec![format!(
                "the clock of n{second} is {} that of n{first}: {HINT}",
                apart(between)
            )];
        }
    }
    let mut lines: Vec<String> = said
        .iter()
        .map(|(id, ahead)| (id, ahead.saturating_sub(middle)))
        .filter(|(_, off)| is_apart(*off))
        .map(|(id, off)| {
            format!(
                "n{id}: its clock is {} those of the other nodes: {HINT}",
                apart(off)
            )
        })
        .collect();
    if is_apart(middle) {
        lines.push(format!(
            "the clocks of the nodes are {} the cluster's time, which never goes back and follows no large leap: what waits \
             for a time of day comes too {}",
            apart(middle),
            if middle > 0 { "late" } else { "early" }
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_whose_clock_is_off_is_named_whether_it_leads_or_not() {
        assert!(clocks(&[]).is_empty());
        assert!(clocks(&[(1, 0), (2, 4_000), (3, -900)]).is_empty());
        let named = |said: &[(u64, i64)]| clocks(said).join("\n");
        let follower = named(&[(1, 0), (2, -35_000), (3, 1_200)]);
        assert_eq!(
            follower,
            "n2: its clock is 35s behind those of the other nodes: keep the clocks of all hosts right (chrony, or another \
             client of NTP)"
        );
        // The leader's is the cluster's time, so the others say that they are behind.
        let leader = named(&[(1, 0), (2, -35_000), (3, -34_000)]);
        assert!(
            leader.starts_with("n1: its clock is 34s ahead of those"),
            "{leader}"
        );
        assert!(
            leader.contains("\nthe clocks of the nodes are 34s behind the cluster's time"),
            "{leader}"
        );
        let two = named(&[(1, 0), (2, 35_000)]);
        assert!(
            two.starts_with("the clock of n2 is 35s ahead of that of n1: "),
            "{two}"
        );
        let alone = named(&[(1, 7_200_000)]);
        assert!(
            alone.starts_with("the clocks of the nodes are 2h 00m ahead of the cluster's time")
                && alone.ends_with("comes too late"),
            "{alone}"
        );
    }

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
