//! Keys hold values of closed grids and lists only.

use super::*;

/// Every value that SimpleTuner 4.10.1 accepts as `base_model_precision`.
const SIMPLETUNER_PRECISIONS: [(&str, Result<Quantization, Unmapped>); 28] = {
    const OUTSIDE: Result<Quantization, Unmapped> = Err(Unmapped::QuantizationOutsidePolicy);
    [
        ("no_change", Ok(Quantization::None)),
        ("int8-quanto", Ok(Quantization::Int8)),
        ("int4-quanto", OUTSIDE),
        ("int2-quanto", OUTSIDE),
        ("int8-torchao", Ok(Quantization::Int8)),
        ("int8dq-torchao", OUTSIDE),
        ("int8dq-int4-torchao", OUTSIDE),
        ("int8-sdnq", Ok(Quantization::Int8)),
        ("uint8-sdnq", OUTSIDE),
        ("int16-sdnq", OUTSIDE),
        ("uint16-sdnq", OUTSIDE),
        ("fp16-sdnq", OUTSIDE),
        ("fp8-sdnq", OUTSIDE),
        ("int6-sdnq", OUTSIDE),
        ("int5-sdnq", OUTSIDE),
        ("uint5-sdnq", OUTSIDE),
        ("uint4-sdnq", OUTSIDE),
        ("uint3-sdnq", OUTSIDE),
        ("uint2-sdnq", OUTSIDE),
        ("nf4-bnb", Ok(Quantization::Nf4)),
        ("int4-torchao", OUTSIDE),
        ("fp8-quanto", OUTSIDE),
        ("fp8uz-quanto", OUTSIDE),
        ("fp8-native", OUTSIDE),
        ("fp8-torchao", OUTSIDE),
        ("fp8wo-torchao", OUTSIDE),
        ("fp8-int4-torchao", OUTSIDE),
        ("fp8-transformerengine", OUTSIDE),
    ]
};

#[test]
fn every_quantisation_of_simpletuner_is_mapped_or_refused_by_the_policy() {
    for (value, quantization) in SIMPLETUNER_PRECISIONS {
        assert_eq!(
            Quantization::from_simpletuner(value),
            quantization,
            "{value}"
        );
    }
    for value in ["", "INT8", "int8", "no", "weights.gguf"] {
        assert_eq!(
            Quantization::from_simpletuner(value),
            Err(Unmapped::UnknownValue),
            "{value}"
        );
    }
}

#[test]
fn every_mixed_precision_of_simpletuner_is_mapped_or_refused_by_the_policy() {
    for (value, precision) in [
        ("fp16", Ok(Precision::Fp16)),
        ("bf16", Ok(Precision::Bf16)),
        ("no", Err(Unmapped::PrecisionOutsidePolicy)),
        ("fp8", Err(Unmapped::PrecisionOutsidePolicy)),
        ("fp32", Err(Unmapped::UnknownValue)),
    ] {
        assert_eq!(Precision::from_simpletuner(value), precision, "{value}");
    }
}

#[test]
fn a_value_between_two_of_a_grid_is_dropped_not_rounded() {
    assert_eq!(BatchSize::new(4).map(BatchSize::get), Some(4));
    for outside in [0, 5, 37, 129, 65_540] {
        assert_eq!(BatchSize::new(outside), None, "{outside}");
    }
    assert_eq!(BatchSize::new(-1), None);
    assert_eq!(Accumulation::new(12), None);
    assert_eq!(InferenceSteps::new(30).map(InferenceSteps::get), Some(30));
    assert_eq!(InferenceSteps::new(256 + 30), None, "must not wrap to 30");
    assert!(serde_json::from_str::<BatchSize>("37").is_err());
    assert_eq!(
        serde_json::to_string(&BatchSize::new(12)).expect("json"),
        "12"
    );
}

#[test]
fn grids_are_sorted_without_repeats() {
    assert!(BatchSize::GRID.is_sorted_by(|a, b| a < b));
    assert!(Accumulation::GRID.is_sorted_by(|a, b| a < b));
    assert!(InferenceSteps::GRID.is_sorted_by(|a, b| a < b));
}

#[test]
fn names_are_the_words_of_the_policy() {
    assert_eq!(Precision::ALL.map(Precision::name), ["fp16", "bf16"]);
    assert_eq!(
        Quantization::ALL.map(Quantization::name),
        ["none", "int8", "nf4"]
    );
    for precision in Precision::ALL {
        assert_eq!(Precision::parse(precision.name()), Some(precision));
        let json = serde_json::to_string(&precision).expect("json");
        assert_eq!(json, format!("\"{precision}\""));
    }
    for quantization in Quantization::ALL {
        assert_eq!(Quantization::parse(quantization.name()), Some(quantization));
        let json = serde_json::to_string(&quantization).expect("json");
        assert_eq!(json, format!("\"{quantization}\""));
    }
}

#[test]
fn a_shape_on_a_hardware_gives_the_shape_back() {
    let shape = TrainingShape {
        recipe: Recipe::parse("flux.dev/lora+ckpt").expect("recipe"),
        resolution: HalfMegapixels::new(2).expect("bucket"),
        batch_size: BatchSize::new(4).expect("grid"),
        accumulation: Accumulation::new(1).expect("grid"),
        precision: Precision::Bf16,
        quantization: Quantization::Int8,
    };
    let hardware: Hardware = "rtx4090".parse().expect("hardware");
    let key = shape.on(hardware);
    assert_eq!(key.shape(), shape);
    assert_eq!(key.hardware, hardware);
    let json = serde_json::to_string(&Key::from(key)).expect("json");
    assert_eq!(
        serde_json::from_str::<Key>(&json).expect("json"),
        Key::Training(key)
    );
}
