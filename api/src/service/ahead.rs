//! Looks ahead, estimates among them: how long one may take, and how many may be taken at once.

use std::time::{Duration, Instant};

use crate::turns::{Bounds, Turns};

/// How long one look ahead may take: what a person waits for, and well within a call's deadline.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// How long one may take that comes beside something else.
const GLANCE_MAX: Duration = Duration::from_millis(500);

/// How long a question waits until others have been answered.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// How long one waits to be told a reason without what is to come: it has waited before, and both fit into a call's deadline.
const WAIT_AGAIN_MAX: Duration = Duration::from_secs(2);

/// Looks at once: each keeps a processor busy, which the log needs too.
const AT_ONCE: usize = 2;

/// Turns to look at what is to come.
pub(super) fn looks() -> Turns {
    Turns::new(Bounds {
        at_once: AT_ONCE,
        within: WAIT_MAX,
        others: "too many ask at the moment what is to come",
        own: "another question of yours about what is to come is not answered yet",
    })
}

/// Turns to say why a job waits, and nothing of what is to come.
pub(super) fn reasons() -> Turns {
    Turns::new(Bounds {
        at_once: AT_ONCE,
        within: WAIT_AGAIN_MAX,
        others: "too many ask at the moment why jobs wait",
        own: "another question of yours about a job that waits is not answered yet",
    })
}

/// Turns to estimate.
pub(crate) fn estimates() -> Turns {
    Turns::new(Bounds {
        at_once: AT_ONCE,
        within: WAIT_MAX,
        others: "too many ask for estimates at the moment",
        own: "another estimate of yours is not done yet",
    })
}

/// Which part of the time for a look beside something else has been spent, from now on.
pub(super) fn glanced() -> impl Fn() -> f64 {
    let begun = Instant::now();
    move || begun.elapsed().as_secs_f64() / GLANCE_MAX.as_secs_f64()
}

/// Which part of the time for so many looks has been spent, from now on.
pub(super) fn spent(looks: u32) -> impl Fn() -> f64 {
    let begun = Instant::now();
    move || begun.elapsed().as_secs_f64() / (LOOK_MAX * looks).as_secs_f64()
}
