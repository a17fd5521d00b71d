//! Whether lists of all jobs, taken while jobs come in, can be moments of one growing set.
//!
//! Each list is a snapshot, so of any two lists one contains the other; the smaller one is the earlier, so it must not
//! have begun after the larger one had ended; and a job is in every list that begins after it was acknowledged and in
//! none that ended before it was sent.

use std::collections::{BTreeMap, BTreeSet};

/// One list of everything, with when it was under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// When it was asked for.
    pub start: u64,
    /// When it was there.
    pub end: u64,
    /// The names in it.
    pub names: BTreeSet<String>,
}

/// When a job was first sent, and when it was acknowledged if it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// First sent.
    pub start: u64,
    /// Acknowledged.
    pub end: Option<u64>,
}

/// Everything that is wrong, a sentence each.
#[must_use]
pub fn violations(lists: &[List], sent: &BTreeMap<String, Sent>) -> Vec<String> {
    let mut wrong = Vec::new();
    for list in lists {
        for name in &list.names {
            match sent.get(name) {
                None => wrong.push(format!("{name} is listed and nobody submitted it")),
                Some(sent) if sent.start > list.end => {
                    wrong.push(format!("{name} is listed before it was sent"));
                }
                Some(_) => {}
            }
        }
        for (name, sent) in sent {
            if sent.end.is_some_and(|end| end < list.start) && !list.names.contains(name) {
                wrong.push(format!(
                    "{name} was acknowledged at {:?} and is not in the list of {} to {}",
                    sent.end, list.start, list.end
                ));
            }
        }
    }
    let mut by_size: Vec<&List> = lists.iter().collect();
    by_size.sort_by_key(|list| (list.names.len(), list.start));
    for pair in by_size.windows(2) {
        if let Some(name) = pair[0].names.difference(&pair[1].names).next() {
            wrong.push(format!(
                "the lists of {} to {} and of {} to {} are no moments of one growing set: only the smaller one has {name}",
                pair[0].start, pair[0].end, pair[1].start, pair[1].end
            ));
        }
    }
    // From the largest to the smallest: none may have begun after one that has more had ended.
    let mut first_end_of_larger = u64::MAX;
    let mut rest = by_size.iter().rev().peekable();
    while let Some(list) = rest.next() {
        let mut first_end = list.end;
        let mut same = vec![*list];
        while let Some(other) = rest.next_if(|other| other.names.len() == list.names.len()) {
            first_end = first_end.min(other.end);
            same.push(other);
        }
        for list in same.iter().filter(|list| list.start > first_end_of_larger) {
            wrong.push(format!(
                "the list of {} to {} lacks what a list that had ended before it had",
                list.start, list.end
            ));
        }
        first_end_of_larger = first_end_of_larger.min(first_end);
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(start: u64, end: u64, names: &[&str]) -> List {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        List { start, end, names }
    }

    fn sent(of: &[(&str, u64, Option<u64>)]) -> BTreeMap<String, Sent> {
        of.iter()
            .map(|(name, start, end)| {
                let sent = Sent {
                    start: *start,
                    end: *end,
                };
                ((*name).to_owned(), sent)
            })
            .collect()
    }

    #[test]
    fn a_growing_set_is_accepted() {
        let sent = sent(&[("a", 0, Some(5)), ("b", 1, None), ("c", 4, Some(20))]);
        let lists = [
            list(2, 6, &[]),
            list(3, 7, &["a"]),
            list(8, 9, &["a"]),
            list(8, 12, &["a", "c"]),
            list(21, 22, &["a", "b", "c"]),
        ];
        assert_eq!(violations(&lists, &sent), [""; 0]);
    }

    #[test]
    fn a_lost_an_early_and_an_unknown_job_are_found() {
        let sent = sent(&[("a", 0, Some(1)), ("b", 8, Some(9))]);
        assert_eq!(violations(&[list(2, 3, &[])], &sent).len(), 1);
        assert_eq!(violations(&[list(2, 3, &["a", "b"])], &sent).len(), 1);
        assert_eq!(violations(&[list(2, 3, &["a", "z"])], &sent).len(), 1);
    }

    #[test]
    fn lists_that_disagree_on_the_order_are_found() {
        let sent = sent(&[("a", 0, None), ("b", 0, None)]);
        let lists = [list(1, 9, &["a"]), list(1, 9, &["b"])];
        assert_eq!(violations(&lists, &sent).len(), 1);
    }

    #[test]
    fn a_list_that_steps_back_is_found() {
        let sent = sent(&[("a", 0, None)]);
        let lists = [list(1, 2, &["a"]), list(3, 4, &[])];
        assert_eq!(violations(&lists, &sent).len(), 1);
    }
}
