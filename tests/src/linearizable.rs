//! Whether what callers saw of one object can be put into one order that respects time: linearizability.
//!
//! The search is that of Wing and Gong (1993) with Lowe's memory of configurations (2017): it takes calls in every order
//! that their times allow, steps a sequential model, and never looks twice at the same set of calls done with the same
//! state. A history is checked one object at a time, for linearizability holds for all objects if it holds for each.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// Configurations looked at before the search gives up: some GiB of memory would follow, and no history of a test with a
/// dozen callers of one object comes near.
const CONFIGURATIONS: usize = 4_000_000;

/// One object as if its calls came one after the other.
pub trait Model {
    /// What the object holds.
    type State: Clone + Debug + Eq + Hash;
    /// A call with its answer. A call without a known answer is one that may do what it asked for.
    type Call: Debug;

    /// What it holds before the first call.
    fn initial(&self) -> Self::State;

    /// What it holds after the call; `None` if the call cannot have been answered so.
    fn step(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// A call and when it was under way, by one clock of any unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed<C> {
    /// The call with its answer.
    pub call: C,
    /// When it began.
    pub start: u64,
    /// When its answer came. `None`: nobody knows whether it took effect, or when; it may still do so after everything else.
    pub end: Option<u64>,
}

/// Why a history is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No order explains it. The calls that the longest explained order leaves out, first by their start, as text.
    NoOrder {
        /// How many calls the longest order explains.
        explained: usize,
        /// What the object holds after them.
        state: String,
        /// The first calls that are left, at most ten.
        left: Vec<String>,
    },
    /// The search was given up; say it as a failure, never as a success.
    TooLarge,
}

/// Searches for an order.
///
/// # Errors
/// When there is none, or the search is too large to tell.
pub fn check<M: Model>(model: &M, history: &[Timed<M::Call>]) -> Result<(), Failure> {
    Search::new(model, history).run()
}

/// A place in the list of starts and ends, by time.
#[derive(Debug, Clone, Copy)]
enum Place {
    Start(usize),
    End(usize),
}

/// The end of the list, and the place before its beginning.
const EDGE: usize = usize::MAX;

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Timed<M::Call>],
    places: Vec<Place>,
    /// Each place's neighbours among those that are not taken out.
    next: Vec<usize>,
    before: Vec<usize>,
    first: usize,
    /// Where each call starts and ends in the list.
    starts: Vec<usize>,
    ends: Vec<Option<usize>>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a [Timed<M::Call>]) -> Self {
        let mut places = Vec::new();
        for (index, call) in history.iter().enumerate() {
            // At one moment starts go before ends: such calls overlap.
            places.push((call.start, 0, Place::Start(index)));
            if let Some(end) = call.end {
                places.push((end, 1, Place::End(index)));
            }
        }
        places.sort_by_key(|(at, kind, _)| (*at, *kind));
        let places: Vec<Place> = places.into_iter().map(|(_, _, place)| place).collect();
        let (mut starts, mut ends) = (vec![EDGE; history.len()], vec![None; history.len()]);
        for (position, place) in places.iter().enumerate() {
            match *place {
                Place::Start(call) => starts[call] = position,
                Place::End(call) => ends[call] = Some(position),
            }
        }
        let last = places.len();
        let next = (0..last)
            .map(|at| if at + 1 < last { at + 1 } else { EDGE })
            .collect();
        let before = (0..last)
            .map(|at| at.checked_sub(1).unwrap_or(EDGE))
            .collect();
        Self {
            model,
            history,
            next,
            before,
            first: if places.is_empty() { EDGE } else { 0 },
            places,
            starts,
            ends,
        }
    }

    fn run(mut self) -> Result<(), Failure> {
        let mut answered_left = self.ends.iter().flatten().count();
        let mut state = self.model.initial();
        let mut done = vec![0_u64; self.history.len().div_ceil(64)];
        let mut taken: Vec<(usize, M::State)> = Vec::new();
        let mut seen: HashSet<(Vec<u64>, M::State)> = HashSet::new();
        let mut best: Option<(usize, M::State, Vec<u64>)> = None;
        let mut at = self.first;
        // Calls without an answer may be left over: they never took effect.
        while answered_left > 0 {
            match self.places.get(at).copied() {
                Some(Place::Start(call)) => {
                    let after = self.model.step(&state, &self.history[call].call);
                    let fresh = after.filter(|after| {
                        flip(&mut done, call);
                        let fresh = seen.insert((done.clone(), after.clone()));
                        flip(&mut done, call);
                        fresh
                    });
                    if seen.len() > CONFIGURATIONS {
                        return Err(Failure::TooLarge);
                    }
                    let Some(after) = fresh else {
                        at = self.next[at];
                        continue;
                    };
                    taken.push((call, std::mem::replace(&mut state, after)));
                    flip(&mut done, call);
                    answered_left -= usize::from(self.ends[call].is_some());
                    self.take_out(call);
                    if best.as_ref().is_none_or(|(most, ..)| taken.len() > *most) {
                        best = Some((taken.len(), state.clone(), done.clone()));
                    }
                    at = self.first;
                }
                // A call that ended before all of those that are left began must be done by now: go back.
                Some(Place::End(_)) | None => {
                    let Some((call, earlier)) = taken.pop() else {
                        return Err(self.failure(best));
                    };
                    state = earlier;
                    flip(&mut done, call);
                    answered_left += usize::from(self.ends[call].is_some());
                    self.put_back(call);
                    at = self.next[self.starts[call]];
                }
            }
        }
        Ok(())
    }

    fn take_out(&mut self, call: usize) {
        for place in [Some(self.starts[call]), self.ends[call]]
            .into_iter()
            .flatten()
        {
            let (before, next) = (self.before[place], self.next[place]);
            self.join(before, next);
        }
    }

    /// In the opposite order of [`Search::take_out`], so that each place finds the neighbours it had.
    fn put_back(&mut self, call: usize) {
        for place in [self.ends[call], Some(self.starts[call])]
            .into_iter()
            .flatten()
        {
            let (before, next) = (self.before[place], self.next[place]);
            self.join(before, place);
            self.join(place, next);
        }
    }

    fn join(&mut self, before: usize, next: usize) {
        match self.next.get_mut(before) {
            Some(place) => *place = next,
            None => self.first = next,
        }
        if let Some(place) = self.before.get_mut(next) {
            *place = before;
        }
    }

    fn failure(&self, best: Option<(usize, M::State, Vec<u64>)>) -> Failure {
        let (explained, state, done) = best.unwrap_or_else(|| {
            let none = vec![0; self.history.len().div_ceil(64)];
            (0, self.model.initial(), none)
        });
        let mut left: Vec<&Timed<M::Call>> = self
            .history
            .iter()
            .enumerate()
            .filter(|(call, _)| done[call / 64] >> (call % 64) & 1 == 0)
            .map(|(_, call)| call)
            .collect();
        left.sort_by_key(|call| call.start);
        Failure::NoOrder {
            explained,
            state: format!("{state:?}"),
            left: left
                .iter()
                .take(10)
                .map(|call| format!("{call:?}"))
                .collect(),
        }
    }
}

fn flip(done: &mut [u64], call: usize) {
    done[call / 64] ^= 1 << (call % 64);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that is written and read.
    struct Register;

    #[derive(Debug, Clone, Copy)]
    enum Call {
        Write(u64),
        Read(u64),
    }

    impl Model for Register {
        type State = u64;
        type Call = Call;

        fn initial(&self) -> u64 {
            0
        }

        fn step(&self, state: &u64, call: &Call) -> Option<u64> {
            match *call {
                Call::Write(value) => Some(value),
                Call::Read(value) => (value == *state).then_some(value),
            }
        }
    }

    fn at(start: u64, end: u64, call: Call) -> Timed<Call> {
        Timed {
            call,
            start,
            end: Some(end),
        }
    }

    fn unknown(start: u64, call: Call) -> Timed<Call> {
        Timed {
            call,
            start,
            end: None,
        }
    }

    #[test]
    fn calls_at_the_same_time_may_go_in_either_order() {
        let history = [
            at(0, 10, Call::Write(1)),
            at(1, 9, Call::Write(2)),
            at(11, 12, Call::Read(1)),
            at(2, 3, Call::Read(0)),
        ];
        assert_eq!(check(&Register, &history), Ok(()));
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [
            at(0, 1, Call::Write(1)),
            at(2, 3, Call::Write(2)),
            at(4, 5, Call::Read(1)),
        ];
        let Err(Failure::NoOrder {
            explained, left, ..
        }) = check(&Register, &history)
        else {
            panic!("a read of what was overwritten before it began");
        };
        assert_eq!((explained, left.len()), (2, 1));
    }

    #[test]
    fn reads_do_not_step_back() {
        let history = [
            at(0, 20, Call::Write(1)),
            at(1, 2, Call::Read(1)),
            at(3, 4, Call::Read(0)),
        ];
        assert!(check(&Register, &history).is_err());
    }

    #[test]
    fn an_unknown_write_may_take_effect_late_or_never_but_not_twice() {
        let late = [
            unknown(0, Call::Write(1)),
            at(5, 6, Call::Read(0)),
            at(7, 8, Call::Read(1)),
        ];
        assert_eq!(check(&Register, &late), Ok(()));
        let never = [unknown(0, Call::Write(1)), at(5, 6, Call::Read(0))];
        assert_eq!(check(&Register, &never), Ok(()));
        let twice = [
            unknown(0, Call::Write(1)),
            at(1, 2, Call::Read(1)),
            at(3, 4, Call::Write(2)),
            at(5, 6, Call::Read(1)),
        ];
        assert!(check(&Register, &twice).is_err());
        let before = [at(0, 1, Call::Read(1)), unknown(2, Call::Write(1))];
        assert!(check(&Register, &before).is_err());
    }

    #[test]
    fn every_order_of_a_few_calls_is_judged_as_by_trying_them_all() {
        let mut random = crate::random::Random::new(7);
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..3_000 {
            let history: Vec<Timed<Call>> = (0..random.within(1..7))
                .map(|_| {
                    let start = random.within(0..12);
                    let end = start + random.within(1..6);
                    let value = random.within(0..3);
                    let write = random.one_in(2);
                    Timed {
                        call: if write {
                            Call::Write(value)
                        } else {
                            Call::Read(value)
                        },
                        start,
                        end: (!write || !random.one_in(4)).then_some(end),
                    }
                })
                .collect();
            let expected = some_order(&history, &mut vec![false; history.len()], 0);
            let found = check(&Register, &history).is_ok();
            assert_eq!(found, expected, "{history:?}");
            *(if found { &mut accepted } else { &mut refused }) += 1;
        }
        assert!(accepted > 300 && refused > 300, "{accepted} {refused}");
    }

    /// Tries every order.
    fn some_order(history: &[Timed<Call>], done: &mut Vec<bool>, state: u64) -> bool {
        let open = |done: &[bool], index: usize| !done[index] && history[index].end.is_some();
        if (0..history.len()).all(|index| !open(done, index)) {
            return true;
        }
        for index in 0..history.len() {
            let first = (0..history.len())
                .filter(|other| open(done, *other))
                .all(|other| history[other].end >= Some(history[index].start));
            if done[index] || !first {
                continue;
            }
            let Some(after) = Register.step(&state, &history[index].call) else {
                continue;
            };
            done[index] = true;
            if some_order(history, done, after) {
                return true;
            }
            done[index] = false;
        }
        false
    }
}
