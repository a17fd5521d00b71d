//! Turns of what was passed for long where a great many wait: what has lost its worker, and then in the order of the queue
//! what is due and what goes before it by its priority or its team's share. Lines of a team that has used more than its share
//! stand as much later in it.
//!
//! GPUs are kept for the first that find none. Once they are kept for as many as they may be, only those are gone through
//! for whom something is free.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use super::crowd::{Walk, Where, place};
use super::entry::{Entry, LOST_MS, due_ms};
use super::{KEPT_MAX, Look};
use crate::ids::JobId;
use crate::model::Job;
use crate::placement::shares::Shares;
use crate::placement::survey::{LineId, LinePlace, Queue};

/// Lines that are passed since they neither find room nor get any kept, before GPUs are kept for nobody else in this look:
/// to find out that nothing may be kept for a job takes a moment.
const PASSED_MAX: usize = 256;

/// Lines in some order.
type Places<'q> = Box<dyn Iterator<Item = LinePlace> + 'q>;

/// Lines of several orders in one order.
struct Order<'q> {
    orders: Vec<Places<'q>>,
    /// The next of each.
    next: BinaryHeap<Reverse<(LinePlace, usize)>>,
}

impl<'q> Order<'q> {
    fn of(orders: impl IntoIterator<Item = Places<'q>>) -> Self {
        let mut order = Self {
            orders: orders.into_iter().collect(),
            next: BinaryHeap::new(),
        };
        (0..order.orders.len()).for_each(|of| order.push(of));
        order
    }

    fn push(&mut self, of: usize) {
        let next = self.orders[of].next();
        self.next.extend(next.map(|place| Reverse((place, of))));
    }

    fn peek(&self) -> Option<LinePlace> {
        self.next.peek().map(|Reverse((place, _))| *place)
    }

    /// Takes the first line. What stands behind it in its order comes only if that order goes on.
    fn pop(&mut self, goes_on: impl Fn(LineId) -> bool) -> Option<LinePlace> {
        let Reverse((first, of)) = self.next.pop()?;
        let (_, _, line) = first;
        let goes_on = goes_on(line);
        let mut of = Some(of);
        while let Some(at) = of {
            if goes_on {
                self.push(at);
            }
            // A line may stand in two of them, at the same place.
            let again = self.next.peek().copied();
            of = again.and_then(|Reverse((place, of))| (place == first).then_some(of));
            if of.is_some() {
                self.next.pop();
            }
        }
        Some(first)
    }
}

impl<'a> Look<'a> {
    /// What has lost its worker, and then what was passed for long enough and what goes before it by its priority or since
    /// its team is owed more, each in the order of the queue.
    pub(super) fn due_of(&mut self, walk: &mut Walk<'_>) {
        let queue = walk.queue;
        let Some(least) = queue.due.lowest() else {
            return;
        };
        let shares = Rc::clone(&self.shares);
        let latest_ms = queue.due.by_team().map(|(team, _)| shares.late_ms(team));
        let least = Least {
            priority: least,
            late_ms: latest_ms.max().unwrap_or(0),
        };
        self.due_in(walk, Order::of([boxed(queue.due.lost(), 0)]), least, true);
        let all = queue.due.by_team();
        let all = all.map(|(team, lines)| boxed(lines, shares.late_ms(team)));
        let eager = eager(queue, &shares, walk.live.iter().copied(), least, FIRST);
        self.due_in(walk, Order::of(all.chain(eager)), least, false);
    }

    fn due_in<'q>(
        &mut self,
        walk: &mut Walk<'q>,
        mut order: Order<'q>,
        least: Least,
        is_lost: bool,
    ) {
        let queue = walk.queue;
        let shares = Rc::clone(&self.shares);
        // What has lost its worker goes before all others whoever's it is.
        let place_of = |job: &Job| match is_lost {
            true => place(job),
            false => (shares.order(job), job.id),
        };
        // Jobs behind the first of their lines, at their own places in the queue.
        let mut behind: BTreeMap<(i64, JobId), (LineId, &'a Job)> = BTreeMap::new();
        let mut last = FIRST;
        let mut is_narrow = false;
        let mut passed = 0;
        while !self.is_over() {
            let is_full = self.kept >= KEPT_MAX || passed > PASSED_MAX;
            if is_full && !is_narrow && !is_lost {
                let live = || walk.live.iter().copied();
                let due = live().map(|bucket| {
                    let late_ms = shares.late_ms(queue.team_of(bucket));
                    boxed(queue.due.behind(bucket, moved(last, -late_ms)), late_ms)
                });
                order = Order::of(due.chain(eager(queue, &shares, live(), least, last)));
                is_narrow = true;
            }
            let head = order.peek().map(|(order, first, _)| (order, first));
            let next = match (head, behind.first_key_value()) {
                (Some(head), Some((place, _))) if *place < head => behind.pop_first(),
                (None, Some(_)) => behind.pop_first(),
                (Some(_), _) => None,
                (None, None) => break,
            };
            let (line, job) = match next {
                Some((_, next)) => next,
                None => {
                    // Where GPUs are kept for nobody any more, who finds no room speaks for all with the same needs.
                    let goes_on = |line: LineId| {
                        let bucket = queue.line(line).bucket;
                        self.kept < KEPT_MAX && !is_narrow
                            || self.has_room_for(queue, bucket, |_| true)
                    };
                    let Some(first) = order.pop(|line| is_lost || goes_on(line)) else {
                        break;
                    };
                    last = first;
                    let (_, _, line) = first;
                    let known = queue.line(line);
                    let had_turn = !is_lost && known.due_ms == LOST_MS;
                    if had_turn || !goes_on(line) {
                        continue;
                    }
                    let Some(job) = self.next_in(walk, line, None) else {
                        passed += 1;
                        continue;
                    };
                    if job.id != known.head.1 {
                        behind.insert(place_of(job), (line, job));
                        continue;
                    }
                    (line, job)
                }
            };
            let known = queue.line(line);
            let is_due = self.now_ms >= due_ms(job, known.to_do());
            if !is_due && !least.lets(job.spec.priority, shares.late_ms(job.spec.terms.team)) {
                continue;
            }
            let entry = self.entry_of(walk, known, job);
            let is_live = walk.live.binary_search(&known.bucket).is_ok();
            let starts = is_live && self.claims(walk, &entry, Where::Any);
            if starts {
                walk.served.insert(line, place(job));
            } else if is_due && !is_narrow && self.kept < KEPT_MAX && self.keeps(walk, &entry) {
                passed = 0;
            } else {
                passed += 1;
                continue;
            }
            if let Some(next) = self.next_in(walk, line, Some(place(job))) {
                behind.insert(place_of(next), (line, next));
            }
        }
    }

    /// Keeps GPUs for a job that has been passed for long enough, of what it takes rather than wait; whether there were any.
    fn keeps(&mut self, walk: &Walk<'_>, entry: &Entry<'a>) -> bool {
        let Some(turn) = self.turn_of(entry, 0, &walk.outlook, walk.others) else {
            return false;
        };
        let models = self.wanted(entry, &turn);
        self.keep(entry.job, &models)
    }
}

/// What is least entitled of all that is due.
#[derive(Debug, Clone, Copy)]
struct Least {
    priority: i8,
    /// How much later than they came jobs of its team have their turns.
    late_ms: i64,
}

impl Least {
    /// Whether something that is not due may go before some of what is.
    const fn lets(self, priority: i8, late_ms: i64) -> bool {
        priority > self.priority || late_ms < self.late_ms
    }
}

/// Before all places.
const FIRST: LinePlace = (i64::MIN, JobId(0), 0);

/// Lines with a priority above the least of what is due, or of a team that is owed more than one of those, of those for
/// whom something is free.
fn eager<'q>(
    queue: &'q Queue,
    shares: &Shares,
    live: impl Iterator<Item = u32> + Clone,
    least: Least,
    after: LinePlace,
) -> impl Iterator<Item = Places<'q>> {
    // Without a late team only a priority lets anything go before, and the rest of the queue is not gone through.
    let any = queue
        .priorities()
        .take_while(move |priority| *priority > least.priority || least.late_ms > 0);
    any.flat_map(move |priority| {
        live.clone().filter_map(move |bucket| {
            let late_ms = shares.late_ms(queue.team_of(bucket));
            let places = || queue.of_priority(bucket, priority, moved(after, -late_ms));
            least
                .lets(priority, late_ms)
                .then(|| boxed(places(), late_ms))
        })
    })
}

/// Lines as if they had come so much later.
fn boxed<'q>(places: impl Iterator<Item = LinePlace> + 'q, late_ms: i64) -> Places<'q> {
    Box::new(places.map(move |place| moved(place, late_ms)))
}

/// A place so much later in the queue.
fn moved((order, first, line): LinePlace, ms: i64) -> LinePlace {
    (order.saturating_add(ms), first, line)
}
