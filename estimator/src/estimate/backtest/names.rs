//! What collections call models and GPUs, and which those are.

use stepcast_records::GpuModel;
use stepcast_records::hardware::Rated;

use super::super::size;

/// A network that a name stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network<'a> {
    /// The family in the registry, or the name itself.
    pub(super) family: &'a str,
    pub(super) billions: f64,
    pub(super) layers: f64,
}

/// Beginnings of names without regard to case, spaces and punctuation; family, flavour. The first that fits counts.
const MODELS: [(&str, &str, &str); 51] = [
    ("acestep", "ace_step", ""),
    ("anima", "anima", ""),
    ("anyflow", "anima", ""),
    ("auraflow", "auraflow", ""),
    ("boogu", "boogu_image", ""),
    ("cascade", "stable_cascade", ""),
    ("stablecascade", "stable_cascade", ""),
    ("chroma", "chroma", ""),
    ("cosmos2", "cosmos", "2b"),
    ("cosmos3edge", "cosmos3", "edge"),
    ("cosmos3", "cosmos3", ""),
    ("ernie", "ernie", ""),
    ("blackforestlabsflux1", "flux", "dev"),
    ("flux2", "flux2", ""),
    ("flux", "flux", "dev"),
    ("hidream", "hidream", "full"),
    ("hunyuanvideo", "hunyuanvideo", ""),
    ("ideogram", "ideogram", ""),
    ("kandinsky5image", "kandinsky5_image", ""),
    ("kandinsky5video2b", "kandinsky5_video", ""),
    ("kandinsky5video", "kandinsky5_video", ""),
    ("kolors", "kolors", ""),
    ("krea2", "krea2", ""),
    ("longcatimage", "longcat_image", ""),
    ("longcatvideo", "longcat_video", ""),
    ("ltxvideo2", "ltxvideo2", ""),
    ("ltx2", "ltxvideo2", ""),
    ("ltx", "ltxvideo", ""),
    ("lumina2", "lumina2", ""),
    ("mageflow", "mageflow", ""),
    ("minimaxh3", "minimaxh3", ""),
    ("omnigen", "omnigen", ""),
    ("pixart", "pixart", "900M"),
    ("qwenimage", "qwen_image", ""),
    ("sanavideo", "sanavideo", ""),
    ("sana", "sana", ""),
    ("sd14", "sd1x", ""),
    ("sd15", "sd1x", ""),
    ("sd1x", "sd1x", ""),
    ("stablediffusionv1", "sd1x", ""),
    ("sdcontrolnet", "sd1x", ""),
    ("sd2", "sd2x", ""),
    ("sd35large", "sd3", "large"),
    ("sd3", "sd3", ""),
    ("sdxl", "sdxl", ""),
    ("wan21t2v13b", "wan", "1.3b"),
    ("wan", "wan", ""),
    ("zimage", "z_image", ""),
    ("zlab", "zlab_i1", ""),
    ("cogvideox2b", "cogvideox", "2b"),
    ("cogvideox", "cogvideox", "5b"),
];

/// The network that a model's or a configuration's name stands for.
pub(super) fn network(name: &str) -> Network<'_> {
    let letters: String = letters(name);
    let known = MODELS.iter().find(|(start, ..)| letters.starts_with(start));
    let (family, flavour) = known.map_or((name, ""), |&(_, family, flavour)| (family, flavour));
    let billions = match (family, flavour) {
        ("cogvideox", "2b") => 2.0,
        ("cogvideox", _) => 5.0,
        _ => size::billions_of(family, flavour),
    };
    Network {
        family,
        billions,
        layers: size::layers(family),
    }
}

/// What a GPU is rated at. A slice of one (MIG) has its share of the arithmetic, in sevenths, and of the memory.
pub(super) fn rated(name: &str) -> Option<Rated> {
    let Some((board, slice)) = name.split_once(" MIG ") else {
        return gpu(name)?.rated();
    };
    let board = gpu(board)?;
    let (sevenths, memory) = slice.trim().split_once("g.")?;
    let sevenths: f64 = sevenths.parse().ok()?;
    let memory: f64 = memory.trim_end_matches("gb").parse().ok()?;
    let whole = f64::from(board.memory_gib());
    // Names of slices round the memory up.
    if !(1.0..=7.0).contains(&sevenths) || !(1.0..=1.1 * whole).contains(&memory) {
        return None;
    }
    let rated = board.rated()?;
    Some(Rated {
        bf16_tflops: rated.bf16_tflops * sevenths / 7.0,
        memory_gb_per_s: rated.memory_gb_per_s * memory / whole,
    })
}

/// The GPU that a name stands for; `None` for one without a place in the registry.
pub(super) fn gpu(name: &str) -> Option<GpuModel> {
    let plain = name
        .replace("NVIDIA ", "")
        .replace("GeForce ", "")
        .replace("Tesla ", "");
    let plain = plain.trim();
    if plain.contains("MIG") || plain.contains("Laptop") {
        return None;
    }
    let words: Vec<&str> = plain.split([' ', '-']).collect();
    let is_size = |word: &&str| {
        let number = word.strip_suffix("GB");
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let (sizes, others): (Vec<&str>, Vec<&str>) = words.into_iter().partition(is_size);
    // "A100-SXM4-40GB" is "A100 40GB SXM4" to the registry, or without the socket's number.
    let (model, form) = others.split_first()?;
    let size_second = [&[*model], &sizes[..], form].concat().join(" ");
    let sockets: Vec<&str> = others
        .iter()
        .map(|word| match word.strip_prefix("SXM") {
            Some(_) => "SXM",
            None => word,
        })
        .collect();
    let any_socket = [&sockets[..1], &sizes[..], &sockets[1..]]
        .concat()
        .join(" ");
    // "L40S 48GB": the size of the memory is no part of a name where there is one size only.
    let without_size = sockets.join(" ");
    let tries = [name, plain, &size_second, &any_socket, &without_size];
    let found = tries.iter().find_map(|name| name.parse().ok());
    found.or_else(|| {
        let inner = plain.split(['(', ')']).nth(1)?;
        inner.split(['-', ' ']).next()?.parse().ok()
    })
}

fn letters(name: &str) -> String {
    let kept = name.chars().filter(|c| c.is_ascii_alphanumeric());
    kept.map(|c| c.to_ascii_lowercase()).collect()
}

/// What is left of a setting's spellings: the first word without what follows a slash or a colon.
pub(super) fn first_word(text: &str) -> &str {
    text.split(['/', ':']).next().unwrap_or(text).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_are_known_by_whatever_collections_call_them() {
        for (name, slug) in [
            ("NVIDIA A100-SXM4-40GB", "a100-40"),
            ("NVIDIA A100-PCIE-40GB", "a100-40-pcie"),
            ("Tesla V100-SXM2-16GB", "v100-16"),
            ("NVIDIA H100-SXM5-80GB", "h100"),
            ("NVIDIA H200-SXM5-141GB", "h200"),
            ("NVIDIA Blackwell GPU (B200-SXM-180GB)", "b200"),
            ("NVIDIA A100 80GB PCIe", "a100-80-pcie"),
            ("L40S 48GB", "l40s"),
            ("RTX 4060 Ti 16GB", "rtx4060ti-16"),
            ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ] {
            assert_eq!(gpu(name).map(GpuModel::slug), Some(slug), "{name}");
        }
        for name in [
            "TPU-v5p",
            "RTX 3070 Laptop 8GB",
            "NVIDIA H100 PCIe MIG 1g.10gb",
            "",
            "-",
            "GB",
        ] {
            assert_eq!(gpu(name), None, "{name}");
        }
        assert!(rated("NVIDIA H100 PCIe MIG 1g.10gb").is_some());
        for slice in [
            "0g.10gb",
            "1g.0gb",
            "-1g.10gb",
            "NaNg.10gb",
            "1g.infgb",
            "1e300g.10gb",
            "g.gb",
        ] {
            let name = format!("NVIDIA H100 PCIe MIG {slice}");
            assert!(rated(&name).is_none(), "{name}");
        }
    }
}
