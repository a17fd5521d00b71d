//! How old a host's processor is, from what Python's `platform.processor()` says of it.

/// The generation that the value 0 stands for: the middle of the collection.
const USUAL: f64 = 11.0;

/// How many generations newer than usual a processor is, such as `Intel64 Family 6 Model 183 Stepping 1`; `None` for what
/// says less, such as `x86_64`.
///
/// Generations are those of Intel's Core processors; AMD's stand beside those of the same years. Families and models are
/// those of the vendors' CPUID, as the Linux kernel's `intel-family.h` and AMD's revision guides list them.
pub(super) fn generation(text: &str) -> Option<f64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [
        vendor,
        "Family",
        family,
        "Model",
        model,
        "Stepping",
        stepping,
    ] = words[..]
    else {
        return None;
    };
    let number = |word: &str| word.parse::<u32>().ok();
    let (family, model, stepping) = (number(family)?, number(model)?, number(stepping)?);
    let generation = match (vendor, family, model) {
        ("Intel64", 6, 44) => 1.0,
        ("Intel64", 6, 42 | 45) => 2.0,
        ("Intel64", 6, 58 | 62) => 3.0,
        ("Intel64", 6, 60 | 63) => 4.0,
        ("Intel64", 6, 79) => 5.0,
        ("Intel64", 6, 78 | 94) => 6.0,
        ("Intel64", 6, 85) => 7.0,
        // Kaby Lake and both of Coffee Lake have one number.
        ("Intel64", 6, 142 | 158) => match stepping {
            ..=9 => 7.0,
            10 | 11 => 8.0,
            _ => 9.0,
        },
        ("Intel64", 6, 126 | 165 | 166) => 10.0,
        ("Intel64", 6, 140 | 141 | 167) => 11.0,
        ("Intel64", 6, 143 | 151 | 154) => 12.0,
        ("Intel64", 6, 183 | 186 | 191) => 13.0,
        ("Intel64", 6, 197 | 198) => 15.0,
        ("AMD64", 23, 1 | 17) => 7.0,
        ("AMD64", 23, 8 | 24) => 8.0,
        ("AMD64", 23, 49 | 96 | 104 | 113) => 9.5,
        ("AMD64", 25, 1 | 8 | 33 | 80) => 11.0,
        ("AMD64", 25, 68) => 12.0,
        ("AMD64", 25, 97 | 116 | 117) => 13.0,
        ("AMD64", 26, _) => 15.0,
        _ => return None,
    };
    Some(generation - USUAL)
}

#[cfg(test)]
mod tests {
    use super::generation;

    #[test]
    fn what_python_says_of_a_processor() {
        let newer = |text| generation(text).expect("known");
        assert!(
            newer("Intel64 Family 6 Model 183 Stepping 1")
                > newer("AMD64 Family 25 Model 33 Stepping 0")
        );
        assert!(
            newer("Intel64 Family 6 Model 158 Stepping 13")
                > newer("Intel64 Family 6 Model 158 Stepping 9")
        );
        for unknown in [
            "",
            "x86_64",
            "arm",
            "AMD64 Family 25",
            "AMD64 Family 99 Model 1 Stepping 0",
        ] {
            assert_eq!(generation(unknown), None, "{unknown}");
        }
    }
}
