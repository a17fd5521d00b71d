//! Numbers from the test's seed for everybody at once: who asks first is up to the machine, what there is to ask for is not.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use stepcast_tests::random::Random;

/// A generator that is shared.
#[derive(Debug, Clone)]
pub(crate) struct SharedRandom(Arc<Mutex<Random>>);

impl SharedRandom {
    pub(crate) fn new(random: Random) -> Self {
        Self(Arc::new(Mutex::new(random)))
    }

    pub(crate) fn within(&self, range: Range<u64>) -> u64 {
        self.0.lock().unwrap().within(range)
    }
}
