//! The registry of hardware is permanent, and spellings and boards find their model.

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
fn a_name_that_several_boards_share_says_which_others_it_may_mean() {
    for (text, others) in [
        ("a100", "a100-40 a100-40-pcie a100-80-pcie"),
        ("A100 x2", "a100-40 a100-40-pcie a100-80-pcie"),
        ("A100 PCIe", "a100-40-pcie"),
        ("v100", "v100-16-pcie v100-32"),
        ("a100-80", ""),
        ("A100 80GB", ""),
        ("A100 80GB SXM", ""),
        ("h100", ""),
        ("h100x8", ""),
        ("l4", ""),
        ("rtx4090", ""),
        ("rtx9090", ""),
        ("", ""),
    ] {
        let meant = GpuModel::also_meant(text);
        let slugs: Vec<&str> = meant.into_iter().map(GpuModel::slug).collect();
        assert_eq!(slugs.join(" "), others, "{text}");
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
