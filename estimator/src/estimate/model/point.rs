//! What the model is told of one measurement or question, as features.
//!
//! A step takes the host some time to launch and the GPU some time to compute, and every feature acts on the
//! logarithm of one of the two, or on that of the whole. Names become numbers by hashing, so that a name that the
//! registries do not know is a feature like any other.

use stepcast_records::hardware::Rated;

use super::group::{BOTH, Both, Group, Part, RECIPE_SETTING, Whole};

/// One feature of one point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feature {
    pub(super) part: Part,
    pub(super) group: Group,
    pub(super) id: u64,
    pub(super) value: f64,
}

/// Settings of a measurement beside those that have a name of their own.
pub(crate) const SETTINGS: usize = 8;

/// What a step or an image asks for, and of what. Absent text is not known, and is no feature.
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
    /// Whether activations are computed again, and in which way.
    pub(crate) checkpointing: [&'a str; 2],
    /// Whether activations wait in the host's memory.
    pub(crate) offloaded: bool,
    /// Attention, compiler, framework, system and so on; empty where nothing is said.
    pub(crate) settings: [&'a str; SETTINGS],
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

/// FNV-1a over a name, then mixed so that every bit depends on every other.
fn name(text: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mixed(hash)
}

const fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

/// A feature's id: its group and the names that it joins.
fn joined(group: usize, names: &[u64]) -> u64 {
    let mut hash = 0x5851_f42d_4c95_7f2d_u64 ^ group as u64;
    for name in names {
        hash = (hash ^ name)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(29);
    }
    mixed(hash)
}

/// The features of a point as they are gathered.
struct Features(Vec<Feature>);

impl Features {
    fn both(&mut self, kind: usize, value: f64, names: &[u64]) {
        for (first, part) in [(0, Part::Host), (BOTH, Part::Compute)] {
            self.push(first + kind, part, value, names);
        }
    }

    fn pair(&mut self, kind: Both, names: &[u64]) {
        self.both(kind as usize, 1.0, names);
    }

    fn slope(&mut self, kind: Both, value: f64, names: &[u64]) {
        self.both(kind as usize, value, names);
    }

    fn whole(&mut self, kind: Whole, names: &[u64]) {
        self.whole_of(kind as usize, names);
    }

    fn whole_of(&mut self, kind: usize, names: &[u64]) {
        self.push(2 * BOTH + kind, Part::Whole, 1.0, names);
    }

    fn push(&mut self, group: usize, part: Part, value: f64, names: &[u64]) {
        self.0.push(Feature {
            part,
            group: Group::at(group),
            id: joined(group, names),
            value,
        });
    }
}

impl Point {
    /// The features of what is asked or was measured; `rated` is that of the GPU, if it has one.
    pub(crate) fn of(traits: &Traits<'_>, rated: Option<Rated>) -> Self {
        let t = traits;
        let (recipe, gpu) = (name(t.recipe), name(t.gpu));
        let coarse = name(t.quantization[0]);
        let recomputed = name(t.checkpointing[0]);
        let batch = mixed(t.batch.to_bits());
        let precision = name(t.precision);
        let mut f = Features(Vec::with_capacity(96));
        f.pair(Both::Everything, &[]);
        f.pair(Both::Family, &[name(t.family)]);
        f.pair(Both::Recipe, &[recipe]);
        f.pair(Both::Gpu, &[gpu]);
        f.pair(Both::Method, &[name(t.method)]);
        f.pair(Both::Quantization, &[coarse]);
        f.pair(Both::RecipeQuantization, &[recipe, coarse]);
        f.pair(Both::GpuQuantization, &[gpu, coarse]);
        f.pair(Both::FamilyQuantization, &[name(t.family), coarse]);
        f.pair(Both::MethodQuantization, &[name(t.method), coarse]);
        f.pair(Both::Recomputed, &[recomputed]);
        f.pair(Both::RecipeRecomputed, &[recipe, recomputed]);
        f.pair(Both::GpuRecomputed, &[gpu, recomputed]);
        f.pair(Both::QuantizationRecomputed, &[coarse, recomputed]);
        f.pair(Both::Precision, &[precision]);
        f.pair(Both::GpuPrecision, &[gpu, precision]);
        f.pair(Both::RecipePrecision, &[recipe, precision]);
        let pixels = t.megapixels.max(1e-3).ln();
        let samples = t.batch.max(1e-3).ln();
        let size = (t.billions / 4.0).max(1e-3).ln();
        f.slope(Both::Pixels, pixels, &[]);
        f.slope(Both::Batch, samples, &[]);
        f.slope(Both::Size, size, &[]);
        f.slope(Both::Gpus, t.gpus.max(1.0).ln(), &[]);
        f.slope(Both::RecipePixels, pixels, &[recipe]);
        f.slope(Both::RecipeBatch, samples, &[recipe]);
        f.slope(Both::GpuSize, size, &[gpu]);
        f.whole(Whole::RecipeGpu, &[recipe, gpu]);
        f.whole(Whole::Batch, &[batch]);
        f.whole(Whole::GpuBatch, &[gpu, batch]);
        f.whole(
            Whole::RecipeQuantizationRecomputed,
            &[recipe, coarse, recomputed],
        );
        f.whole(Whole::RecipeGpuRecomputed, &[recipe, gpu, recomputed]);
        f.whole(Whole::GpuQuantizationRecomputed, &[gpu, coarse, recomputed]);
        f.whole(
            Whole::RecipeGpuBatchQuantization,
            &[recipe, gpu, batch, coarse],
        );
        f.whole(
            Whole::RecipeGpuQuantizationRecomputed,
            &[recipe, gpu, coarse, recomputed],
        );
        f.whole(
            Whole::RecipeGpuBatchPrecision,
            &[recipe, gpu, batch, precision],
        );
        if !t.quantization[1].is_empty() {
            f.pair(Both::QuantizationFine, &[name(t.quantization[1])]);
        }
        if !t.checkpointing[1].is_empty() {
            let fine = name(t.checkpointing[1]);
            f.pair(Both::Checkpointing, &[fine]);
            f.pair(Both::RecipeCheckpointing, &[recipe, fine]);
            f.whole(
                Whole::RecipeQuantizationCheckpointing,
                &[recipe, coarse, fine],
            );
            f.whole(Whole::RecipeGpuCheckpointing, &[recipe, gpu, fine]);
        }
        if t.offloaded {
            f.pair(Both::Offloaded, &[]);
            f.pair(Both::RecipeOffloaded, &[recipe]);
            f.pair(Both::GpuOffloaded, &[gpu]);
            f.whole(Whole::RecipeQuantizationOffloaded, &[recipe, coarse]);
            f.whole(Whole::RecipeGpuOffloaded, &[recipe, gpu]);
            f.whole(Whole::GpuQuantizationOffloaded, &[gpu, coarse]);
        }
        if rated.is_none() {
            f.whole(Whole::Unrated, &[gpu]);
        }
        f.settings(t, [recipe, gpu, coarse, batch, precision]);
        Self {
            host: t.host_ms.max(1e-3).ln(),
            compute: t.compute_ms.max(1e-3).ln(),
            features: f.0,
            recipe,
            gpu,
        }
    }
}

impl Features {
    fn settings(&mut self, t: &Traits<'_>, [recipe, gpu, coarse, batch, precision]: [u64; 5]) {
        let said = t.settings.iter().enumerate();
        let said: Vec<(usize, u64)> = said
            .filter(|(_, text)| !text.is_empty())
            .map(|(place, text)| (place, joined(place, &[name(text)])))
            .collect();
        if said.is_empty() {
            return;
        }
        for &(place, setting) in &said {
            self.both(Both::Setting as usize + place, 1.0, &[setting]);
            self.both(RECIPE_SETTING + place, 1.0, &[recipe, setting]);
            self.whole_of(Whole::GpuSetting as usize + place, &[gpu, setting]);
            self.whole(Whole::SettingBatch, &[setting, batch]);
            self.whole(Whole::SettingGpuBatch, &[gpu, setting, batch]);
            self.whole(Whole::SettingGpuPrecision, &[gpu, setting, precision]);
            self.whole(Whole::SettingQuantization, &[setting, coarse]);
            self.whole(Whole::RecipeQuantizationSetting, &[recipe, setting, coarse]);
        }
        for (at, &(_, one)) in said.iter().enumerate() {
            for &(_, other) in &said[at + 1..] {
                self.whole(Whole::SettingPair, &[one, other]);
                self.whole(Whole::GpuSettingPair, &[gpu, one, other]);
            }
        }
        let all = said
            .iter()
            .fold(0, |all, (_, setting)| joined(0, &[all, *setting]));
        self.whole(Whole::GpuSettings, &[gpu, all]);
        self.whole(Whole::GpuSettingsBatch, &[gpu, all, batch]);
        self.whole(Whole::RecipeQuantizationSettings, &[recipe, coarse, all]);
        self.whole(
            Whole::RecipeGpuQuantizationSettings,
            &[recipe, gpu, coarse, all],
        );
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
