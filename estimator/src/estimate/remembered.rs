//! Answers of a moment ago. Runs of a sweep differ in what no estimate depends on, and the planner asks about each that
//! waits again and again; so the same question is asked of the same records very often.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use stepcast_records::simpletuner::{Dataset, OffRecord, Workload};
use stepcast_records::{Estimate, HalfMegapixels, Hardware, Note, Phase, Quantiles, UsdMicros};

use crate::index::Index;

/// Bytes that questions of one kind take with their answers, about: some ten thousand ordinary ones. With more different
/// questions than this all are forgotten.
const ROOM_MAX: usize = 16 << 20;
/// One that takes more, as of hundreds of data sets on dozens of hardwares, is asked by somebody who looks around. It is
/// not kept, or a few of them would have all others forgotten.
const ONE_MAX: usize = ROOM_MAX / 64;

/// Everything that an answer depends on beside the records.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) workload: Workload,
    /// Each hardware with its price for an hour: all that offers, the book and the day have to do with the answer.
    pub(super) priced: Vec<(Hardware, Option<UsdMicros>)>,
}

/// What takes room in memory.
pub(super) trait Room {
    /// How many bytes, about.
    fn bytes(&self) -> usize;
}

impl Room for Workload {
    fn bytes(&self) -> usize {
        let validation = self.validation.as_ref();
        let resolutions = validation.map_or(0, |validation| validation.resolutions.len());
        size_of::<Self>()
            + self.datasets.len() * size_of::<Dataset>()
            + size_of_val(self.sharing.datasets.as_slice())
            + self.off_record.len() * size_of::<OffRecord>()
            + resolutions * size_of::<HalfMegapixels>()
    }
}

impl Room for Question {
    fn bytes(&self) -> usize {
        size_of_val(self.priced.as_slice()) + self.workload.bytes()
    }
}

impl Room for (Workload, Hardware) {
    fn bytes(&self) -> usize {
        size_of::<Hardware>() + self.0.bytes()
    }
}

impl Room for Vec<Estimate> {
    fn bytes(&self) -> usize {
        let of_one = |estimate: &Estimate| {
            size_of::<Estimate>()
                + estimate.phases.len() * size_of::<Phase>()
                + estimate.notes.len() * size_of::<Note>()
        };
        size_of::<Self>() + self.iter().map(of_one).sum::<usize>()
    }
}

impl Room for Option<Quantiles> {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
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
    /// Bytes that they take.
    room: usize,
}

impl<Q, A> Default for Answers<Q, A> {
    fn default() -> Self {
        Self(Mutex::new(Known {
            records: Weak::new(),
            answers: HashMap::new(),
            room: 0,
        }))
    }
}

impl<Q, A> Known<Q, A> {
    fn forget(&mut self) {
        self.answers.clear();
        self.room = 0;
    }
}

impl<Q: Hash + Eq + Room, A: Clone + Room> Answers<Q, A> {
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
                known.forget();
            }
            if let Some(answer) = known.answers.get(&question) {
                return Ok(answer.clone());
            }
        }
        let answer = answer()?;
        let bytes = question.bytes() + answer.bytes();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Meanwhile there may be newer records; this answer is none of theirs.
        if bytes <= ONE_MAX && Weak::as_ptr(&known.records) == Arc::as_ptr(records) {
            if known.room + bytes > ROOM_MAX {
                known.forget();
            }
            if known.answers.insert(question, answer.clone()).is_none() {
                known.room += bytes;
            }
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use url::Url;

    use super::*;
    use crate::estimate::tests::example;
    use crate::testing::hardware;
    use crate::{Ask, Estimator, Offer, PriceBook};

    impl Room for u32 {
        fn bytes(&self) -> usize {
            ONE_MAX / 4
        }
    }

    /// Bytes of it.
    impl Room for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

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
        let many = 2 * ROOM_MAX / ONE_MAX;
        for question in 0..many as u32 {
            assert_eq!(ask(&old, question + 10, Ok(question)), Ok(question));
        }
        assert_eq!(ask(&old, 1, Ok(14)), Ok(14), "others have taken its place");
        assert_eq!(asked, 6 + many);
    }

    #[test]
    fn what_is_kept_is_bounded_by_its_size() {
        let answers = Answers::<usize, usize>::default();
        let records = Arc::new(Index::default());
        let mut asked = 0;
        let mut ask = |question, answer| {
            let given = answers.get(&records, question, || {
                asked += 1;
                Ok::<_, ()>(answer)
            });
            assert_eq!(given, Ok(answer));
            let known = answers.0.lock().expect("no panic");
            let room = known.answers.iter().map(|(q, a)| q + a).sum::<usize>();
            assert_eq!(known.room, room);
            assert!(room <= ROOM_MAX);
        };
        for question in 0..200 {
            ask(question, ONE_MAX - question);
        }
        for _ in 0..3 {
            ask(200, ONE_MAX);
        }
        assert_eq!(asked, 203, "a larger one is not kept");
    }

    #[test]
    fn a_large_fleet_is_in_no_question() {
        let base = Url::parse("memory:///bench/").expect("url");
        let estimator = Estimator::over(Arc::new(InMemory::new()), base, PriceBook::shipped());
        let estimator = estimator.expect("estimator");
        let asked = hardware("rtx4090");
        let price = |offers: &[Offer]| {
            let ask = Ask {
                workload: &example(),
                hardware: &[asked],
                offers,
                day: "2026-10-02".parse().expect("day"),
            };
            let estimates = estimator.estimate(&ask).expect("estimates");
            estimates[0].price_usd_micros_per_hour
        };
        let offer = |hardware, dollars: u64| Offer {
            hardware,
            price_per_hour: Some(UsdMicros(dollars * 1_000_000)),
        };
        let others = (1..2_000).map(|dollars| offer(self::hardware("h100"), dollars));
        let fleet: Vec<Offer> = others.chain([offer(asked, 3), offer(asked, 2)]).collect();
        let kept = || {
            let known = estimator.remembered().estimates.0.lock().expect("no panic");
            (known.answers.len(), known.room < 10_000)
        };
        assert_eq!(price(&fleet), Some(2_000_000));
        assert_eq!(price(&[offer(asked, 2)]), Some(2_000_000));
        assert_eq!(kept(), (1, true), "it is the same question");
        assert_eq!(price(&[offer(asked, 3)]), Some(3_000_000));
        assert_eq!(kept(), (2, true));
    }
}
