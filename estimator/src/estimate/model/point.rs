//! What the model is told of one measurement or question, as features.
//!
//! A step takes the host some time to launch and the GPU some time to compute, and every feature acts on the
//! logarithm of one of the two, or on that of the whole. Names become numbers by hashing, so that a name that the
//! registries do not know is a feature like any other.

use stepcast_records::hardware::Rated;

/// Which of the logarithms a feature acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Host,
    Compute,
    Whole,
}

/// Features of one kind share a prior: how far their effects lie from zero, learnt from the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group(u8);

/// One feature of one point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feature {
    pub(super) part: Part,
    pub(super) group: Group,
    pub(super) id: u64,
    pub(super) value: f64,
}

/// What a step or an image asks for, and of what. Absent text is a value of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traits<'a> {
    /// Related models share it.
    pub(crate) family: &'a str,
    /// The model or configuration itself.
    pub(crate) recipe: &'a str,
    /// How it is trained, or that it makes images.
    pub(crate) method: &'a str,
    pub(crate) gpu: &'a str,
    pub(crate) gpus: f64,
    /// Coarse and fine.
    pub(crate) quantization: [&'a str; 2],
    pub(crate) precision: &'a str,
    pub(crate) checkpointing: &'a str,
    /// Attention, compiler, framework, system and so on; empty where nothing is said.
    pub(crate) settings: [&'a str; 4],
    pub(crate) batch: f64,
    pub(crate) megapixels: f64,
    pub(crate) billions: f64,
    /// What the host is thought to take, and what the GPU would at its ratings, for all repeats, in milliseconds.
    pub(crate) host_ms: f64,
    pub(crate) compute_ms: f64,
}

/// A point: where the physics start from, and the features that correct them.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    /// Logarithms of milliseconds.
    pub(super) host: f64,
    pub(super) compute: f64,
    pub(super) features: Vec<Feature>,
    /// Recipe and hardware, for telling how new a question is.
    pub(super) recipe: u64,
    pub(super) gpu: u64,
}

/// A kind of feature: its part and the deviation its effects are given before anything is measured.
const fn kind(part: Part, deviation: f64) -> (Part, f64) {
    (part, deviation)
}

use Part::{Compute, Host, Whole};

/// Deviations of the logarithm before anything is learnt, in the order in which [`Point::of`] lists the groups.
/// Arithmetic is known better than what a host takes: parameters and tokens tell it, while launches depend on code.
pub(super) const GROUPS: [(Part, f64); 59] = [
    // Everything; family; recipe; GPU; quantisation, and how it is done; checkpointing; method.
    kind(Host, 0.5),
    kind(Host, 0.4),
    kind(Host, 0.4),
    kind(Host, 0.15),
    kind(Host, 0.5),
    kind(Host, 0.2),
    kind(Host, 0.3),
    kind(Host, 0.2),
    // Quantisation with checkpointing, with the recipe and with the GPU; checkpointing with the recipe and the GPU.
    kind(Host, 0.2),
    kind(Host, 0.2),
    kind(Host, 0.1),
    kind(Host, 0.2),
    kind(Host, 0.1),
    // Settings, and settings with the recipe.
    kind(Host, 0.2),
    kind(Host, 0.2),
    // Precision; doublings of pixels, batch, parameters and GPUs.
    kind(Host, 0.2),
    kind(Host, 0.2),
    kind(Host, 0.2),
    kind(Host, 0.2),
    kind(Host, 0.1),
    // Pixels and batch by recipe; precision with the GPU and with the recipe.
    kind(Host, 0.1),
    kind(Host, 0.1),
    kind(Host, 0.1),
    kind(Host, 0.1),
    kind(Compute, 1.0),
    kind(Compute, 0.2),
    kind(Compute, 0.2),
    kind(Compute, 0.15),
    kind(Compute, 0.5),
    kind(Compute, 0.2),
    kind(Compute, 0.3),
    kind(Compute, 0.2),
    kind(Compute, 0.2),
    kind(Compute, 0.2),
    kind(Compute, 0.1),
    kind(Compute, 0.2),
    kind(Compute, 0.1),
    kind(Compute, 0.2),
    kind(Compute, 0.2),
    kind(Compute, 0.2),
    kind(Compute, 0.2),
    kind(Compute, 0.2),
    kind(Compute, 0.2),
    kind(Compute, 0.1),
    kind(Compute, 0.1),
    kind(Compute, 0.1),
    kind(Compute, 0.1),
    kind(Compute, 0.1),
    // What neither part explains: recipe with quantisation and checkpointing; recipe with GPU; batch as a class,
    // alone and with the GPU; settings with the GPU, one by one and all; settings and GPU and batch.
    kind(Whole, 0.1),
    kind(Whole, 0.05),
    kind(Whole, 0.05),
    kind(Whole, 0.05),
    kind(Whole, 0.05),
    kind(Whole, 0.05),
    kind(Whole, 0.05),
    // A GPU without a rating may be anything.
    kind(Whole, 1.0),
    kind(Whole, 0.05),
    // Recipe, settings and quantisation, alone and with the GPU.
    kind(Whole, 0.1),
    kind(Whole, 0.05),
];

/// Where the groups of the arithmetic and those of the remainder begin.
const COMPUTE_FIRST: u8 = 24;
const WHOLE_FIRST: u8 = 48;

impl Group {
    pub(super) const COUNT: usize = GROUPS.len();

    pub(super) const fn place(self) -> usize {
        self.0 as usize
    }
}

/// FNV-1a over the parts of a feature's name, then mixed so that every bit depends on every other.
fn hash(group: u8, names: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ u64::from(group);
    for name in names {
        for byte in name.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

impl Point {
    /// The features of what is asked or was measured; `rated` is that of the GPU, if it has one.
    pub(crate) fn of(traits: &Traits<'_>, rated: Option<Rated>) -> Self {
        let mut features = Vec::with_capacity(72);
        let t = traits;
        let (coarse, fine) = (t.quantization[0], t.quantization[1]);
        let batch = format!("{}", t.batch);
        let settled: Vec<(String, &str)> = t
            .settings
            .iter()
            .enumerate()
            .filter(|(_, text)| !text.is_empty())
            .map(|(place, text)| (place.to_string(), *text))
            .collect();
        for first in [0_u8, COMPUTE_FIRST] {
            let mut add = |group: u8, value: f64, names: &[&str]| {
                features.push(Feature::new(first + group, value, names));
            };
            add(0, 1.0, &[]);
            add(1, 1.0, &[t.family]);
            add(2, 1.0, &[t.recipe]);
            add(3, 1.0, &[t.gpu]);
            add(4, 1.0, &[coarse]);
            add(5, 1.0, &[fine]);
            add(6, 1.0, &[t.checkpointing]);
            add(7, 1.0, &[t.method]);
            add(8, 1.0, &[coarse, t.checkpointing]);
            add(9, 1.0, &[t.recipe, coarse]);
            add(10, 1.0, &[t.gpu, coarse]);
            add(11, 1.0, &[t.recipe, t.checkpointing]);
            add(12, 1.0, &[t.gpu, t.checkpointing]);
            for (place, text) in &settled {
                add(13, 1.0, &[place, text]);
                add(14, 1.0, &[t.recipe, place, text]);
            }
            add(15, 1.0, &[t.precision]);
            add(16, (t.megapixels.max(1e-3)).ln(), &[]);
            add(17, t.batch.max(1e-3).ln(), &[]);
            add(18, (t.billions / 4.0).max(1e-3).ln(), &[]);
            add(19, t.gpus.max(1.0).ln(), &[]);
            add(20, t.megapixels.max(1e-3).ln(), &[t.recipe]);
            add(21, t.batch.max(1e-3).ln(), &[t.recipe]);
            add(22, 1.0, &[t.gpu, t.precision]);
            add(23, 1.0, &[t.recipe, t.precision]);
        }
        let mut add = |group: u8, names: &[&str]| {
            features.push(Feature::new(group, 1.0, names));
        };
        add(WHOLE_FIRST, &[t.recipe, coarse, t.checkpointing]);
        add(WHOLE_FIRST + 1, &[t.recipe, t.gpu]);
        add(WHOLE_FIRST + 2, &[&batch]);
        add(WHOLE_FIRST + 3, &[t.gpu, &batch]);
        for (place, text) in &settled {
            add(WHOLE_FIRST + 4, &[t.gpu, place, text]);
        }
        if !settled.is_empty() {
            let [a, b, c, d] = t.settings;
            add(WHOLE_FIRST + 5, &[t.gpu, a, b, c, d]);
            add(WHOLE_FIRST + 6, &[t.gpu, a, b, c, d, &batch]);
            add(WHOLE_FIRST + 9, &[t.recipe, coarse, a, b, c, d]);
            add(WHOLE_FIRST + 10, &[t.recipe, t.gpu, coarse, a, b, c, d]);
        }
        if rated.is_none() {
            add(WHOLE_FIRST + 7, &[t.gpu]);
        }
        add(WHOLE_FIRST + 8, &[t.recipe, t.gpu, &batch, coarse]);
        Self {
            host: t.host_ms.max(1e-3).ln(),
            compute: t.compute_ms.max(1e-3).ln(),
            features,
            recipe: hash(2, &[t.recipe]),
            gpu: hash(3, &[t.gpu]),
        }
    }
}

impl Feature {
    fn new(group: u8, value: f64, names: &[&str]) -> Self {
        Self {
            part: GROUPS[usize::from(group)].0,
            group: Group(group),
            id: hash(group, names),
            value,
        }
    }
}

impl Point {
    /// Makes the time of a whole that of one of so many parts.
    pub(crate) fn divide(&mut self, parts: f64) {
        self.host -= parts.ln();
        self.compute -= parts.ln();
    }

    /// The same for points that the model cannot tell apart.
    pub(crate) fn signature(&self) -> u64 {
        let mut hash = self.host.to_bits() ^ self.compute.to_bits().rotate_left(17);
        for feature in &self.features {
            hash = (hash ^ feature.id ^ feature.value.to_bits().rotate_left(31))
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(23);
        }
        hash
    }
}
