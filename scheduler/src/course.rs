//! How long a running attempt still takes: what was expected of its parts, and what its own reports have shown of them.
//!
//! An expectation of a step is a middle with an interval, and the attempt's own steps are measurements of the same thing,
//! so the two are joined as a normal prior and its data are, over the logarithm of the time. A few steps outweigh an
//! uncertain estimate; many leave only how a run drifts. Where the two contradict each other the expectation gives way,
//! since it is of runs of this kind and not of this one. Passes of validation and checkpoints are treated alike.

use stepcast_records::Quantiles;

/// Standard deviations from the middle to p10 and p90 of a normal distribution.
const Z: f64 = 1.281_6;

/// Single steps of one run spread by this, as the standard deviation of the logarithm. Wide on purpose: steps of several
/// shapes take turns, and the first are slow.
const SPREAD: f64 = 0.3;

/// However many steps were seen, the mean of those to come may differ by this.
const DRIFT: f64 = 0.03;

/// Steps after the first report of one that are left out: kernels are compiled and caches filled in them.
const WARM_UP: u64 = 2;

/// Steps count for half as much after so many others, so that a run that changes its pace is followed.
const HALF_LIFE: f64 = 200.0;

/// An earlier attempt's steps count as so many at most: another host, though of the same kind.
const CARRIED: f64 = 20.0;

/// So many steps tell how fast an attempt is: more than an earlier one may count for.
const TELLING: f64 = 50.0;

/// What runs longer than expected is taken to need this part of the expectation still.
const OVERDUE: f64 = 0.05;

/// An expectation with no interval is taken to be as certain as this, as the standard deviation of the logarithm.
const CERTAIN: f64 = 0.02;

/// What a run of a job is expected to consist of on one hardware.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Course {
    /// Everything before the first step.
    pub set_up_ms: Quantiles,
    /// One optimizer step, in the mean over the run.
    pub step_ms: Option<Quantiles>,
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// One pass of validation.
    pub pass_ms: Option<Quantiles>,
    /// Passes of the whole run.
    pub passes: u64,
    /// Those of them that come before the first step.
    pub early_passes: u64,
    /// Steps between two of the others; 0 where that is not one number, and they are taken to be spread evenly.
    pub pass_every: u64,
    /// The last steps, after which there is none.
    pub unvalidated: u64,
    /// Saving one checkpoint, or the model at the end.
    pub save_ms: Quantiles,
    /// Checkpoints of the whole run, the end apart.
    pub checkpoints: u64,
}

/// What an attempt says that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Whatever comes before the first step.
    SettingUp,
    /// Optimizer steps.
    Stepping,
    /// A pass of validation.
    Validating,
    /// Saving a checkpoint or the model.
    Saving,
    /// Nothing any more.
    Done,
}

/// One report of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Steps done, those of earlier attempts included.
    pub step: u64,
    /// Steps there will be; 0 while it has not said.
    pub steps: u64,
    /// What it does.
    pub doing: Doing,
}

/// What an attempt's reports have shown. Times are milliseconds of any clock that only goes forward.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// When it began, and with which step done.
    begun_ms: u64,
    begun_step: u64,
    last: Option<(u64, Heard)>,
    /// Time in what it does now that is not counted yet.
    open_ms: u64,
    warmed: u64,
    step: Seen,
    pass: Seen,
    save: Seen,
}

/// How often something was seen, and how long all of it took.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    count: f64,
    ms: f64,
}

/// The logarithm of a time in milliseconds, with its uncertainty.
#[derive(Debug, Clone, Copy)]
struct Belief {
    mean: f64,
    variance: f64,
}

impl Course {
    /// Passes that have not begun when so many of these steps are done. One that is due with a step is taken to have begun with
    /// it.
    fn passes_left(&self, doing: Doing, done: u64, steps: u64) -> u64 {
        let early = match (doing, done) {
            (Doing::SettingUp, 0) => self.early_passes,
            (Doing::Validating, 0) => self.early_passes.saturating_sub(1),
            _ => 0,
        };
        let others = self.passes.saturating_sub(self.early_passes);
        let due = |steps: u64| steps / self.pass_every;
        let left = match self.pass_every {
            0 => others - (others as f64 * done as f64 / steps as f64) as u64,
            // Where they begin late it is the first ones that are not made.
            _ => {
                let last = steps - self.unvalidated.min(steps);
                others.min(due(last) - due(done.min(last)))
            }
        };
        early + left
    }
}

impl Pace {
    /// An attempt that begins now, after so many steps that an earlier one has saved.
    #[must_use]
    pub fn begun(now_ms: u64, step: u64) -> Self {
        Self {
            begun_ms: now_ms,
            begun_step: step,
            ..Self::default()
        }
    }

    /// The same, with what an earlier attempt of the job has shown on the same kind of hardware.
    #[must_use]
    pub fn after(self, earlier: &Self) -> Self {
        Self {
            step: earlier.step.at_most(CARRIED),
            pass: earlier.pass.at_most(1.0),
            save: earlier.save.at_most(1.0),
            ..self
        }
    }

    /// Takes a report. One that is older than what is known tells nothing.
    pub fn hear(&mut self, heard: Heard, now_ms: u64) {
        let Some((at_ms, before)) = self.last else {
            self.last = Some((now_ms, heard));
            return;
        };
        if heard.step < before.step || now_ms < at_ms {
            return;
        }
        self.last = Some((now_ms, heard));
        self.open_ms += now_ms - at_ms;
        let steps = heard.step - before.step;
        match before.doing {
            Doing::Stepping if steps > 0 => {
                if self.warmed < WARM_UP {
                    self.warmed += steps;
                } else {
                    self.step.fade(0.5_f64.powf(steps as f64 / HALF_LIFE));
                    self.step.add(steps as f64, self.open_ms);
                }
                self.open_ms = 0;
            }
            Doing::Validating if heard.doing != Doing::Validating => {
                // Should a step have been done in between, it is small beside a pass.
                self.pass.add(1.0, self.open_ms);
            }
            Doing::Saving if heard.doing != Doing::Saving => self.save.add(1.0, self.open_ms),
            Doing::Stepping
            | Doing::Validating
            | Doing::Saving
            | Doing::SettingUp
            | Doing::Done => {}
        }
        if heard.doing != before.doing {
            self.open_ms = 0;
        }
    }

    /// What a step takes by what was expected of it, once that can be told.
    #[must_use]
    pub fn longer(&self, expected: &Course) -> Option<f64> {
        let expected = expected.step_ms.filter(|ms| ms.p50 > 0)?;
        let is_known = self.step.count >= TELLING && self.step.ms > 0.0;
        is_known.then(|| self.step.ms / self.step.count / expected.p50 as f64)
    }

    /// What is left from now on; `None` while neither an expectation nor the attempt itself says how long a step takes,
    /// or how many there will be.
    #[must_use]
    pub fn left(&self, expected: Option<&Course>, now_ms: u64) -> Option<Quantiles> {
        let unknown = Course::default();
        let course = expected.unwrap_or(&unknown);
        let waiting = Heard {
            step: self.begun_step,
            steps: 0,
            doing: Doing::SettingUp,
        };
        let (at_ms, heard) = self.last.unwrap_or((self.begun_ms, waiting));
        if heard.doing == Doing::Done {
            return Some(Quantiles::default());
        }
        let steps = if heard.steps > 0 {
            heard.steps
        } else {
            course.steps
        };
        if steps == 0 {
            return None;
        }
        let here_ms = self.open_ms + now_ms.saturating_sub(at_ms);
        let done = heard.step.max(self.begun_step).min(steps);
        let share = (steps - done) as f64 / steps as f64;
        let step = belief(course.step_ms, self.step)?;
        let mut left = step.times((steps - done) as f64);
        if heard.doing == Doing::Stepping && done < steps {
            left = left.minus(here_ms.min(step.middle_ms()));
        }
        if let Some(pass) = belief(course.pass_ms, self.pass) {
            let passes = course.passes_left(heard.doing, done, steps);
            left = left.plus(pass.times(passes as f64));
            if heard.doing == Doing::Validating {
                left = left.plus(pass.times(1.0).less(here_ms));
            }
        }
        if let Some(save) = belief(Some(course.save_ms), self.save) {
            // The model is saved once more at the end.
            let saves = (course.checkpoints as f64 * share).round();
            left = left.plus(save.times(saves));
            left = left.plus(match heard.doing {
                Doing::Saving => save.times(1.0).less(here_ms),
                _ => save.times(1.0),
            });
        }
        if heard.doing == Doing::SettingUp {
            let since_ms = now_ms.saturating_sub(self.begun_ms);
            left = left.plus(course.set_up_ms.less(since_ms));
        }
        Some(left)
    }
}

impl Seen {
    fn add(&mut self, count: f64, ms: u64) {
        self.count += count;
        self.ms += ms as f64;
    }

    fn fade(&mut self, factor: f64) {
        self.count *= factor;
        self.ms *= factor;
    }

    fn at_most(mut self, count: f64) -> Self {
        if self.count > count {
            self.fade(count / self.count);
        }
        self
    }
}

/// What was expected and what was seen of the same thing, as one.
fn belief(expected: Option<Quantiles>, seen: Seen) -> Option<Belief> {
    let prior = expected.filter(|ms| ms.p50 > 0).map(|ms| {
        let deviation = (ms.p90.max(1) as f64 / ms.p10.max(1) as f64).ln() / (2.0 * Z);
        Belief {
            mean: (ms.p50 as f64).ln(),
            variance: deviation.max(CERTAIN).powi(2),
        }
    });
    let data = (seen.count > 0.0 && seen.ms > 0.0).then(|| Belief {
        mean: (seen.ms / seen.count).ln(),
        variance: SPREAD * SPREAD / seen.count + DRIFT * DRIFT,
    });
    match (prior, data) {
        (Some(prior), Some(data)) => Some(joined(prior, data)),
        (prior, data) => prior.or(data),
    }
}

fn joined(prior: Belief, data: Belief) -> Belief {
    // What the two differ by beyond their own uncertainty is doubt about the expectation.
    let apart = (prior.mean - data.mean).powi(2);
    let doubt = (apart - prior.variance - data.variance).max(0.0);
    let (of_prior, of_data) = (1.0 / (prior.variance + doubt), 1.0 / data.variance);
    Belief {
        mean: (prior.mean * of_prior + data.mean * of_data) / (of_prior + of_data),
        variance: 1.0 / (of_prior + of_data),
    }
}

impl Belief {
    fn middle_ms(self) -> u64 {
        self.mean.exp() as u64
    }

    fn times(self, count: f64) -> Quantiles {
        let reach = Z * self.variance.sqrt();
        let at = |reach: f64| ((self.mean + reach).exp() * count).round() as u64;
        Quantiles {
            p10: at(-reach),
            p50: at(0.0),
            p90: at(reach),
        }
    }
}

/// Taking time off a time.
trait Less {
    /// So much less of each point, at least nothing.
    fn minus(self, ms: u64) -> Self;
    /// The same for what may be overdue: a small part of it always remains.
    fn less(self, ms: u64) -> Self;
}

impl Less for Quantiles {
    fn minus(self, ms: u64) -> Self {
        Self {
            p10: self.p10.saturating_sub(ms),
            p50: self.p50.saturating_sub(ms),
            p90: self.p90.saturating_sub(ms),
        }
    }

    fn less(self, ms: u64) -> Self {
        let (left, rest) = (self.minus(ms), self.scaled(OVERDUE));
        Self {
            p10: left.p10.max(rest.p10),
            p50: left.p50.max(rest.p50),
            p90: left.p90.max(rest.p90),
        }
    }
}

#[cfg(test)]
mod tests;
