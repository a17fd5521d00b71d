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
pub(in crate::placement) struct Classes {
    levels: [BTreeMap<Key, Class>; LEVELS.len()],
    /// The lines by how long their jobs take where they are fastest, in milliseconds.
    lengths: BTreeSet<(u64, i64, JobId, LineId)>,
}

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
    /// By what they need, and of those with the same needs the longest first.
    lines: BTreeSet<Entry>,
}

/// A line by its needs and by how long its jobs take where they are fastest in milliseconds, the longest first.
type Entry = (u32, Reverse<u64>, i64, JobId, LineId);

/// A class as work.
pub(in crate::placement) struct Group<'a> {
    pub(in crate::placement) work: Work,
    /// No job of it takes longer where it is fastest, in milliseconds.
    pub(in crate::placement) most_ms: f64,
    class: &'a Class,
}

impl Classes {
    /// Takes a line in.
    pub(super) fn add(&mut self, known: &Known, id: LineId) {
        let ms: Vec<Option<u128>> = whole_ms(known).collect();
        for (level, classes) in zip(LEVELS, &mut self.levels) {
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
        self.lengths.insert(length(known, id));
    }

    /// Takes a line out, as it was taken in.
    pub(super) fn remove(&mut self, known: &Known, id: LineId) {
        let ms: Vec<Option<u128>> = whole_ms(known).collect();
        for (level, classes) in zip(LEVELS, &mut self.levels) {
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
        self.lengths.remove(&length(known, id));
    }

    /// Has so many jobs stand in a line of which it was taken in as it is known.
    pub(super) fn recount(&mut self, known: &Known, count: usize) {
        let ms: Vec<Option<u128>> = whole_ms(known).collect();
        for (level, classes) in zip(LEVELS, &mut self.levels) {
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

    /// The line whose jobs take the longest where they are fastest.
    pub(super) fn longest(&self) -> Option<LineId> {
        self.lengths.last().map(|(.., line)| *line)
    }

    /// All of the work in so few pieces that it can be spread in a moment, and one job of the longest line by itself, if it
    /// is not all of its class: nothing is done sooner than that job, however short the others are.
    pub(super) fn groups(&self, longest: Option<&Known>) -> (Vec<Group<'_>>, Option<Work>) {
        let few = (0..LEVELS.len()).find(|level| self.levels[*level].len() <= PIECES);
        let level = few.unwrap_or(LEVELS.len() - 1);
        let longest = longest.map(|known| {
            let ms: Vec<Option<u128>> = whole_ms(known).collect();
            (Key::of(known.width, &ms, LEVELS[level]), ms)
        });
        let mut apart = None;
        let groups = self.levels[level].iter().map(|(key, class)| {
            let one = longest
                .as_ref()
                .filter(|(of, _)| of == key && class.jobs > 1);
            let one = one.map(|(_, ms)| &ms[..]);
            apart = apart.take().or_else(|| one.map(|ms| single(key.width, ms)));
            Group::of(key.width, class, one, key.most_ms(LEVELS[level]))
        });
        let groups = groups.collect();
        (groups, apart)
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

    /// What no job of the class takes longer than where it is fastest, in milliseconds.
    fn most_ms(&self, (length, _): (i16, i16)) -> f64 {
        /// Beside what numbers are rounded by.
        const NEARLY: f64 = 1.0 + 1e-9;
        let last = f64::from(self.length) * f64::from(length) + f64::from(length - 1);
        ((last + 0.5) / FINE).exp2() * NEARLY
    }
}

impl<'a> Group<'a> {
    /// All of a class, but one job if it is said what that takes on each model.
    fn of(width: u8, class: &'a Class, without: Option<&[Option<u128>]>, most_ms: f64) -> Self {
        let jobs = class.jobs - u64::from(without.is_some());
        let one = |model: usize| without.and_then(|ms| ms[model]).unwrap_or(0);
        let hours = class.ms.iter().enumerate().map(|(model, ms)| match *ms {
            // Of a class all have the same models.
            0 => f64::INFINITY,
            ms => ((ms - one(model)) as f64 / jobs as f64).max(1.0),
        });
        let work = Work {
            width: f64::from(width),
            count: jobs as f64,
            hours: hours.collect(),
        };
        Self {
            work,
            most_ms,
            class,
        }
    }

    /// What the mean job takes where it is fastest, in milliseconds.
    pub(in crate::placement) fn mean_ms(&self) -> f64 {
        self.work
            .hours
            .iter()
            .copied()
            .fold(f64::INFINITY, f64::min)
    }

    /// The lines, each with what a job takes where it is fastest in milliseconds.
    pub(in crate::placement) fn lines(&self) -> impl Iterator<Item = (f64, LineId)> + use<'a> {
        let lines = self.class.lines.iter();
        lines.map(|(_, Reverse(ms), _, _, line)| (*ms as f64, *line))
    }

    /// The same of those with the same needs, those of longer jobs first.
    pub(in crate::placement) fn lines_in(
        &self,
        bucket: u32,
    ) -> impl Iterator<Item = (f64, LineId)> + use<'a> {
        let first = (bucket, Reverse(u64::MAX), i64::MIN, JobId(0), 0);
        let last = (bucket, Reverse(0), i64::MAX, JobId(u64::MAX), LineId::MAX);
        let lines = self.class.lines.range(first..=last);
        lines.map(|(_, Reverse(ms), _, _, line)| (*ms as f64, *line))
    }
}

/// What all of a job takes on each model, in milliseconds.
fn whole_ms(known: &Known) -> impl Iterator<Item = Option<u128>> {
    let left = known.left.iter();
    left.map(|left| left.map(|left| left.p50_ms.max(1.0) as u128))
}

/// What all of a job takes where it is fastest, in milliseconds.
fn fastest_ms(known: &Known) -> u64 {
    whole_ms(known).flatten().min().unwrap_or(0) as u64
}

fn entry(known: &Known, id: LineId) -> Entry {
    let (order, first) = known.head;
    (known.bucket, Reverse(fastest_ms(known)), order, first, id)
}

fn length(known: &Known, id: LineId) -> (u64, i64, JobId, LineId) {
    let (order, first) = known.head;
    (fastest_ms(known), order, first, id)
}

/// One job as work.
fn single(width: u8, ms: &[Option<u128>]) -> Work {
    let hours = ms.iter().map(|ms| ms.map_or(f64::INFINITY, |ms| ms as f64));
    Work {
        width: f64::from(width),
        count: 1.0,
        hours: hours.collect(),
    }
}
