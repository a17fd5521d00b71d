//! Whether the watches of a job told one story: without a gap, a repeat or a step back, across servers.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::jobs::Stand;

/// One thing that a watcher was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It watches: for the first time, or again because its stream broke, and then it says which event was its last.
    /// Whatever it has missed is told first.
    Opened,
    /// The job as it is: once on each stream.
    Current {
        /// Number of the newest event in it.
        seq: u64,
        /// Where it stands.
        stand: Stand,
    },
    /// The next event.
    Event {
        /// Its number.
        seq: u64,
        /// What it says, as text; the same for everybody.
        what: String,
        /// Where the job stands after it.
        stand: Stand,
    },
    /// The stream ended by itself: nothing can follow.
    Ended,
}

/// Everything that is wrong with what the watchers of one job were told, each in its own order; a sentence each.
#[must_use]
pub fn violations(job: &str, watchers: &[Vec<Told>]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut story: BTreeMap<u64, String> = BTreeMap::new();
    let mut stands: BTreeMap<u64, Stand> = BTreeMap::new();
    let mut agree = |seq: u64, stand: Stand, what: Option<&String>| {
        let first = *stands.entry(seq).or_insert(stand);
        let told = what.map(|what| story.entry(seq).or_insert_with(|| what.clone()).clone());
        (first == stand && told.as_ref() == what)
            .then_some(())
            .ok_or_else(|| {
                format!(
                    "{job}: event {seq} is told in two ways: {first:?} {told:?}, {stand:?} {what:?}"
                )
            })
    };
    for (number, watcher) in watchers.iter().enumerate() {
        let mut last: Option<(u64, Stand)> = None;
        // The job itself was not told yet on the stream that is open.
        let mut fresh = true;
        for told in watcher {
            let seen = last.map_or(0, |(seq, _)| seq);
            let complaint = match told {
                Told::Opened => {
                    fresh = true;
                    None
                }
                Told::Current { .. } if !fresh => Some("its value came in the middle".to_owned()),
                Told::Current { seq, .. } if *seq < seen => {
                    Some(format!("it stepped back from event {seen} to {seq}"))
                }
                Told::Current { seq, .. } if *seq > seen && last.is_some() => Some(format!(
                    "it knew event {seen} and went on with {seq}: a gap"
                )),
                Told::Event { seq, .. } if fresh && last.is_none() => {
                    Some(format!("it began with event {seq} and not with the job"))
                }
                Told::Event { seq, .. } if *seq <= seen => {
                    Some(format!("event {seq} came after {seen}"))
                }
                Told::Event { seq, .. } if *seq > seen + 1 => {
                    Some(format!("event {seq} came after {seen}: a gap"))
                }
                Told::Event { seq, .. } if last.is_some_and(|(_, stand)| stand.is_over()) => {
                    Some(format!("event {seq} came after the end"))
                }
                Told::Ended if !last.is_some_and(|(_, stand)| stand.is_over()) => {
                    Some(format!("it ended after event {seen} and the job goes on"))
                }
                Told::Current { .. } | Told::Event { .. } | Told::Ended => None,
            };
            wrong.extend(complaint.map(|what| format!("{job}: watcher {number}: {what}")));
            match told {
                Told::Current { seq, stand } => {
                    wrong.extend(agree(*seq, *stand, None).err());
                    (last, fresh) = (Some((*seq, *stand)), false);
                }
                Told::Event { seq, what, stand } => {
                    wrong.extend(agree(*seq, *stand, Some(what)).err());
                    last = Some((*seq, *stand));
                }
                Told::Opened | Told::Ended => {}
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current(seq: u64, stand: Stand) -> Told {
        Told::Current { seq, stand }
    }

    fn event(seq: u64, stand: Stand) -> Told {
        let what = format!("{stand:?} at {seq}");
        Told::Event { seq, what, stand }
    }

    fn wrong(told: Vec<Told>) -> usize {
        violations("jobs/a", &[told]).len()
    }

    #[test]
    fn a_watch_across_a_broken_stream_is_accepted() {
        let one = vec![
            Told::Opened,
            current(1, Stand::Pending),
            event(2, Stand::Running),
            Told::Opened,
            Told::Opened,
            event(3, Stand::Running),
            event(4, Stand::Running),
            current(4, Stand::Running),
            event(5, Stand::Succeeded),
            Told::Ended,
        ];
        let other = vec![
            Told::Opened,
            current(2, Stand::Running),
            event(3, Stand::Running),
            event(4, Stand::Running),
        ];
        assert_eq!(violations("jobs/a", &[one, other]), [""; 0]);
    }

    #[test]
    fn a_gap_a_repeat_and_a_step_back_are_found() {
        let start = || vec![Told::Opened, current(3, Stand::Running)];
        for (next, count) in [
            (vec![event(5, Stand::Running)], 1),
            (vec![event(3, Stand::Running)], 1),
            (vec![Told::Opened, current(2, Stand::Pending)], 1),
            (vec![current(4, Stand::Running)], 1),
            (vec![Told::Opened, current(5, Stand::Running)], 1),
            (vec![Told::Opened, event(5, Stand::Running)], 1),
            (vec![Told::Ended], 1),
            (vec![event(4, Stand::Failed), event(5, Stand::Running)], 1),
            (vec![event(4, Stand::Failed), Told::Ended], 0),
        ] {
            let mut told = start();
            told.extend(next.clone());
            assert_eq!(wrong(told), count, "{next:?}");
        }
        assert_eq!(wrong(vec![Told::Opened, event(1, Stand::Pending)]), 1);
    }

    #[test]
    fn two_stories_of_one_event_are_found() {
        let one = vec![
            Told::Opened,
            current(1, Stand::Pending),
            event(2, Stand::Running),
        ];
        let mut other = one.clone();
        other[2] = event(2, Stand::Cancelled);
        assert_eq!(violations("jobs/a", &[one, other]).len(), 1);
    }
}
