//! What the model is told of one measurement or question, as features.
//!
//! A step takes the host some time to launch and the GPU some time to compute, and every feature acts on the
//! logarithm of both, with an effect for each, or on that of the whole. Names become numbers by hashing, so that a
//! name that the registries do not know is a feature like any other. What is asked for stands apart from the hardware
//! it is asked about, so that a question about twenty hardwares tells it once.

use stepcast_records::hardware::Rated;

use super::group::{BOTH, Both, Group, RECIPE_SETTING, Whole};

/// One feature of one point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feature {
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
    /// What the host is thought to take, for all repeats, in milliseconds.
    pub(crate) host_ms: f64,
    /// How many generations newer than usual the host's processor is; 0 where nothing is said.
    pub(crate) processor: f64,
}

/// The hardware that it runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Board<'a> {
    pub(crate) gpu: &'a str,
    pub(crate) gpus: f64,
    /// `None` for a GPU without a rating.
    pub(crate) rated: Option<Rated>,
    /// What the arithmetic would take at its ratings, for all repeats, in milliseconds.
    pub(crate) compute_ms: f64,
    /// Whether the host is one of this installation's own, and not of those of whom figures are published.
    pub(crate) own: bool,
}

/// What is asked for, on whatever hardware.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    names: Names,
    /// The logarithm of milliseconds.
    pub(super) host: f64,
    /// Those that do not depend on the hardware.
    pub(super) features: Vec<Feature>,
}

/// What features on a GPU are made of.
#[derive(Debug, Clone)]
struct Names {
    recipe: u64,
    quantization: u64,
    recomputed: u64,
    checkpointing: Option<u64>,
    offloaded: bool,
    precision: u64,
    batch: u64,
    size: f64,
    /// Settings that are said, by their places, and all of them together.
    said: Vec<(usize, u64)>,
    all_said: u64,
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
pub(super) fn name(text: &str) -> u64 {
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

/// Where features go as they are told.
struct Told<F>(F);

impl<F: FnMut(Feature)> Told<F> {
    fn both(&mut self, kind: usize, value: f64, names: &[u64]) {
        self.tell(kind, value, names);
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
        self.tell(2 * BOTH + kind, 1.0, names);
    }

    fn tell(&mut self, group: usize, value: f64, names: &[u64]) {
        (self.0)(Feature {
            group: Group::at(group),
            id: joined(group, names),
            value,
        });
    }
}

impl Subject {
    /// The features of what is asked for or was measured.
    pub(crate) fn of(t: &Traits<'_>) -> Self {
        let said = t.settings.iter().enumerate();
        let said: Vec<(usize, u64)> = said
            .filter(|(_, text)| !text.is_empty())
            .map(|(place, text)| (place, joined(place, &[name(text)])))
            .collect();
        let fine = t.checkpointing[1];
        let names = Names {
            recipe: name(t.recipe),
            quantization: name(t.quantization[0]),
            recomputed: name(t.checkpointing[0]),
            checkpointing: (!fine.is_empty()).then(|| name(fine)),
            offloaded: t.offloaded,
            precision: name(t.precision),
            batch: mixed(t.batch.to_bits()),
            size: (t.billions / 4.0).max(1e-3).ln(),
            all_said: said
                .iter()
                .fold(0, |all, (_, setting)| joined(0, &[all, *setting])),
            said,
        };
        let mut features = Vec::with_capacity(64);
        let mut told = Told(|feature| features.push(feature));
        told.plain(t, &names);
        told.settings(&names);
        Self {
            names,
            host: t.host_ms.max(1e-3).ln(),
            features,
        }
    }

    /// The same on a hardware.
    pub(crate) fn on(&self, board: &Board<'_>) -> Point {
        let mut features = self.features.clone();
        let gpu = self.each_on(board, |feature| features.push(feature));
        Point {
            host: self.host,
            compute: board.ln_compute(),
            features,
            recipe: self.names.recipe,
            gpu,
        }
    }

    /// The features that depend on the hardware, one by one; returns the name of the GPU.
    pub(super) fn each_on(&self, board: &Board<'_>, told: impl FnMut(Feature)) -> u64 {
        let gpu = name(board.gpu);
        Told(told).on(&self.names, gpu, board);
        gpu
    }

    pub(super) const fn recipe(&self) -> u64 {
        self.names.recipe
    }
}

impl Board<'_> {
    /// The logarithm of milliseconds.
    pub(super) fn ln_compute(&self) -> f64 {
        self.compute_ms.max(1e-3).ln()
    }
}

impl<F: FnMut(Feature)> Told<F> {
    /// What is asked for.
    fn plain(&mut self, t: &Traits<'_>, names: &Names) {
        let (family, method) = (name(t.family), name(t.method));
        let &Names {
            recipe,
            quantization,
            recomputed,
            precision,
            batch,
            size,
            ..
        } = names;
        self.pair(Both::Everything, &[]);
        self.pair(Both::Family, &[family]);
        self.pair(Both::Recipe, &[recipe]);
        self.pair(Both::Method, &[method]);
        self.pair(Both::Quantization, &[quantization]);
        self.pair(Both::RecipeQuantization, &[recipe, quantization]);
        self.pair(Both::FamilyQuantization, &[family, quantization]);
        self.pair(Both::MethodQuantization, &[method, quantization]);
        self.pair(Both::Recomputed, &[recomputed]);
        self.pair(Both::RecipeRecomputed, &[recipe, recomputed]);
        self.pair(Both::QuantizationRecomputed, &[quantization, recomputed]);
        self.pair(Both::Precision, &[precision]);
        self.pair(Both::RecipePrecision, &[recipe, precision]);
        let pixels = t.megapixels.max(1e-3).ln();
        let samples = t.batch.max(1e-3).ln();
        self.slope(Both::Pixels, pixels, &[]);
        self.slope(Both::Batch, samples, &[]);
        self.slope(Both::Size, size, &[]);
        if t.processor != 0.0 {
            self.slope(Both::Processor, t.processor, &[]);
        }
        self.slope(Both::RecipePixels, pixels, &[recipe]);
        self.slope(Both::RecipeBatch, samples, &[recipe]);
        self.whole(Whole::Batch, &[batch]);
        let two = [recipe, quantization, recomputed];
        self.whole(Whole::RecipeQuantizationRecomputed, &two);
        if !t.quantization[1].is_empty() {
            self.pair(Both::QuantizationFine, &[name(t.quantization[1])]);
        }
        if let Some(fine) = names.checkpointing {
            self.pair(Both::Checkpointing, &[fine]);
            self.pair(Both::RecipeCheckpointing, &[recipe, fine]);
            let two = [recipe, quantization, fine];
            self.whole(Whole::RecipeQuantizationCheckpointing, &two);
        }
        if t.offloaded {
            self.pair(Both::Offloaded, &[]);
            self.pair(Both::RecipeOffloaded, &[recipe]);
            self.whole(Whole::RecipeQuantizationOffloaded, &[recipe, quantization]);
        }
    }

    /// What settings are said, whatever the hardware.
    fn settings(&mut self, names: &Names) {
        let &Names {
            recipe,
            quantization,
            batch,
            ref said,
            ..
        } = names;
        for &(place, setting) in said {
            self.both(Both::Setting as usize + place, 1.0, &[setting]);
            self.both(RECIPE_SETTING + place, 1.0, &[recipe, setting]);
            self.whole(Whole::SettingBatch, &[setting, batch]);
            self.whole(Whole::SettingQuantization, &[setting, quantization]);
            let three = [recipe, setting, quantization];
            self.whole(Whole::RecipeQuantizationSetting, &three);
        }
        for (at, &(_, one)) in said.iter().enumerate() {
            for &(_, other) in &said[at + 1..] {
                self.whole(Whole::SettingPair, &[one, other]);
            }
        }
        if !said.is_empty() {
            let three = [recipe, quantization, names.all_said];
            self.whole(Whole::RecipeQuantizationSettings, &three);
        }
    }

    /// What depends on the hardware.
    fn on(&mut self, names: &Names, gpu: u64, board: &Board<'_>) {
        let &Names {
            recipe,
            quantization,
            recomputed,
            precision,
            batch,
            size,
            ..
        } = names;
        self.pair(Both::Gpu, &[gpu]);
        self.pair(Both::GpuQuantization, &[gpu, quantization]);
        self.pair(Both::GpuRecomputed, &[gpu, recomputed]);
        self.pair(Both::GpuPrecision, &[gpu, precision]);
        self.slope(Both::Gpus, board.gpus.max(1.0).ln(), &[]);
        self.slope(Both::GpuSize, size, &[gpu]);
        if board.own {
            self.pair(Both::Own, &[gpu]);
        }
        self.whole(Whole::RecipeGpu, &[recipe, gpu]);
        self.whole(Whole::GpuBatch, &[gpu, batch]);
        self.whole(Whole::RecipeGpuRecomputed, &[recipe, gpu, recomputed]);
        let three = [gpu, quantization, recomputed];
        self.whole(Whole::GpuQuantizationRecomputed, &three);
        let four = [recipe, gpu, batch, quantization];
        self.whole(Whole::RecipeGpuBatchQuantization, &four);
        let four = [recipe, gpu, quantization, recomputed];
        self.whole(Whole::RecipeGpuQuantizationRecomputed, &four);
        let four = [recipe, gpu, batch, precision];
        self.whole(Whole::RecipeGpuBatchPrecision, &four);
        if let Some(fine) = names.checkpointing {
            self.whole(Whole::RecipeGpuCheckpointing, &[recipe, gpu, fine]);
        }
        if names.offloaded {
            self.pair(Both::GpuOffloaded, &[gpu]);
            self.whole(Whole::RecipeGpuOffloaded, &[recipe, gpu]);
            self.whole(Whole::GpuQuantizationOffloaded, &[gpu, quantization]);
        }
        if board.rated.is_none() {
            self.whole(Whole::Unrated, &[gpu]);
        }
        self.settings_on(names, gpu);
    }

    /// What settings do on a GPU.
    fn settings_on(&mut self, names: &Names, gpu: u64) {
        let &Names {
            recipe,
            quantization,
            precision,
            batch,
            ref said,
            all_said,
            ..
        } = names;
        for &(place, setting) in said {
            self.whole_of(Whole::GpuSetting as usize + place, &[gpu, setting]);
            self.whole(Whole::SettingGpuBatch, &[gpu, setting, batch]);
            self.whole(Whole::SettingGpuPrecision, &[gpu, setting, precision]);
        }
        for (at, &(_, one)) in said.iter().enumerate() {
            for &(_, other) in &said[at + 1..] {
                self.whole(Whole::GpuSettingPair, &[gpu, one, other]);
            }
        }
        if !said.is_empty() {
            self.whole(Whole::GpuSettings, &[gpu, all_said]);
            self.whole(Whole::GpuSettingsBatch, &[gpu, all_said, batch]);
            let four = [recipe, gpu, quantization, all_said];
            self.whole(Whole::RecipeGpuQuantizationSettings, &four);
        }
    }
}

impl Point {
    /// Where its effects stand and how much of each it has, when arithmetic has such a share of its time.
    pub(super) fn slopes(&self, share: f64, place_of: impl Fn(u64) -> u32) -> Vec<(u32, f64)> {
        let mut slopes = Vec::with_capacity(2 * self.features.len());
        for feature in &self.features {
            let (place, value) = (place_of(feature.id), feature.value);
            if feature.group.is_pair() {
                slopes.extend([(place, value * (1.0 - share)), (place + 1, value * share)]);
            } else {
                slopes.push((place, value));
            }
        }
        slopes
    }

    /// The same on one of this installation's own hosts.
    pub(crate) fn on_own_host(mut self) -> Self {
        let (gpu, features) = (self.gpu, &mut self.features);
        Told(|feature| features.push(feature)).pair(Both::Own, &[gpu]);
        self
    }

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
