//! The kinds of features, and how far the effects of each are thought to lie from zero before anything is measured.
//!
//! Expectation-maximisation finds what the data say; where they cannot tell two kinds apart, these numbers do.

use super::point::SETTINGS;

/// Features of one kind share a prior: how far their effects lie from zero, learnt from the data. The kinds that act on
/// host and arithmetic alike have one group for each of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group(u8);

/// Kinds of effects that act on the host's part and on the GPU's part alike.
#[derive(Debug, Clone, Copy)]
pub(super) enum Both {
    Everything,
    Family,
    Recipe,
    Gpu,
    Quantization,
    QuantizationFine,
    Recomputed,
    Checkpointing,
    Offloaded,
    Method,
    QuantizationRecomputed,
    RecipeQuantization,
    GpuQuantization,
    RecipeRecomputed,
    RecipeCheckpointing,
    GpuRecomputed,
    RecipeOffloaded,
    GpuOffloaded,
    FamilyQuantization,
    MethodQuantization,
    Precision,
    Pixels,
    Batch,
    Size,
    Gpus,
    RecipePixels,
    RecipeBatch,
    GpuPrecision,
    RecipePrecision,
    GpuSize,
    /// Newer or older processors of hosts.
    Processor,
    /// This installation's own hosts of a GPU, beside those of whom published figures are.
    Own,
    /// One kind for each setting.
    Setting,
}
/// Where the kinds of settings begin that depend on the recipe.
pub(super) const RECIPE_SETTING: usize = Both::Setting as usize + SETTINGS;
/// How many kinds there are of these.
pub(super) const BOTH: usize = RECIPE_SETTING + SETTINGS;

/// Kinds of effects that neither part explains.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whole {
    RecipeQuantizationRecomputed,
    RecipeQuantizationCheckpointing,
    RecipeQuantizationOffloaded,
    RecipeGpu,
    RecipeGpuRecomputed,
    RecipeGpuCheckpointing,
    RecipeGpuOffloaded,
    RecipeGpuBatchQuantization,
    RecipeGpuQuantizationRecomputed,
    GpuQuantizationRecomputed,
    GpuQuantizationOffloaded,
    Batch,
    GpuBatch,
    Unrated,
    GpuSettings,
    GpuSettingsBatch,
    RecipeQuantizationSettings,
    RecipeGpuQuantizationSettings,
    SettingPair,
    SettingBatch,
    SettingGpuBatch,
    SettingGpuPrecision,
    SettingQuantization,
    RecipeQuantizationSetting,
    RecipeGpuBatchPrecision,
    GpuSettingPair,
    /// One kind for each setting.
    GpuSetting,
}
const WHOLE: usize = Whole::GpuSetting as usize + SETTINGS;

/// What hosts differ by. In a public collection of people's own times of an image (SD 1.5, fp16, 2023), beside the
/// median of the others with the same GPU, memory, backend, optimisation and batch, those with an RTX 4080 or 4090 lie
/// by a Student-t distribution of scale 0.31 and ten degrees of freedom at batch 1, where such a GPU waits for its host
/// (275 of them), and of scale 0.09 and two degrees at batch 16, where it does not (137 of any GPU). Ten degrees are
/// what the host's side has with one GPU, since its deviation is learnt beside as much as ten GPUs would speak; that of
/// the GPU's side is not learnt, and a little larger instead. Of 47 people who measured two GPUs or more, one says
/// nothing of the other (a correlation of -0.08), so each GPU has an effect of its own and none is shared.
const OWN: [f64; 2] = [0.32, 0.12];

/// What a generation of processors makes of the host's part, and of the GPU's: in the same collection an RTX 4080 or 4090
/// at batch 1 takes a third to four fifths longer beside processors of 2016 and 2017 than beside those of 2020, and a
/// tenth less beside those of 2022; at batch 4 it is a quarter of that.
const PROCESSOR: [f64; 2] = [0.05, 0.01];

/// Deviations of the logarithm before anything is learnt, of the host's part and the GPU's. Arithmetic is known better
/// than what a host takes: parameters and tokens tell it, while launches depend on code.
const fn both(kind: usize) -> [f64; 2] {
    const fn is(kind: usize, one: Both) -> bool {
        kind == one as usize
    }
    if is(kind, Both::Everything) {
        [0.5, 1.0]
    } else if is(kind, Both::Family) || is(kind, Both::Recipe) {
        [0.3, 0.2]
    } else if is(kind, Both::Quantization) || is(kind, Both::Offloaded) {
        [0.5, 0.5]
    } else if is(kind, Both::Recomputed) {
        [0.3, 0.3]
    } else if is(kind, Both::Gpu) {
        [0.15, 0.15]
    } else if is(kind, Both::Own) {
        OWN
    } else if is(kind, Both::Processor) {
        PROCESSOR
    } else if is(kind, Both::Batch) || is(kind, Both::Pixels) {
        // A host launches as many kernels whatever is in them.
        [0.1, 0.2]
    } else if is(kind, Both::RecipeBatch) || is(kind, Both::RecipePixels) {
        [0.05, 0.1]
    } else if is(kind, Both::Gpus)
        || is(kind, Both::GpuQuantization)
        || is(kind, Both::GpuRecomputed)
        || is(kind, Both::GpuOffloaded)
        || is(kind, Both::GpuPrecision)
        || is(kind, Both::GpuSize)
        || is(kind, Both::RecipePrecision)
    {
        [0.1, 0.1]
    } else {
        [0.2, 0.2]
    }
}

const fn whole(kind: usize) -> f64 {
    // A GPU without a rating may be anything.
    if kind == Whole::Unrated as usize {
        1.0
    } else if kind < Whole::RecipeGpu as usize {
        0.1
    } else if kind < Whole::GpuQuantizationRecomputed as usize
        || kind == Whole::RecipeGpuQuantizationSettings as usize
        || kind == Whole::RecipeGpuBatchPrecision as usize
    {
        // On the only GPU that a recipe was measured on nothing tells these from what holds on every GPU.
        0.02
    } else {
        0.05
    }
}

impl Group {
    pub(super) const COUNT: usize = 2 * BOTH + WHOLE;

    pub(super) const fn at(place: usize) -> Self {
        Self(place as u8)
    }

    pub(super) const fn place(self) -> usize {
        self.0 as usize
    }

    /// Whether it is of this installation's own hosts, on either side.
    pub(super) const fn is_own(self) -> bool {
        let place = self.place();
        place == Both::Own as usize || place == BOTH + Both::Own as usize
    }

    /// Whether this is the host's side of a pair.
    pub(super) const fn is_pair(self) -> bool {
        self.place() < BOTH
    }

    /// The group of the other side, where this is the host's side of a pair; `None` for what acts on the whole.
    pub(super) const fn compute(self) -> Option<Self> {
        if self.is_pair() {
            Some(Self::at(BOTH + self.place()))
        } else {
            None
        }
    }
}

/// The deviation that effects of each group are given before anything is measured.
pub(super) const DEVIATIONS: [f64; Group::COUNT] = {
    let mut deviations = [0.0; Group::COUNT];
    let mut kind = 0;
    while kind < BOTH {
        let [host, compute] = both(kind);
        deviations[kind] = host;
        deviations[BOTH + kind] = compute;
        kind += 1;
    }
    while kind < BOTH + WHOLE {
        deviations[BOTH + kind] = whole(kind - BOTH);
        kind += 1;
    }
    deviations
};
