//! The estimator's doors to estimates: both answer from memory and wait for nobody.

use std::convert::Infallible;

use stepcast_records::simpletuner::{Missing, Workload};
use stepcast_records::{Estimate, Hardware, Phase, Quantiles};

use super::remembered::Question;
use super::{Ask, Evidence, HARDWARE_MAX};
use crate::{Estimator, PriceBook};

impl Estimator {
    /// What a run will take and cost on each hardware, from everything known now.
    ///
    /// The estimates stand in the order asked for; where no hardware was named, the cheapest comes first. A
    /// hardware that may not hold the model is listed too, with a note.
    ///
    /// # Errors
    /// When a named hardware does not fit the run, or none does: the fact that is missing.
    pub fn estimate(&self, ask: &Ask<'_>) -> Result<Vec<Estimate>, Missing> {
        let records = self.index();
        let learnt = self.learnt();
        let model = learnt.as_ref().map(|learnt| &learnt.model);
        let prices = self.book();
        let evidence = Evidence::new(&records, &prices.book).learned(model);
        let answer = || evidence.estimate(ask);
        if ask.hardware.is_empty() {
            // Somebody looks around, which nobody does a thousand times a second.
            return answer();
        }
        let asked = ask.hardware.iter().take(HARDWARE_MAX);
        let question = Question {
            workload: ask.workload.clone(),
            priced: asked
                .map(|hardware| (*hardware, evidence.price(ask, *hardware)))
                .collect(),
        };
        self.remembered().estimates.get(&records, question, answer)
    }

    /// How long a run will hold a hardware, set-up included; `None` when nothing is known or it does not fit.
    #[must_use]
    pub fn forecast(&self, workload: &Workload, hardware: Hardware) -> Option<Quantiles> {
        let records = self.index();
        let learnt = self.learnt();
        let model = learnt.as_ref().map(|learnt| &learnt.model);
        let answer = || {
            // It is of times alone.
            let evidence = Evidence::new(&records, PriceBook::none()).learned(model);
            Ok::<_, Infallible>(evidence.forecast(workload, hardware))
        };
        let question = (workload.clone(), hardware);
        let Ok(forecast) = self.remembered().forecasts.get(&records, question, answer);
        forecast
    }

    /// What a run consists of on a hardware, part by part; empty when it does not fit.
    #[must_use]
    pub fn phases(&self, workload: &Workload, hardware: Hardware) -> Vec<Phase> {
        let records = self.index();
        let learnt = self.learnt();
        let model = learnt.as_ref().map(|learnt| &learnt.model);
        let evidence = Evidence::new(&records, PriceBook::none()).learned(model);
        evidence.phases(workload, hardware)
    }
}
