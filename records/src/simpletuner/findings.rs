//! What reading a configuration brings to light, gathered so that a person sees all of it at once.

use std::collections::BTreeSet;

use super::note::Note;
use super::off_record::OffRecord;
use super::problem::{Problem, Problems};

/// Problems, notes and reasons to stay off the record.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: Vec<Problem>,
    unlisted: usize,
    notes: BTreeSet<Note>,
    off_record: BTreeSet<OffRecord>,
    searches: usize,
}

/// Problems that are listed at most: a file with more of them is no configuration.
const MAX_PROBLEMS: usize = 100;

/// Searches for the word that was meant at most, beside those of problems: each looks at every known word.
const MAX_SEARCHES: usize = 1_000;

impl Findings {
    /// Adds a problem.
    pub(super) fn problem(
        &mut self,
        file: &str,
        path: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if self.problems.len() == MAX_PROBLEMS {
            self.unlisted += 1;
            return;
        }
        let file = file.to_owned();
        self.problems.push(Problem {
            file,
            path: path.into(),
            what: what.into(),
            hint: hint.into(),
        });
    }

    /// Adds a note.
    pub(super) fn note(&mut self, note: Note) {
        self.notes.insert(note);
    }

    /// Notes that a setting takes its default.
    pub(super) fn assumed(&mut self, setting: &'static str, value: &'static str) {
        self.note(Note::Default { setting, value });
    }

    /// Takes the run off the record because of a setting.
    pub(super) fn off_record(&mut self, setting: &'static str, reason: OffRecord) {
        self.note(Note::NotComparable { setting, reason });
        self.off_record.insert(reason);
    }

    /// What a search for the word that was meant finds; nothing any more in a file with too many unknown words.
    pub(super) fn search<T>(&mut self, search: impl FnOnce() -> Option<T>) -> Option<T> {
        self.searches += 1;
        if self.searches <= MAX_SEARCHES {
            search()
        } else {
            None
        }
    }

    /// Whether there is a problem so far.
    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Whether there is room for another problem, so that a search for more of them can end.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() == MAX_PROBLEMS
    }

    /// The reasons to stay off the record, sorted.
    pub(super) fn reasons(&self) -> Vec<OffRecord> {
        self.off_record.iter().copied().collect()
    }

    /// The notes, if there is no problem.
    pub(super) fn into_notes(self) -> Result<Vec<Note>, Problems> {
        if self.has_problems() {
            return Err(self.into_problems());
        }
        Ok(self.notes.into_iter().collect())
    }

    /// The problems, with how many more there are.
    pub(super) fn into_problems(mut self) -> Problems {
        if let Some(last) = self.problems.last().filter(|_| self.unlisted > 0) {
            let file = last.file.clone();
            let what = format!("{} more problems are not listed", self.unlisted);
            let hint = "correct these first".to_owned();
            self.problems.push(Problem {
                file,
                path: "$".to_owned(),
                what,
                hint,
            });
        }
        Problems(self.problems)
    }
}
