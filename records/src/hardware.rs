//! Hardware: the closed registry of GPU models, and a model times a count as one profile.

mod registry;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::FromText;
use registry::{MODELS, ModelRow};

/// A GPU model of the registry, or one of the two devices that are none: `cpu` and `replay`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpuModel(u8);

/// What the maker of a GPU rates it at. Measured speed follows the rating for heavy models only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rated {
    /// Dense bf16 tensor throughput in TFLOP/s (fp16 where the board has no bf16).
    pub bf16_tflops: f64,
    /// Memory bandwidth in GB/s.
    pub memory_gb_per_s: f64,
}

/// Equal GPUs on one worker: the hardware profile of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hardware {
    /// The model of each GPU.
    pub gpu: GpuModel,
    /// How many; one of [`Hardware::COUNTS`].
    pub count: u8,
}

/// The text names no hardware of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such model.
    #[error("no such GPU model in the registry")]
    UnknownModel,
    /// The model exists, but the count is not 1, 2, 4 or 8.
    #[error("a hardware profile has 1, 2, 4 or 8 GPUs")]
    UnlistedCount,
}

/// How far below its rated memory a board may report (error correction takes its share), in per cent.
const MEMORY_PERCENT_MIN: u64 = 90;
/// How far above its rated memory a board may report, in per cent.
const MEMORY_PERCENT_MAX: u64 = 105;

impl GpuModel {
    /// No GPU: the trainer runs on the host's processor.
    pub const CPU: Self = Self(0);
    /// A pretend device for demonstrations and tests; its times never mix with real ones.
    pub const REPLAY: Self = Self(1);

    /// The model whose driver reports this name and this much memory; `None` for a board that is not listed.
    ///
    /// A slice of a board (MIG) or a board with other memory than rated is none, since it runs at another speed.
    #[must_use]
    pub fn from_nvml_name(name: &str, memory_mib: u64) -> Option<Self> {
        let name = name.trim();
        let reported = memory_mib.saturating_mul(100);
        MODELS
            .iter()
            .filter(|row| row.nvml_names.contains(&name))
            .find(|row| {
                let rated_mib = u64::from(row.memory_gib) * 1024;
                (rated_mib * MEMORY_PERCENT_MIN..=rated_mib * MEMORY_PERCENT_MAX)
                    .contains(&reported)
            })
            .map(|row| Self(row.number))
    }

    /// The model with this permanent number, or `None`.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        let known = MODELS.iter().any(|row| row.number == number);
        known.then_some(Self(number))
    }

    /// The permanent number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// What people call it, such as `RTX 4090`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// How it is written on the command line, such as `rtx4090`.
    #[must_use]
    pub fn slug(self) -> &'static str {
        self.row().slug
    }

    /// Memory of one board in GiB; 0 for the devices that are no GPU.
    #[must_use]
    pub fn memory_gib(self) -> u16 {
        self.row().memory_gib
    }

    /// What its maker rates it at; `None` for the devices that are no GPU.
    #[must_use]
    pub fn rated(self) -> Option<Rated> {
        self.row().rated
    }

    /// Whether it is the pretend device.
    #[must_use]
    pub fn is_replay(self) -> bool {
        self == Self::REPLAY
    }

    /// Whether it is a GPU.
    #[must_use]
    pub fn is_gpu(self) -> bool {
        self.row().rated.is_some()
    }

    /// Every device of the registry, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        MODELS.iter().map(|row| Self(row.number))
    }

    /// What else a name may mean, with or without a count behind it: `a100` is read as the board with 80 GB, and there are
    /// others that begin so. Nothing for a board's own name, and for none.
    #[must_use]
    pub fn also_meant(text: &str) -> Vec<Self> {
        let whole = letters(text);
        let alone = whole.rsplit_once('x').map_or("", |(model, _)| model);
        let known = [whole.as_str(), alone].into_iter();
        let mut known = known.filter_map(|text| Some((text, model_of_letters(text)?)));
        let Some((said, read)) = known.next() else {
            return Vec::new();
        };
        if [read.name(), read.slug()]
            .map(letters)
            .contains(&said.to_owned())
        {
            return Vec::new();
        }
        let others = MODELS.iter().filter(|row| row.number != read.0);
        let meant = others.filter(|row| {
            let mut names = [row.name, row.slug]
                .into_iter()
                .chain(row.aliases.iter().copied());
            names.any(|name| letters(name).starts_with(said))
        });
        meant.map(|row| Self(row.number)).collect()
    }

    fn row(self) -> &'static ModelRow {
        // The table is dense and sorted, which a test holds, so the number is the index.
        &MODELS[usize::from(self.0)]
    }
}

impl Hardware {
    /// The counts a profile may have.
    pub const COUNTS: [u8; 4] = [1, 2, 4, 8];

    /// So many GPUs of a model, or `None` for a count that no profile has.
    #[must_use]
    pub fn new(gpu: GpuModel, count: u8) -> Option<Self> {
        Self::COUNTS.contains(&count).then_some(Self { gpu, count })
    }

    /// One GPU of a model.
    #[must_use]
    pub const fn one(gpu: GpuModel) -> Self {
        Self { gpu, count: 1 }
    }

    /// The permanent number: the model's in the high byte, the count in the low one.
    #[must_use]
    pub fn id(self) -> u16 {
        u16::from_be_bytes([self.gpu.number(), self.count])
    }

    /// The profile with this permanent number, or `None`.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        let [number, count] = id.to_be_bytes();
        Self::new(GpuModel::from_number(number)?, count)
    }

    /// How it is written on the command line, such as `rtx4090x1`.
    #[must_use]
    pub fn slug(self) -> String {
        format!("{}x{}", self.gpu.slug(), self.count)
    }

    /// Memory of all its GPUs together in GiB.
    #[must_use]
    pub fn memory_gib(self) -> u32 {
        u32::from(self.gpu.memory_gib()) * u32::from(self.count)
    }

    /// Whether it is the pretend device.
    #[must_use]
    pub fn is_replay(self) -> bool {
        self.gpu.is_replay()
    }

    /// Every profile, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        GpuModel::all().flat_map(|gpu| Self::COUNTS.map(|count| Self { gpu, count }))
    }
}

impl FromStr for GpuModel {
    type Err = Error;

    /// Reads a name, a slug or another common spelling, in any letter case and with any separators.
    fn from_str(text: &str) -> Result<Self, Error> {
        model_of_letters(&letters(text)).ok_or(Error::UnknownModel)
    }
}

impl FromStr for Hardware {
    type Err = Error;

    /// Reads `h100x2`, `H100 x2` or a model alone, which means one of it.
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = letters(text);
        if let Some(gpu) = model_of_letters(&text) {
            return Ok(Self::one(gpu));
        }
        let (model, count) = text.rsplit_once('x').ok_or(Error::UnknownModel)?;
        let gpu = model_of_letters(model).ok_or(Error::UnknownModel)?;
        let count = count.parse().map_err(|_| Error::UnlistedCount)?;
        Self::new(gpu, count).ok_or(Error::UnlistedCount)
    }
}

fn known<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Only the letters and digits of a text, in lower case.
fn letters(text: &str) -> String {
    let kept = text.chars().filter(char::is_ascii_alphanumeric);
    kept.map(|c| c.to_ascii_lowercase()).collect()
}

/// Every name of every model, in letters and digits. Rows of a table name their hardware by the million.
static BY_LETTERS: LazyLock<HashMap<String, GpuModel>> = LazyLock::new(|| {
    let mut models = HashMap::new();
    for row in MODELS {
        for name in [row.name, row.slug].iter().chain(row.aliases) {
            // What two models share means the first.
            models.entry(letters(name)).or_insert(GpuModel(row.number));
        }
    }
    models
});

fn model_of_letters(text: &str) -> Option<GpuModel> {
    BY_LETTERS.get(text).copied()
}

impl fmt::Display for GpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for GpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GpuModel({})", self.slug())
    }
}

impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} x{}", self.gpu.name(), self.count))
    }
}

impl fmt::Debug for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hardware({})", self.slug())
    }
}

impl Serialize for GpuModel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.slug())
    }
}

impl<'de> Deserialize<'de> for GpuModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromText::new("a GPU model of the registry", known::<Self>))
    }
}

impl Serialize for Hardware {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}x{}", self.gpu.slug(), self.count))
    }
}

impl<'de> Deserialize<'de> for Hardware {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = FromText::new("a hardware profile of the registry", known::<Self>);
        deserializer.deserialize_str(visitor)
    }
}
