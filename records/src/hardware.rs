//! Hardware: the closed registry of GPU models, and a model times a count as one profile.

mod registry;

use std::fmt;
use std::str::FromStr;

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

fn model_of_letters(text: &str) -> Option<GpuModel> {
    let row = MODELS.iter().find(|row| {
        letters(row.name) == text
            || letters(row.slug) == text
            || row.aliases.iter().any(|alias| letters(alias) == text)
    });
    row.map(|row| GpuModel(row.number))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn numbers_are_dense_and_keep_their_model() {
        for (index, row) in (0u8..).zip(&MODELS) {
            assert_eq!(row.number, index, "{}", row.name);
        }
        for (slug, number) in [
            ("cpu", 0),
            ("replay", 1),
            ("rtx3090", 6),
            ("rtx4090", 15),
            ("rtx5090", 20),
            ("rtxa6000", 26),
            ("rtx6000ada", 29),
            ("l40s", 36),
            ("a100-40", 40),
            ("a100-80", 42),
            ("h100", 44),
            ("h200", 47),
            ("b200", 50),
            ("mi300x", 54),
            ("rx7900xtx", 56),
        ] {
            let model = GpuModel::from_number(number).expect(slug);
            assert_eq!(model.slug(), slug);
        }
    }

    #[test]
    fn a_spelling_means_one_model() {
        let mut meanings = BTreeMap::new();
        for row in &MODELS {
            let spellings = [row.name, row.slug]
                .into_iter()
                .chain(row.aliases.iter().copied());
            for spelling in spellings {
                let model = GpuModel(row.number);
                assert_eq!(spelling.parse(), Ok(model), "{spelling}");
                let earlier = meanings.insert(letters(spelling), model);
                assert!(earlier.is_none_or(|earlier| earlier == model), "{spelling}");
            }
        }
    }

    #[test]
    fn spellings_of_published_tables_are_known() {
        for (spelling, slug) in [
            ("RTX 4090 24GB", "rtx4090"),
            ("A10G 24GB", "a10g"),
            ("RTX PRO 6000 Blackwell 96GB", "rtxpro6000"),
            ("V100 16GB SXM2", "v100-16"),
            ("A100 40GB PCIe", "a100-40-pcie"),
            ("A100 80GB SXM4", "a100-80"),
            ("A100-80", "a100-80"),
            ("H100 80GB PCIe", "h100-pcie"),
            ("H100 80GB SXM5", "h100"),
            ("H100", "h100"),
            ("H100 94GB NVL", "h100-nvl"),
            ("H200 141GB NVL", "h200-nvl"),
            ("B200 180GB SXM", "b200"),
            ("MI300X 192GB", "mi300x"),
            ("RX 7900 XTX 24GB", "rx7900xtx"),
            ("A6000", "rtxa6000"),
            ("6000 Ada", "rtx6000ada"),
        ] {
            let model: GpuModel = spelling.parse().expect(spelling);
            assert_eq!(model.slug(), slug, "{spelling}");
        }
    }

    #[test]
    fn the_driver_says_which_board_it_is() {
        for (name, memory_mib, slug) in [
            ("NVIDIA GeForce RTX 4090", 24_564, Some("rtx4090")),
            ("NVIDIA GeForce RTX 4090", 49_140, None),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", 16_376, None),
            ("NVIDIA GeForce RTX 4090 D", 24_564, None),
            ("NVIDIA GeForce RTX 3080", 10_240, Some("rtx3080")),
            ("NVIDIA GeForce RTX 3080", 12_288, None),
            ("NVIDIA H100 80GB HBM3", 81_559, Some("h100")),
            ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9_984, None),
            ("NVIDIA H100 80GB HBM3", 9_984, None),
            ("NVIDIA H100 PCIe", 81_559, Some("h100-pcie")),
            ("NVIDIA H100 NVL", 95_830, Some("h100-nvl")),
            ("NVIDIA H200", 143_771, Some("h200")),
            ("NVIDIA H200 NVL", 143_771, Some("h200-nvl")),
            ("NVIDIA A100-SXM4-40GB", 40_960, Some("a100-40")),
            ("NVIDIA A100 80GB PCIe", 81_920, Some("a100-80-pcie")),
            ("NVIDIA A10G", 23_028, Some("a10g")),
            ("Tesla T4", 15_360, Some("t4")),
            ("NVIDIA L40S", 46_068, Some("l40s")),
            ("NVIDIA B200", 183_359, Some("b200")),
            ("cpu", 0, None),
            ("", u64::MAX, None),
        ] {
            let found = GpuModel::from_nvml_name(name, memory_mib).map(GpuModel::slug);
            assert_eq!(found, slug, "{name} with {memory_mib} MiB");
        }
    }

    #[test]
    fn every_gpu_of_the_table_is_recognised_and_rated() {
        for row in MODELS.iter().filter(|row| row.rated.is_some()) {
            assert!(!row.nvml_names.is_empty(), "{}", row.name);
            for name in row.nvml_names {
                let found = GpuModel::from_nvml_name(name, u64::from(row.memory_gib) * 1024);
                assert_eq!(found, Some(GpuModel(row.number)), "{name}");
            }
        }
        for device in [GpuModel::CPU, GpuModel::REPLAY] {
            assert!(!device.is_gpu() && device.memory_gib() == 0);
        }
        assert!(GpuModel::REPLAY.is_replay() && !GpuModel::CPU.is_replay());
    }

    #[test]
    fn a_profile_reads_as_it_is_written() {
        for hardware in Hardware::all() {
            assert_eq!(hardware.slug().parse(), Ok(hardware));
            assert_eq!(hardware.to_string().parse(), Ok(hardware));
            assert_eq!(Hardware::from_id(hardware.id()), Some(hardware));
            let json = serde_json::to_string(&hardware).expect("json");
            assert_eq!(
                serde_json::from_str::<Hardware>(&json).expect("json"),
                hardware
            );
        }
        let h100: GpuModel = "h100".parse().expect("h100");
        assert_eq!(
            "H100 x2".parse(),
            Ok(Hardware {
                gpu: h100,
                count: 2
            })
        );
        assert_eq!("h100".parse(), Ok(Hardware::one(h100)));
        assert_eq!(Hardware::one(h100).to_string(), "H100 x1");
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for (text, error) in [
            ("", Error::UnknownModel),
            ("x", Error::UnknownModel),
            ("x2", Error::UnknownModel),
            ("h1000", Error::UnknownModel),
            ("h100x3", Error::UnlistedCount),
            ("h100x0", Error::UnlistedCount),
            ("h100x256", Error::UnlistedCount),
            ("h100x", Error::UnlistedCount),
        ] {
            assert_eq!(text.parse::<Hardware>(), Err(error), "{text:?}");
        }
        assert_eq!(Hardware::from_id(0xff01), None);
        assert_eq!(Hardware::from_id(0x0003), None);
        assert!(serde_json::from_str::<GpuModel>("\"GPU-1234-uuid\"").is_err());
    }
}
