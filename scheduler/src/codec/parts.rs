//! Parts that stand one behind the other, each where it says anything or something stands behind it.

use serde::Serialize;

use crate::model::JobSpec;

/// Bytes, and what is written behind them.
pub(crate) struct Parts {
    bytes: Vec<u8>,
    /// Where the last part ends that says anything.
    end: usize,
}

impl Parts {
    /// What stands behind these bytes: nothing yet.
    pub(crate) const fn behind(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Self { bytes, end }
    }

    /// One more part, which may say nothing.
    pub(crate) fn then(mut self, part: &impl Serialize, says: bool) -> postcard::Result<Self> {
        self.bytes = postcard::to_extend(part, self.bytes)?;
        if says {
            self.end = self.bytes.len();
        }
        Ok(self)
    }

    /// The same, of a part that says nothing as it is by itself.
    pub(crate) fn then_said<T: Serialize + Default + PartialEq>(
        self,
        part: &T,
    ) -> postcard::Result<Self> {
        let says = *part != T::default();
        self.then(part, says)
    }

    /// All of what is asked for that is in no older format but by its own place: on how many hosts, how the run prepares
    /// itself and how it is shared out. Whoever tells one submission from another by its bytes has to tell them by these.
    pub(crate) fn then_spec(self, spec: &JobSpec) -> postcard::Result<Self> {
        let workload = &spec.workload;
        self.then_said(&spec.terms.more_hosts)?
            .then_said(&workload.preparation)?
            .then_said(&workload.sharing)
    }

    /// The bytes, up to the last part that says anything.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.truncate(self.end);
        self.bytes
    }
}
