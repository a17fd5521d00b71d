//! What the whole of the work asks of the hardware: how long it lasts, what a GPU hour is worth, and what cannot wait.

use std::collections::BTreeMap;

use crate::policy::balance::{Balance, Work, balance};

/// Everything that waits and runs, seen at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outlook {
    /// How work is best spread, in milliseconds.
    pub(crate) balance: Balance,
    /// How long jobs of at least so many GPUs last by themselves, if no two of them fit where one and a half would.
    wide_ms: BTreeMap<u8, f64>,
    /// So many cannot run at a time, whoever they are.
    pub(crate) waiting: f64,
}

/// Widths whose jobs are looked at by themselves: they do not fill gaps, so what they need together comes first.
const WIDE: [u8; 2] = [4, 8];

/// A job is late when so many times what it still needs reaches to the end of all work.
const LATE: f64 = 1.4;

/// Wide jobs are late when so many times what they still need together reaches there.
const WIDE_LATE: f64 = 1.2;

impl Outlook {
    /// The outlook of work, with so many GPUs of each kind.
    pub(crate) fn of(work: &[Work], capacity: &[f64]) -> Self {
        let wide_ms = WIDE.map(|width| {
            let width_gpus = f64::from(width);
            let wide: Vec<Work> = work
                .iter()
                .filter(|work| work.width >= width_gpus)
                .map(|work| Work {
                    width: (work.width / width_gpus).ceil(),
                    count: work.count,
                    hours: work.hours.clone(),
                })
                .collect();
            let places: Vec<f64> = capacity
                .iter()
                .map(|gpus| (gpus / width_gpus).floor())
                .collect();
            let time = if wide.is_empty() {
                0.0
            } else {
                balance(&wide, &places).horizon
            };
            (width, time)
        });
        let wanted: f64 = work.iter().map(|work| work.width * work.count).sum();
        let count: f64 = work.iter().map(|work| work.count).sum();
        let gpus: f64 = capacity.iter().sum();
        Self {
            balance: balance(work, capacity),
            wide_ms: wide_ms.into(),
            waiting: count * (1.0 - gpus / wanted.max(1.0)).max(0.0),
        }
    }

    /// Whether there is more than can run at a time. If not, everybody is best off on what is best for itself.
    pub(crate) fn is_crowded(&self) -> bool {
        self.waiting > 0.0
    }

    /// Whether work must start now to be done when all work can be done.
    pub(crate) fn is_late(&self, index: usize, width: u8) -> bool {
        self.is_late_at(self.needs_ms(index), width)
    }

    /// Whether work that needs so much where it is best done must start now.
    pub(crate) fn is_late_at(&self, needs_ms: f64, width: u8) -> bool {
        let horizon = self.balance.horizon;
        let alone = needs_ms * LATE >= horizon;
        let together = self.wide_ms.range(..=width).map(|(_, ms)| ms * WIDE_LATE);
        alone || together.fold(0.0, f64::max) >= horizon
    }

    /// What work needs where it is best done, in milliseconds.
    pub(crate) fn needs_ms(&self, index: usize) -> f64 {
        self.share(index).iter().sum()
    }

    /// The time of work on each kind where it is best done.
    pub(crate) fn share(&self, index: usize) -> &[f64] {
        self.balance.shares.get(index).map_or(&[], Vec::as_slice)
    }
}
