//! What a host believes the time is: a monotonic clock that runs a little fast or slow, and a wall clock that jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use stepcast_cluster::{Clock, Runtime};

use crate::dice::Dice;
use crate::kernel::{Kernel, MS, Micros, Owner};

/// The wall clock when every run begins, in milliseconds since 1970: some day in 2026.
const BEGIN_MS: i64 = 1_780_000_000_000;

/// Clocks of one host run fast or slow by at most so many millionths. Quartz is a hundred times better; what is meant is
/// a virtual machine whose time is made by others. Two hosts differ by twice this, and by less than the tenth of a lease
/// term that a worker keeps back.
pub(crate) const DRIFT_PPM: u64 = 25_000;

/// The clocks of one host. They outlive its processes.
pub(crate) struct HostClock {
    kernel: Arc<Kernel>,
    /// Microseconds of this clock in a million of true ones.
    rate: u64,
    /// What the monotonic clock showed when the run began.
    begin: Micros,
    /// How far the wall clock has been set.
    jumped_ms: AtomicI64,
    /// How far a deliberate bug has set the monotonic clock.
    leapt: AtomicU64,
    /// A deliberate bug: the monotonic clock follows the wall clock's jumps.
    follows_wall: bool,
}

impl HostClock {
    pub(crate) fn new(kernel: &Arc<Kernel>, follows_wall: bool) -> Arc<Self> {
        Self::slower(kernel, follows_wall, 1)
    }

    /// A clock that runs so many times slower than it should, for a deliberate bug.
    pub(crate) fn slower(kernel: &Arc<Kernel>, follows_wall: bool, times: u64) -> Arc<Self> {
        let (rate, begin, jumped_ms) = kernel.roll(|dice| {
            let rate = 1_000_000 - DRIFT_PPM + dice.roll(2 * DRIFT_PPM + 1);
            (
                rate,
                dice.roll(1_000_000_000),
                i64::try_from(dice.roll(2_000)).unwrap_or(0) - 1_000,
            )
        });
        Arc::new(Self {
            kernel: Arc::clone(kernel),
            rate: rate / times,
            begin,
            jumped_ms: AtomicI64::new(jumped_ms),
            leapt: AtomicU64::new(0),
            follows_wall,
        })
    }

    /// Sets the wall clock so far ahead, or back.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.jumped_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// A deliberate bug: the monotonic clock leaps ahead.
    pub(crate) fn leap(&self, by: Micros) {
        self.leapt.fetch_add(by, Ordering::Relaxed);
    }

    /// The monotonic clock in microseconds.
    pub(crate) fn micros(&self) -> Micros {
        let shown = self.begin + self.here(self.kernel.now()) + self.leapt.load(Ordering::Relaxed);
        if self.follows_wall {
            let jumped = self.jumped_ms.load(Ordering::Relaxed) * 1_000;
            return shown.saturating_add_signed(jumped);
        }
        shown
    }

    /// The true time that passes while this clock goes on by so much.
    pub(crate) fn truly(&self, here: Micros) -> Micros {
        // Rounded up: a timer is never early.
        (here * 1_000_000).div_ceil(self.rate)
    }

    fn here(&self, truly: Micros) -> Micros {
        truly * self.rate / 1_000_000
    }
}

impl Clock for HostClock {
    fn wall_ms(&self) -> u64 {
        let passed = i64::try_from(self.here(self.kernel.now()) / MS).unwrap_or(i64::MAX);
        u64::try_from(BEGIN_MS + passed + self.jumped_ms.load(Ordering::Relaxed)).unwrap_or(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.micros())
    }
}

/// What runs the tasks of one life of a process, by its host's clock.
pub(crate) struct Process {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) clock: Arc<HostClock>,
    pub(crate) owner: Owner,
}

impl Runtime for Process {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let here = Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX / 2_000_000);
        // A timer of the operating system wakes a little late.
        let late = self.kernel.roll(|dice| dice.roll(MS));
        self.kernel.sleep(self.clock.truly(here) + late).boxed()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.kernel.spawn(self.owner, task);
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, bool> {
        let takes = self.kernel.roll(|dice| dice.between(50, 3 * MS));
        let done = self.kernel.sleep(takes);
        async move {
            done.await;
            work();
            true
        }
        .boxed()
    }

    fn random(&self) -> Option<[u8; 32]> {
        let words = [(); 4].map(|()| self.kernel.roll(Dice::word).to_le_bytes());
        let mut bytes = [0; 32];
        for (part, word) in bytes.chunks_exact_mut(8).zip(words) {
            part.copy_from_slice(&word);
        }
        Some(bytes)
    }
}
