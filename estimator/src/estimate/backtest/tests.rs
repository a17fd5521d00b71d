//! Backtests on small tables: what is counted and skipped, and that errors are what they are called.

use super::*;

const STEP_TIMES: &str = "model,recipe,method,gpu,gpu_count,resolution_effective,frames,megapixels,mp_bucket,batch,grad_accum,precision,quantization,quant_class,grad_checkpointing,attention,compile,step_ms,status,quality\n";

fn step(recipe: &str, gpu: &str, batch: u32, ms: &str, status: &str, quality: &str) -> String {
    format!(
        "x,{recipe},lora,{gpu},1,1024x1024,1,1.05,1.0,{batch},1,bf16,bf16,none,layer,default,,{ms},{status},{quality}\n"
    )
}

fn steps() -> String {
    let mut text = STEP_TIMES.to_owned();
    for recipe in ["flux.a", "sdxl.b", "qwen_image.c", "sana.d"] {
        for (gpu, slower) in [("H100 80GB", 1.0), ("L40S 48GB", 2.5)] {
            for batch in [1, 2, 4, 8] {
                let ms = format!("{}", 900.0 * slower * f64::from(batch));
                text += &step(recipe, gpu, batch, &ms, "ok", "A");
            }
        }
    }
    text
}

#[test]
fn every_row_is_estimated_or_left_out_for_a_reason() {
    let mut test = STEP_TIMES.to_owned();
    test += &step("flux.a", "H100 80GB", 2, "1800", "ok", "A");
    test += &step("flux.a", "H100 80GB", 2, "1800", "oom", "A");
    test += &step("flux.a", "H100 80GB", 2, "-1", "ok", "A");
    test += &step("flux.a", "H100 80GB", 2, "NaN", "ok", "A");
    test += &step("flux.a", "H100 80GB", 2, "1800", "ok", "P");
    test += &step("never.seen", "some new board", 2, "1800", "ok", "B");
    let report = backtest(&[steps()], &test, Format::StepTimes, false).expect("report");
    assert_eq!((report.rows, report.used, report.trained), (6, 2, 32));
    let skipped: Vec<(&str, usize)> = report
        .skipped
        .iter()
        .map(|(why, n)| (why.as_str(), *n))
        .collect();
    assert_eq!(
        skipped,
        [
            ("no step time", 2),
            ("not measured", 1),
            ("quality below B", 1)
        ]
    );
    let bases: Vec<(&str, usize)> = report
        .by_basis
        .iter()
        .map(|(basis, n)| (basis.as_str(), *n))
        .collect();
    assert_eq!(bases, [("near", 1), ("rough", 1)]);
}

#[test]
fn a_world_with_a_rule_is_understood() {
    let report = folds(&steps(), Format::StepTimes, 4, 1).expect("report");
    assert_eq!(report.used, 32);
    let median = report.score.median_ape.expect("answers");
    let simple = report.baselines.group_median.median_ape.expect("answers");
    assert!(median < 0.15 && median < simple, "{median} {simple}");
}

#[test]
fn other_hardware_is_learnt_from_anchors() {
    let reports =
        other_hardware(&steps(), Format::StepTimes, ["h100", "l40s"], 2, 0..2).expect("reports");
    assert_eq!(reports.len(), 2);
    for report in reports {
        assert_eq!((report.used, report.trained), (8, 24));
        assert!(report.score.median_ape.expect("answers") < 0.3);
    }
    let few = other_hardware(&steps(), Format::StepTimes, ["h100", "l40s"], 4, 0..1);
    assert!(few.is_err(), "no recipe is left to estimate");
}

#[test]
fn the_score_of_known_answers() {
    let score = Score::of(&[([80.0, 100.0, 120.0], 100.0), ([80.0, 100.0, 120.0], 125.0)]);
    assert_eq!(score.median_ape, Some(0.1));
    assert_eq!(
        (score.inside_p10_p90, score.below_p90),
        (Some(0.5), Some(0.5))
    );
    // (0.1 * 20 + 0 + 0.1 * 20) / 3 / 100, and (0.1 * 45 + 0.5 * 25 + 0.9 * 5) / 3 / 125.
    let pinball = score.pinball.expect("answers");
    assert!((pinball - (4.0 / 300.0 + 21.5 / 375.0) / 2.0).abs() < 1e-12);
    assert_eq!(Score::of(&[]).median_ape, None);
}

#[test]
fn a_file_of_another_format_is_named() {
    let error = backtest(&[], &steps(), Format::Mlperf, true).expect_err("another header");
    assert!(
        error.to_string().contains("benchmark") || error.to_string().contains("org"),
        "{error}"
    );
    let nothing =
        backtest(&[], &steps(), Format::StepTimes, false).expect_err("nothing to learn from");
    assert!(nothing.to_string().contains("nothing to learn from"));
}

#[test]
fn images_and_records_are_read_too() {
    let sweeps = "model,gpu,gpu_count,megapixels,frames,steps,batch,precision,quantization,compile,fuse_qkv,attention,framework,ms_per_image,status\n\
        SDXL,A10,1,1.0,1,30,4,fp16,none,,,xformers,diffusers,1670,ok\nSDXL,A10,1,1.0,1,,4,fp16,none,,,,diffusers,9,ok\n";
    let report = backtest(&[sweeps.to_owned()], sweeps, Format::Sweeps, false).expect("report");
    assert_eq!((report.rows, report.used), (2, 1));
    assert!(
        report.score.median_ape.expect("an answer") < 0.05,
        "it was learnt from"
    );
    let records = format!(
        "{}\nflux.dev/lora,h100,1.0,4,1,bf16,int8,900,120\n",
        crate::import::TRAINING_HEADER
    );
    let report = backtest(&[], &records, Format::Records, true).expect("report");
    assert_eq!((report.used, report.rows), (1, 1));
}
