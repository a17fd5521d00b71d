//! Time, chance and tasks of one run: what everybody in the world shares, in one thread.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::dice::Dice;
use crate::world::World;

/// True time in microseconds since the run began. Nobody in the world can read it: hosts have clocks of their own.
pub(crate) type Micros = u64;

/// A millisecond of true time.
pub(crate) const MS: Micros = 1_000;

/// A second of true time.
pub(crate) const SECOND: Micros = 1_000_000;

/// A process: which one, and which life of it. What belongs to an earlier life is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Owner {
    pub(crate) host: Host,
    pub(crate) life: u64,
}

/// Something with a network card of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Host {
    /// A control-plane node, by its id.
    Node(u64),
    /// A GPU host.
    Worker(u64),
    /// A person's machine.
    Person(u64),
}

/// Something to be done in the world.
pub(crate) type Act = Box<dyn FnOnce(&mut World) + Send>;

/// What happens at a moment.
pub(crate) enum Event {
    /// Somebody's timer ends.
    Wake(Waker),
    /// Anything else.
    Do(Act),
}

struct Due {
    at: Micros,
    /// Of two at the same moment, the one that was asked for first comes first.
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[derive(Default)]
struct Agenda {
    due: BinaryHeap<Reverse<Due>>,
    last_number: u64,
}

/// The shared part of a run.
pub(crate) struct Kernel {
    now: AtomicU64,
    agenda: Mutex<Agenda>,
    dice: Mutex<Dice>,
    spawned: Mutex<Vec<(Owner, BoxFuture<'static, ()>)>>,
}

impl Kernel {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicU64::new(0),
            agenda: Mutex::default(),
            dice: Mutex::new(Dice::new(seed)),
            spawned: Mutex::default(),
        })
    }

    pub(crate) fn now(&self) -> Micros {
        self.now.load(Ordering::Relaxed)
    }

    /// Something random.
    pub(crate) fn roll<T>(&self, roll: impl FnOnce(&mut Dice) -> T) -> T {
        roll(&mut self.dice.lock())
    }

    /// Has this done so much later.
    pub(crate) fn after(&self, wait: Micros, act: impl FnOnce(&mut World) + Send + 'static) {
        self.schedule(self.now().saturating_add(wait), Event::Do(Box::new(act)));
    }

    /// Runs a task of a process until it ends or the process does.
    pub(crate) fn spawn(&self, owner: Owner, task: BoxFuture<'static, ()>) {
        self.spawned.lock().push((owner, task));
    }

    /// Ready after so much true time.
    pub(crate) fn sleep(self: &Arc<Self>, time: Micros) -> Sleep {
        Sleep {
            until: self.now().saturating_add(time),
            kernel: Arc::clone(self),
            asked: None,
        }
    }

    /// The next event before `limit`; time goes on to it.
    pub(crate) fn next(&self, limit: Micros) -> Option<Event> {
        let mut agenda = self.agenda.lock();
        if agenda.due.peek().is_none_or(|Reverse(due)| due.at > limit) {
            return None;
        }
        let Reverse(due) = agenda.due.pop()?;
        self.now.store(due.at, Ordering::Relaxed);
        Some(due.event)
    }

    fn schedule(&self, at: Micros, event: Event) {
        let mut agenda = self.agenda.lock();
        agenda.last_number += 1;
        let number = agenda.last_number;
        agenda.due.push(Reverse(Due { at, number, event }));
    }
}

/// A wait in true time.
pub(crate) struct Sleep {
    kernel: Arc<Kernel>,
    until: Micros,
    asked: Option<Waker>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.kernel.now() >= self.until {
            return Poll::Ready(());
        }
        if !self
            .asked
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            let waker = context.waker().clone();
            self.kernel.schedule(self.until, Event::Wake(waker.clone()));
            self.asked = Some(waker);
        }
        Poll::Pending
    }
}

/// Runs tasks in the order in which they became ready.
#[derive(Default)]
pub(crate) struct Executor {
    tasks: BTreeMap<u64, Task>,
    ready: Arc<Mutex<VecDeque<u64>>>,
    last: u64,
    paused: Vec<Owner>,
    /// Ready tasks of paused processes.
    held: Vec<u64>,
}

struct Task {
    owner: Owner,
    future: BoxFuture<'static, ()>,
    alarm: Arc<Alarm>,
}

struct Alarm {
    task: u64,
    rings: AtomicBool,
    ready: Arc<Mutex<VecDeque<u64>>>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rings.swap(true, Ordering::Relaxed) {
            self.ready.lock().push_back(self.task);
        }
    }
}

impl Executor {
    /// Runs whatever is ready, and what becomes ready by that. True if anything ran.
    pub(crate) fn run(&mut self, kernel: &Kernel) -> bool {
        let mut ran = false;
        loop {
            let spawned = std::mem::take(&mut *kernel.spawned.lock());
            spawned
                .into_iter()
                .for_each(|(owner, future)| self.add(owner, future));
            let Some(id) = self.ready.lock().pop_front() else {
                return ran;
            };
            self.poll(id);
            ran = true;
        }
    }

    /// Drops everything a life of a process was doing.
    pub(crate) fn end(&mut self, owner: Owner) {
        self.paused.retain(|paused| *paused != owner);
        let gone: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.owner == owner)
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.tasks.remove(&id);
        }
    }

    /// From now on nothing of this process runs.
    pub(crate) fn pause(&mut self, owner: Owner) {
        if !self.paused.contains(&owner) {
            self.paused.push(owner);
        }
    }

    /// It goes on.
    pub(crate) fn resume(&mut self, owner: Owner) {
        self.paused.retain(|paused| *paused != owner);
        self.ready.lock().extend(self.held.drain(..));
    }

    fn add(&mut self, owner: Owner, future: BoxFuture<'static, ()>) {
        self.last += 1;
        let alarm = Arc::new(Alarm {
            task: self.last,
            rings: AtomicBool::new(false),
            ready: Arc::clone(&self.ready),
        });
        alarm.wake_by_ref();
        self.tasks.insert(
            self.last,
            Task {
                owner,
                future,
                alarm,
            },
        );
    }

    fn poll(&mut self, id: u64) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        if self.paused.contains(&task.owner) {
            self.held.push(id);
            return;
        }
        task.alarm.rings.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&task.alarm));
        let done = task
            .future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready();
        if done {
            self.tasks.remove(&id);
        }
    }
}
