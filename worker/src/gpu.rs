//! The devices this worker offers: what the NVIDIA driver reports, the bare processor, or pretend ones for replays.

use nvml_wrapper::Nvml;
use stepcast_records::{GpuModel, Hardware};

/// Devices a worker can offer: placements name them by a number of one byte, and no host has nearly as many.
const MAX_DEVICES: usize = 64;

/// One device that attempts may be placed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// What it is.
    pub model: GpuModel,
    /// The driver's number for it, which CUDA shares when ordered by PCI bus. None for a device that is no GPU.
    pub index: Option<u32>,
}

/// Which devices to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// The host's NVIDIA GPUs.
    Gpus,
    /// The processor, as one device.
    Cpu,
    /// So many pretend devices, for replays only.
    Replay(u8),
}

/// The devices to offer, in the order in which placements number them, and remarks for the log.
///
/// Boards that are not in the registry and boards cut into slices (MIG) are left out: no estimate could hold for them.
pub fn devices(offer: Offer) -> (Vec<Device>, Vec<String>) {
    match offer {
        Offer::Cpu => (
            vec![Device {
                model: GpuModel::CPU,
                index: None,
            }],
            Vec::new(),
        ),
        Offer::Replay(count) => {
            let count = usize::from(count).min(MAX_DEVICES);
            (
                vec![
                    Device {
                        model: GpuModel::REPLAY,
                        index: None
                    };
                    count
                ],
                Vec::new(),
            )
        }
        Offer::Gpus => match Nvml::init() {
            Ok(nvml) => from_boards(boards(&nvml)),
            Err(error) => (
                Vec::new(),
                vec![format!(
                    "no NVIDIA driver library, so no GPU is offered ({error}); use --cpu to offer the processor"
                )],
            ),
        },
    }
}

/// The hardware profile of an attempt on these devices: one model, a count that a profile may have.
pub fn hardware(devices: &[Device]) -> Option<Hardware> {
    let (first, rest) = devices.split_first()?;
    if rest.iter().any(|device| device.model != first.model) {
        return None;
    }
    Hardware::new(first.model, u8::try_from(devices.len()).ok()?)
}

/// What the driver says of one board; serial numbers and UUIDs are never asked for.
struct Board {
    index: u32,
    name: String,
    memory_mib: u64,
    sliced: bool,
}

fn boards(nvml: &Nvml) -> Vec<Result<Board, String>> {
    let count = nvml.device_count().unwrap_or(0);
    (0..count)
        .map(|index| {
            board(nvml, index).map_err(|error| format!("GPU {index} does not answer: {error}"))
        })
        .collect()
}

fn board(nvml: &Nvml, index: u32) -> Result<Board, nvml_wrapper::error::NvmlError> {
    let device = nvml.device_by_index(index)?;
    let memory_mib = device.memory_info()?.total / (1024 * 1024);
    // Boards without the feature answer with an error, which means that they are whole.
    let sliced = device.mig_mode().is_ok_and(|mode| mode.current != 0);
    Ok(Board {
        index,
        name: device.name()?,
        memory_mib,
        sliced,
    })
}

fn from_boards(boards: Vec<Result<Board, String>>) -> (Vec<Device>, Vec<String>) {
    let mut devices = Vec::new();
    let mut remarks = Vec::new();
    for board in boards {
        let board = match board {
            Ok(board) => board,
            Err(remark) => {
                remarks.push(remark);
                continue;
            }
        };
        let Board {
            index,
            name,
            memory_mib,
            sliced,
        } = board;
        match GpuModel::from_nvml_name(&name, memory_mib) {
            Some(_) if sliced => remarks.push(format!(
                "GPU {index} ({name}) is cut into slices and is left out"
            )),
            Some(_) if devices.len() == MAX_DEVICES => {
                remarks.push(format!("GPU {index} is one too many and is left out"))
            }
            Some(model) => devices.push(Device {
                model,
                index: Some(index),
            }),
            None => remarks.push(format!(
                "GPU {index} ({name}, {memory_mib} MiB) is not in the registry and is left out"
            )),
        }
    }
    (devices, remarks)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn board(index: u32, name: &str, memory_mib: u64, sliced: bool) -> Result<Board, String> {
        Ok(Board {
            index,
            name: name.to_owned(),
            memory_mib,
            sliced,
        })
    }

    #[test]
    fn only_whole_boards_of_the_registry_are_offered() {
        let (devices, remarks) = from_boards(vec![
            board(0, "NVIDIA GeForce RTX 4090", 24_564, false),
            board(1, "Some Other Board", 8_192, false),
            Err("GPU 2 does not answer: lost".to_owned()),
            board(3, "NVIDIA H100 80GB HBM3", 81_559, true),
            board(4, "NVIDIA GeForce RTX 4090", 24_564, false),
        ]);
        let indexes: Vec<_> = devices.iter().map(|device| device.index).collect();
        assert_eq!(indexes, [Some(0), Some(4)]);
        assert_eq!(remarks.len(), 3);
        assert_eq!(hardware(&devices).unwrap().to_string(), "RTX 4090 x2");
    }

    #[test]
    fn mixed_or_odd_numbers_of_devices_are_no_profile() {
        let (replay, _) = devices(Offer::Replay(3));
        let (cpu, _) = devices(Offer::Cpu);
        assert_eq!(hardware(&replay), None);
        assert_eq!(hardware(&[replay[0], cpu[0]]), None);
        assert!(hardware(&replay[..2]).unwrap().is_replay());
        assert_eq!(hardware(&[]), None);
    }
}
