//! Waiting work of about the same kind taken together, so that what the hardware is worth can be told from some hundred
//! pieces, however many lines there are.
//!
//! Lines of one width whose jobs take about as long on every model are a class, by halves of a power of two. Where that
//! makes too many classes, those are taken together whose models compare about the same, by length in larger steps or
//! whatever the length. What is summed are whole numbers, so the order in which jobs came and went plays no part.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::zip;

use super::line::Known;
use super::queue::LineId;
use crate::ids::JobId;
use crate::policy::balance::Work;

/// Pieces that the hardware's worth is told from.
const PIECES: usize = 256;

/// How many steps of a power of two are taken together, of lengths and of how models compare, where there is more and more
/// that differs. Any length is one step in the end.
const LEVELS: [(i16, i16); 3] = [(1, 1), (4, 2), (i16::MAX, 2)];

/// Steps in a power of two.
const FINE: f64 = 2.0;

/// Where a job cannot run.
const NOWHERE: i16 = i16::MAX;

/// Waiting work by classes, in smaller and in larger ones.
#[derive(Default)]
pub(in crate::placement) struct Classes([BTreeMap<Key, Class>; LEVELS.len()]);

/// What the lines of a class have in common: the width, and about how long they take on each model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    width: u8,
    length: i16,
    /// How much longer they take on each model than on the best.
    models: Vec<i16>,
}

/// Lines of a class.
struct Class {
    jobs: u64,
    /// What all of them take on each model, in milliseconds.
    ms: Vec<u128>,
    /// The longest first.
    lines: BTreeSet<Entry>,
}

/// A line by how long its jobs take where they are fastest in milliseconds, the longest first.
type Entry = (Reverse<u64>, i64, JobId, LineId);

/// A class as work.
pub(in crate::placement) struct Group<'a> {
    pub(in crate::placement) work: Work,
    class: &'a Class,
}

impl Classes {
    /// Takes a line in.
    pub(super) fn add(&mut self, known: &Known, id: LineId) {
        let ms: Vec<Option<u128>> = whole_ms(known).collect();
        for (level, classes) in zip(LEVELS, &mut self.0) {
            let class = classes
                .entry(Key::of(known.width, &ms, level))
                .or_insert_with(|| Class {
                    jobs: 0,
                    ms: vec![0; ms.len()],
                    lines: BTreeSet::new(),
                });
            class.jobs += known.count as u64;
            for (sum, left) in zip(&mut class.ms, &ms) {
                *sum += left.unwrap_or(0) * known.count as u128;
            }
            class.lines.insert(entry(known, id));
        }
    }

    /// Takes a line out, as it was taken in.
    pub(super) fn remove(&mut self, known: &Known, id: LineId) {
        let ms: Vec<Option<u128>> = whole_ms(known).collect();
        for (level, classes) in zip(LEVELS, &mut self.0) {
            let key = Key::of(known.width, &ms, level);
            let Some(class) = classes.get_mut(&key) else {
                continue;
            };
            class.jobs -= known.count as u64;
            for (sum, left) in zip(&mut class.ms, &ms) {
                *sum -= left.unwrap_or(0) * known.count as u128;
            }
            class.lines.remove(&entry(known, id));
            if class.lines.is_empty() {
                classes.remove(&key);
            }
        }
    }

    /// Has so many jobs stand in a line of which it was taken in as it is known.
    pub(super) fn recount(&mut self, known: &Known, count: usize) {
        let ms: Vec<Option<u128>> = whole_ms(known).collect();
        for (level, classes) in zip(LEVELS, &mut self.0) {
            let Some(class) = classes.get_mut(&Key::of(known.width, &ms, level)) else {
                continue;
            };
            class.jobs = class.jobs - known.count as u64 + count as u64;
            for (sum, left) in zip(&mut class.ms, &ms) {
                let one = left.unwrap_or(0);
                *sum = *sum - one * known.count as u128 + one * count as u128;
            }
        }
    }

    /// All of the work in so few pieces that it can be spread in a moment.
    pub(in crate::placement) fn groups(&self) -> Vec<Group<'_>> {
        let last = &self.0[LEVELS.len() - 1];
        let few = self.0.iter().find(|classes| classes.len() <= PIECES);
        let classes = few.unwrap_or(last).iter();
        classes
            .map(|(key, class)| Group::of(key.width, class))
            .collect()
    }
}

impl Key {
    fn of(width: u8, ms: &[Option<u128>], (length, models): (i16, i16)) -> Self {
        let step = |ms: u128| ((ms as f64).log2() * FINE).round() as i16;
        let best = ms.iter().flatten().min().map_or(0, |ms| step(*ms));
        // Many times slower is no place to run, however many times it is.
        let compared = |ms: u128| (step(ms) - best).min(8) / models;
        Self {
            width,
            length: best / length,
            models: ms.iter().map(|ms| ms.map_or(NOWHERE, compared)).collect(),
        }
    }
}

impl<'a> Group<'a> {
    fn of(width: u8, class: &'a Class) -> Self {
        let hours = class.ms.iter().map(|ms| match *ms {
            // Of a class all have the same models.
            0 => f64::INFINITY,
            ms => (ms as f64 / class.jobs as f64).max(1.0),
        });
        let work = Work {
            width: f64::from(width),
            count: class.jobs as f64,
            hours: hours.collect(),
        };
        Self { work, class }
    }

    /// What the mean job takes where it is fastest, in milliseconds.
    pub(in crate::placement) fn mean_ms(&self) -> f64 {
        self.work
            .hours
            .iter()
            .copied()
            .fold(f64::INFINITY, f64::min)
    }

    /// The lines, those of longer jobs first, each with what a job takes where it is fastest in milliseconds.
    pub(in crate::placement) fn lines(&self) -> impl Iterator<Item = (f64, LineId)> + use<'a> {
        let lines = self.class.lines.iter();
        lines.map(|(Reverse(ms), _, _, line)| (*ms as f64, *line))
    }
}

/// What all of a job takes on each model, in milliseconds.
fn whole_ms(known: &Known) -> impl Iterator<Item = Option<u128>> {
    let left = known.left.iter();
    left.map(|left| left.map(|left| left.p50_ms.max(1.0) as u128))
}

fn entry(known: &Known, id: LineId) -> Entry {
    let fastest = whole_ms(known).flatten().min().unwrap_or(0);
    let (order, first) = known.head;
    (Reverse(fastest as u64), order, first, id)
}
