//! One measurement: what the model may know of it, and what it was.

use std::collections::BTreeMap;

use stepcast_records::{GpuModel, Row};

use super::super::model::{Board, Observation, Point, SETTINGS, Subject, Traits};
use super::super::physics::{self, Asked};
use super::names;

/// Repeated measurements of one machine tell nothing more about other machines than so many do.
const CELL_WEIGHT_MAX: f64 = 4.0;

/// A measurement of a time.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) point: Point,
    /// The truth, in milliseconds.
    pub(super) ms: f64,
    pub(super) weight: f64,
    /// What the ratings say, in milliseconds.
    pub(super) rated_ms: f64,
    /// Groups that it belongs to, the narrowest first.
    pub(super) groups: Vec<String>,
    /// Exactly its configuration, where the narrowest group leaves something open; no baseline.
    pub(super) exact: Option<String>,
    /// What must be left out together: a key, a submitter, a system.
    pub(super) unit: String,
    pub(super) recipe: String,
    pub(super) gpu: String,
    /// Its place in the file, from 1.
    pub(super) row: usize,
    /// The series of one machine's measurements that it belongs to, where a few machines have most of the rows.
    pub(super) series: Option<String>,
    /// The row of one's own tables that it is, if it is one.
    pub(super) record: Option<Row>,
}

/// What a row of any of the formats says.
#[derive(Debug, Clone, Default)]
pub(super) struct Said<'a> {
    pub(super) recipe: &'a str,
    pub(super) method: &'a str,
    pub(super) gpu: &'a str,
    pub(super) gpus: f64,
    pub(super) quantization: [&'a str; 2],
    pub(super) precision: &'a str,
    pub(super) checkpointing: &'a str,
    pub(super) settings: [&'a str; SETTINGS],
    pub(super) batch: f64,
    pub(super) megapixels: f64,
    pub(super) frames: f64,
    pub(super) repeats: f64,
    pub(super) forward_only: bool,
    /// How many generations newer than usual the host's processor is; 0 where nothing is said.
    pub(super) processor: f64,
}

impl Said<'_> {
    /// The measurement, with the groups it belongs to.
    pub(super) fn case(&self, ms: f64, unit: String, groups: Vec<String>) -> Case {
        let gpu: Option<GpuModel> = names::gpu(self.gpu);
        let rated = names::rated(self.gpu);
        let slug = gpu.map_or_else(|| self.gpu.to_owned(), |gpu| gpu.slug().to_owned());
        let network = names::network(self.recipe);
        let (host_ms, tflop) = physics::work(&self.asked(&network));
        let compute_ms = physics::compute_ms(tflop, rated);
        let subject = Subject::of(&Traits {
            family: network.family,
            recipe: self.recipe,
            method: self.method,
            quantization: self.quantization,
            precision: self.precision,
            checkpointing: self.checkpointing(),
            offloaded: self.checkpointing.contains("offload"),
            settings: self.settings,
            batch: self.batch,
            megapixels: self.megapixels * self.frames,
            billions: network.billions,
            host_ms,
            processor: self.processor,
        });
        let point = subject.on(&Board {
            gpu: &slug,
            gpus: self.gpus,
            rated,
            compute_ms,
            own: false,
        });
        Case {
            point,
            ms,
            weight: 1.0,
            rated_ms: compute_ms,
            groups,
            exact: None,
            unit,
            recipe: self.recipe.to_owned(),
            gpu: slug,
            row: 0,
            series: None,
            record: None,
        }
    }

    /// Whether activations are computed again, and how.
    fn checkpointing(&self) -> [&str; 2] {
        match self.checkpointing {
            "" => ["unsaid", ""],
            "none" => ["none", ""],
            how => ["recomputed", how],
        }
    }

    fn asked<'a>(&self, network: &names::Network<'a>) -> Asked<'a> {
        let trained = if self.method == "full" { 6.0 } else { 4.0 };
        let again = if matches!(self.checkpointing, "" | "none") {
            0.0
        } else {
            2.0
        };
        Asked {
            family: network.family,
            billions: network.billions,
            layers: network.layers,
            pixels: self.megapixels * 1e6,
            frames: self.frames.max(1.0),
            passes: if self.forward_only {
                2.0
            } else {
                trained + again
            },
            samples: self.batch,
            repeats: self.repeats,
            forward_only: self.forward_only,
        }
    }
}

/// What the model learns from: measurements of one unit that it cannot tell apart are one, and count a little more.
pub(super) fn observations(cases: &[Case]) -> Vec<Observation> {
    let mut cells: BTreeMap<(&str, u64), (&Case, Vec<f64>, f64)> = BTreeMap::new();
    for case in cases {
        let cell = cells.entry((&case.unit, case.point.signature()));
        let (_, times, weight) = cell.or_insert((case, Vec::new(), 0.0));
        times.push(case.ms.ln());
        *weight += case.weight;
    }
    let cells = cells.into_values().map(|(case, mut times, weight)| {
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        let median = if times.len() % 2 == 1 {
            times[middle]
        } else {
            (times[middle - 1] + times[middle]) / 2.0
        };
        Observation {
            point: case.point.clone(),
            ln_ms: median,
            weight: weight.min(CELL_WEIGHT_MAX),
            belief: 1.0,
        }
    });
    cells.collect()
}

impl Case {
    /// The narrowest group that it belongs to.
    pub(super) fn narrowest(&self) -> &str {
        self.groups.first().map_or("", String::as_str)
    }

    /// Makes a measured whole the time of one of so many parts.
    pub(super) fn share(&mut self, parts: f64) {
        self.ms /= parts;
        self.rated_ms /= parts;
        self.point.divide(parts);
    }
}
