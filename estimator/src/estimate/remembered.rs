//! Answers of a moment ago. Runs of a sweep differ in what no estimate depends on, and the planner asks about each that
//! waits again and again; so the same question is asked of the same records very often.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use stepcast_records::simpletuner::Workload;
use stepcast_records::{Estimate, Hardware, Quantiles};

use super::Offer;
use crate::index::Index;
use crate::price::Day;

/// Answers kept at most, some megabytes; with more different questions than this all are forgotten.
const ANSWERS_MAX: usize = 4_096;

/// Everything that an answer depends on beside the records.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) workload: Workload,
    pub(super) hardware: Vec<Hardware>,
    pub(super) offers: Vec<Offer>,
    pub(super) day: Day,
    /// The version of the imported prices.
    pub(super) prices: u64,
}

/// What was answered lately.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    pub(super) estimates: Answers<Question, Vec<Estimate>>,
    pub(super) forecasts: Answers<(Workload, Hardware), Option<Quantiles>>,
}

/// Answers to one kind of question, all of the same records.
#[derive(Debug)]
pub(super) struct Answers<Q, A>(Mutex<Known<Q, A>>);

#[derive(Debug)]
struct Known<Q, A> {
    /// Kept weakly, so that they can be told from newer ones and take no room.
    records: Weak<Index>,
    answers: HashMap<Q, A>,
}

impl<Q, A> Default for Answers<Q, A> {
    fn default() -> Self {
        Self(Mutex::new(Known {
            records: Weak::new(),
            answers: HashMap::new(),
        }))
    }
}

impl<Q: Hash + Eq, A: Clone> Answers<Q, A> {
    /// The answer of these records that was given before, or a new one. What fails is not remembered.
    pub(super) fn get<E>(
        &self,
        records: &Arc<Index>,
        question: Q,
        answer: impl FnOnce() -> Result<A, E>,
    ) -> Result<A, E> {
        {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if Weak::as_ptr(&known.records) != Arc::as_ptr(records) {
                known.records = Arc::downgrade(records);
                known.answers.clear();
            }
            if let Some(answer) = known.answers.get(&question) {
                return Ok(answer.clone());
            }
        }
        let answer = answer()?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Meanwhile there may be newer records; this answer is none of theirs.
        if Weak::as_ptr(&known.records) == Arc::as_ptr(records) {
            if known.answers.len() >= ANSWERS_MAX {
                known.answers.clear();
            }
            known.answers.insert(question, answer.clone());
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_until_the_records_change_and_a_failure_is_not() {
        let answers = Answers::<u32, u32>::default();
        let (old, new) = (Arc::new(Index::default()), Arc::new(Index::default()));
        let mut asked = 0;
        let mut ask = |records: &Arc<Index>, question, answer: Result<u32, ()>| {
            answers.get(records, question, || {
                asked += 1;
                answer
            })
        };
        assert_eq!(ask(&old, 1, Err(())), Err(()));
        assert_eq!(ask(&old, 1, Ok(10)), Ok(10));
        assert_eq!(ask(&old, 1, Ok(11)), Ok(10));
        assert_eq!(ask(&old, 2, Ok(20)), Ok(20));
        assert_eq!(ask(&new, 1, Ok(12)), Ok(12));
        assert_eq!(ask(&old, 1, Ok(13)), Ok(13));
        for question in 0..=ANSWERS_MAX as u32 {
            assert_eq!(ask(&old, question + 10, Ok(question)), Ok(question));
        }
        assert_eq!(ask(&old, 1, Ok(14)), Ok(14), "others have taken its place");
        assert_eq!(asked, 7 + ANSWERS_MAX);
    }
}
