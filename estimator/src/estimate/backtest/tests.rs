//! Backtests on small tables: what is counted and skipped, and that errors are what they are called.

use super::*;

/// No file to learn from.
const NONE: &[&str] = &[];

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

/// What was counted, and how often.
fn counted(counts: &BTreeMap<String, usize>) -> Vec<(&str, usize)> {
    let each = counts.iter().map(|(what, count)| (what.as_str(), *count));
    each.collect()
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
    assert_eq!(
        counted(&report.skipped),
        [
            ("no step time", 2),
            ("not measured", 1),
            ("quality below B", 1)
        ]
    );
    assert_eq!(counted(&report.by_basis), [("near", 1), ("rough", 1)]);
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
fn each_recipe_is_estimated_from_the_others() {
    let reports = each_recipe(&steps(), Format::StepTimes).expect("reports");
    assert_eq!(reports.len(), 4);
    for (recipe, report) in reports {
        assert_eq!((report.used, report.trained), (8, 24), "{recipe}");
        assert_eq!(report.by_basis.keys().collect::<Vec<_>>(), ["rough"]);
    }
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
    for (format, missing) in [
        (Format::Mlperf, "`org`"),
        (Format::Sweeps, "`megapixels`"),
        (Format::Sdnext, "`timestamp`"),
    ] {
        let header = steps().replace("megapixels", "size");
        let error = backtest(NONE, &header, format, true).expect_err("another header");
        let error = error.to_string();
        assert!(
            error.contains(&format!("the file to estimate: it has no column {missing}")),
            "{error}"
        );
    }
    let error = backtest(
        &[steps(), steps().replace(',', ";")],
        steps(),
        Format::StepTimes,
        true,
    );
    let error = error.expect_err("not separated by commas").to_string();
    assert!(
        error.contains("the file to learn from, number 2 of 2: it has no column `model`"),
        "{error}"
    );
    let empty = backtest(&[steps()], "", Format::StepTimes, true).expect_err("no header");
    assert!(empty.to_string().contains("it is empty"), "{empty}");
    let nothing =
        backtest(NONE, steps(), Format::StepTimes, false).expect_err("nothing to learn from");
    assert!(nothing.to_string().contains("nothing to learn from"));
    let unusable = STEP_TIMES.to_owned() + &step("flux.a", "H100 80GB", 2, "", "oom", "A");
    let nothing = backtest(&[unusable], steps(), Format::StepTimes, false).expect_err("no row");
    let nothing = nothing.to_string();
    assert!(
        nothing.contains("none of 1 rows to learn from can be used (1: not measured)"),
        "{nothing}"
    );
}

#[test]
fn one_broken_line_is_counted_and_the_others_are_estimated() {
    let right = step("flux.a", "H100 80GB", 2, "1800", "ok", "A");
    let odd = [
        "x,flux.a,lora,H100 80GB\n".to_owned(),
        format!("{},more\n", right.trim_end()),
        step("flux.a", "H100 80GB", 2, "1e300", "ok", "A"),
        step("flux.a", "H100 80GB", 2, "1e-300", "ok", "A"),
        right.replace(',', " , "),
        "\"never closed,flux.a\n".to_owned(),
    ];
    let test = format!("\u{feff}{STEP_TIMES}{right}\n{}", odd.concat()).replace('\n', "\r\n");
    let report = backtest(&[steps()], &test, Format::StepTimes, false).expect("report");
    assert_eq!((report.rows, report.used), (7, 2));
    assert_eq!(
        counted(&report.skipped),
        [
            ("a quotation mark is not closed", 1),
            ("another number of cells than the header", 2),
            ("no step time", 2)
        ]
    );
    // A time that cannot be one is not learnt from either.
    let spoilt = backtest(&[steps() + &odd.concat()], &test, Format::StepTimes, false);
    let spoilt = spoilt.expect("report");
    assert_eq!((spoilt.trained, spoilt.rows), (33, 7));
    assert_eq!(
        counted(&spoilt.trained_skipped),
        counted(&report.skipped),
        "the same lines"
    );
}

#[test]
fn what_cannot_be_is_left_out_and_spoils_nothing() {
    let right = step("flux.a", "H100 80GB", 2, "1800", "ok", "A");
    let but = |from: &str, to: &str| {
        assert!(right.contains(from), "{from}");
        right.replacen(from, to, 1)
    };
    let odd = [
        but(",2,1,bf16", ",1e308,1,bf16"),
        but(",2,1,bf16", ",-2,1,bf16"),
        but(",2,1,bf16", ",2,many,bf16"),
        but(",1024x1024,1,", ",1024x1024,1e300,"),
        but(",1.05,", ",inf,"),
        but("H100 80GB,1,", "H100 80GB,0,"),
    ];
    let mut bytes = (STEP_TIMES.to_owned() + &right + &odd.concat()).into_bytes();
    bytes.extend(b"x,\xff\xfe\n");
    let report = backtest(&[steps()], &bytes, Format::StepTimes, false).expect("report");
    assert_eq!((report.rows, report.used), (8, 1));
    assert_eq!(
        counted(&report.skipped),
        [
            ("no possible accumulation", 1),
            ("no possible batch", 2),
            ("no possible number of GPUs", 1),
            ("no possible number of frames", 1),
            ("no possible resolution", 1),
            ("the line is not text", 1),
        ]
    );
    // Nor does any of it reach what is learnt.
    let all = [steps().as_bytes(), &bytes[STEP_TIMES.len()..]].concat();
    let spoilt = backtest(&[all], &bytes, Format::StepTimes, false).expect("report");
    assert_eq!(spoilt.trained, 33);
    assert!(spoilt.score.median_ape.expect("answers") < 0.05);
}

#[test]
fn what_says_nothing_is_what_is_usual_and_a_resolution_may_be_said_in_words() {
    let right = step("flux.a", "H100 80GB", 1, "900", "ok", "A");
    let silent = right.replace(",1.05,1.0,1,1,bf16", ",,,,,bf16");
    let small = silent.replace("1024x1024", "512x512 (pixel-area)");
    let test = STEP_TIMES.to_owned() + &right + &silent + &small;
    let report = backtest(&[steps()], &test, Format::StepTimes, false).expect("report");
    let [right, silent, small] = [0, 1, 2].map(|at: usize| report.answers[at].ms[1]);
    assert!((silent / right).ln().abs() < 0.05, "{silent} {right}");
    assert!(small < 0.9 * silent, "{small} {silent}");
    let float = test.replace(
        ",1,1024x1024,1,1.05,1.0,1,1,",
        ",1.0,1024x1024,1.0,1.05,1,1.0,1.0,",
    );
    let floats = backtest(&[steps()], &float, Format::StepTimes, false).expect("report");
    assert_eq!(floats.baselines, report.baselines, "the same groups");
    assert_eq!(floats.answers[0].ms, report.answers[0].ms);
}

#[test]
fn every_figure_that_is_promised_is_a_number() {
    let report = backtest(&[steps()], steps(), Format::StepTimes, false).expect("report");
    let json = serde_json::to_value(&report).expect("JSON");
    let fields = [
        "median_ape",
        "p75_ape",
        "p90_ape",
        "inside_p10_p90",
        "below_p90",
        "pinball",
    ];
    let baselines = &json["baselines"];
    for score in [&json, &baselines["group_median"], &baselines["flops_ratio"]] {
        for field in fields {
            assert!(score[field].is_f64(), "{field} in {score}");
        }
    }
    for field in ["rows", "used"] {
        assert_eq!(json[field], 32, "{field}");
    }
    assert!(json["skipped"].is_object() && json["by_basis"].is_object());
    // Each configuration was measured once, so that its group is one number, and that is the truth.
    let group = &baselines["group_median"];
    assert_eq!(
        (&group["median_ape"], &group["inside_p10_p90"]),
        (&0.0.into(), &1.0.into())
    );
    // Nothing to judge is no figure, and no invalid JSON.
    let nothing = backtest(&[steps()], STEP_TIMES, Format::StepTimes, false).expect("report");
    let json = serde_json::to_value(&nothing).expect("JSON");
    assert!(json["median_ape"].is_null() && json["baselines"]["flops_ratio"]["pinball"].is_null());
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
    let report = backtest(NONE, &records, Format::Records, true).expect("report");
    assert_eq!((report.used, report.rows), (1, 1));
}

#[test]
fn a_key_s_own_records_count_as_they_do_in_estimates() {
    let row = |hardware: &str, batch: u32, ms: u32, steps: u32| {
        format!("flux.dev/lora,{hardware},1.0,{batch},1,bf16,int8,{ms},{steps}\n")
    };
    let header = format!("{}\n", crate::import::TRAINING_HEADER);
    // Many steps of one key, few of another, and none of a third; the model would say something else of each.
    let train = [
        header.clone(),
        row("h100", 1, 900, 400),
        row("h100", 1, 1_100, 400),
        row("l40s", 1, 9_000, 20),
        row("a100-80", 1, 1_500, 400),
    ];
    let test = [
        header,
        row("h100", 1, 1_000, 100),
        row("l40s", 1, 9_000, 100),
        row("h100", 8, 5_000, 100),
    ];
    let report = backtest(&[train.concat()], test.concat(), Format::Records, true);
    let report = report.expect("report");
    let bases: Vec<&str> = report.answers.iter().map(|a| a.basis.text()).collect();
    assert_eq!((bases[0], bases[1]), ("exact", "exact"));
    assert_ne!(bases[2], "exact");
    assert_eq!(report.by_basis["exact"], 2);
    // The mean of all steps, between a p10 and a p90 of its own; twenty steps alone are drawn towards the model.
    let [p10, p50, p90] = report.answers[0].ms;
    assert!(
        (p50 - 1_000.0).abs() < 1e-6 && p10 < p50 && p50 < p90,
        "{p10} {p50} {p90}"
    );
    let few = report.answers[1].ms[1];
    assert!(few > 1_000.0 && few < 9_000.0, "{few}");
}

#[test]
fn every_row_has_its_answer() {
    let mut test = STEP_TIMES.to_owned();
    test += &step("flux.a", "H100 80GB", 2, "1800", "oom", "A");
    test += &step("flux.a", "H100 80GB", 2, "1800", "ok", "A");
    test += "# a remark\n";
    test += &step("sana.d", "L40S 48GB", 3, "6000", "ok", "A");
    let report = backtest(&[steps()], &test, Format::StepTimes, false).expect("report");
    let rows: Vec<usize> = report.answers.iter().map(|answer| answer.row).collect();
    assert_eq!(rows, [2, 3]);
    let text = report.rows_csv().expect("rows");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let lines: Vec<BTreeMap<String, String>> =
        reader.deserialize().collect::<Result<_, _>>().expect("CSV");
    assert_eq!(lines.len(), 2);
    for (line, answer) in lines.iter().zip(&report.answers) {
        let number = |name: &str| line[name].parse::<f64>().expect("a number");
        assert_eq!(number("row"), answer.row as f64);
        assert_eq!(number("measured_ms"), answer.measured_ms);
        for (name, ms) in ["p10_ms", "p50_ms", "p90_ms"].into_iter().zip(answer.ms) {
            assert!((number(name) - ms).abs() < 1e-3, "{name}");
        }
        assert_eq!(line["basis"], answer.basis.text());
    }
    // The group of the first was measured at this batch, so its median is the truth.
    assert_eq!(lines[0]["group_median_ms"], "1800.000");
}

#[test]
fn records_count_their_rows_too() {
    let line = "flux.dev/lora,h100,1.0,4,1,bf16,int8,900,120\n";
    let bad = "flux.dev/lora,h100,1.0,4,1,bf16,int8,never,120\n";
    let records = format!(
        "{}\n{bad}# a remark\n{line}",
        crate::import::TRAINING_HEADER
    );
    let report = backtest(NONE, &records, Format::Records, true).expect("report");
    let rows: Vec<usize> = report.answers.iter().map(|answer| answer.row).collect();
    assert_eq!((report.rows, rows), (2, vec![2]));
}

const IMAGES: &str = "timestamp,submitter,backend,gpu,gpu_count,vram_gb,torch,precision,optimization,model_class,os,cpu,\
                      batch,ms_per_image_20steps,status\n";

fn image_by(who: &str, cpu: &str, batch: u32, ms: f64) -> String {
    format!(
        "2023-05-01T00:00:00Z,{who},cuda,RTX 4090,1,24,2.0.1,fp16,sdp none,sd15,Windows,{cpu},{batch},{ms},ok\n"
    )
}

#[test]
fn what_others_measured_of_a_configuration_counts_beside_the_model() {
    let mut train = IMAGES.to_owned();
    for number in 0..8 {
        let who = format!("person {number}");
        train += &image_by(&who, "", 1, 400.0);
        // Twice as quick as the model can explain by a batch alone.
        train += &image_by(&who, "", 2, 150.0);
    }
    let read = |text: &str| Format::Sdnext.read(text.as_bytes()).expect("rows").cases;
    let known = read(&train);
    let model = super::learnt(&known).expect("a model");
    let asked = read(&(IMAGES.to_owned() + &image_by("new", "", 2, 150.0)));
    let alone = model.predict(&asked[0].point).ms[1];
    let said = super::answer::answers(&model, &known, &asked)[0].ms[1];
    assert!(
        (said - 150.0).abs() < (alone - 150.0).abs(),
        "{said} {alone}"
    );
    // What nobody has measured is the model's alone.
    let asked = read(&(IMAGES.to_owned() + &image_by("new", "", 4, 150.0)));
    let alone = model.predict(&asked[0].point).ms;
    assert_eq!(super::answer::answers(&model, &known, &asked)[0].ms, alone);
}

#[test]
fn an_older_processor_makes_images_take_longer() {
    let (old, new) = (
        "AMD64 Family 23 Model 1 Stepping 1",
        "Intel64 Family 6 Model 183 Stepping 1",
    );
    let mut train = IMAGES.to_owned();
    for number in 0..20 {
        train += &image_by(&format!("old {number}"), old, 1, 700.0);
        train += &image_by(&format!("new {number}"), new, 1, 400.0);
    }
    // Neither was seen by its name.
    let older = image_by("one", "Intel64 Family 6 Model 79 Stepping 1", 1, 700.0);
    let newer = image_by("another", "AMD64 Family 25 Model 97 Stepping 2", 1, 400.0);
    let test = IMAGES.to_owned() + &older + &newer;
    let report = backtest(&[train], &test, Format::Sdnext, false).expect("report");
    let ms: Vec<f64> = report.answers.iter().map(|answer| answer.ms[1]).collect();
    assert!(ms[0] > ms[1] * 1.1, "{ms:?}");
}

#[test]
fn what_is_learnt_is_the_same_however_rows_are_split_over_files() {
    let mut lines = Vec::new();
    for _ in 0..12 {
        lines.push(image_by("often", "", 1, 900.0));
    }
    for number in 0..6 {
        lines.push(image_by(&format!("person {number}"), "", 1, 400.0));
        lines.push(image_by(&format!("person {number}"), "", 2, 380.0));
    }
    let file = |lines: &[String]| IMAGES.to_owned() + &lines.concat();
    let test = IMAGES.to_owned() + &image_by("new", "", 3, 400.0);
    let ms = |train: &[String]| {
        let report = backtest(train, &test, Format::Sdnext, false).expect("report");
        report.answers[0].ms
    };
    let whole = ms(&[file(&lines)]);
    for at in [1, 6, 13] {
        assert_eq!(ms(&[file(&lines[..at]), file(&lines[at..])]), whole, "{at}");
    }
}

#[test]
fn a_person_counts_once_for_each_configuration() {
    let header = IMAGES;
    let image = |who: &str, batch: u32, ms: f64| image_by(who, "x86_64", batch, ms);
    let mut train = header.to_owned();
    // One person measured so often that the median of rows is theirs; the median of people is 500 ms.
    for _ in 0..50 {
        train += &image("often", 1, 1_000.0);
    }
    for (who, ms) in [("a", 500.0), ("b", 400.0), ("c", 500.0)] {
        train += &image(who, 1, ms);
    }
    train += &image("a", 2, 450.0);
    let mut test = header.to_owned();
    for ms in [500.0, 625.0, 640.0] {
        test += &image("new", 1, ms);
    }
    // One other alone has measured this.
    test += &image("new", 2, 450.0);
    let report = backtest(&[train], &test, Format::Sdnext, false).expect("report");
    assert_eq!((report.used, report.once_each.used), (4, 1));
    let error = report.once_each.group_median.median_ape.expect("one");
    assert!((error - (625.0 / 500.0 - 1.0)).abs() < 1e-9, "{error}");
    let middle = report.answers[1].ms[1];
    let error = report.once_each.score.median_ape.expect("one");
    assert!(
        (error - (625.0 / middle - 1.0).abs()).abs() < 1e-9,
        "{error}"
    );
    let baseline = report.baselines.group_median.median_ape.expect("rows");
    assert!(
        baseline > 0.5,
        "of rows the median is that of one person: {baseline}"
    );
}

#[test]
fn a_file_of_step_times_among_rows_of_the_tables_is_told_by_its_format() {
    let header = "trainer,model,recipe,method,gpu,gpu_count,resolution_effective,frames,batch,grad_accum,precision,\
                  quant_class,grad_checkpointing,compile,step_ms,n_steps,status,quality\n";
    let why = backtest(NONE, header, Format::Records, true).expect_err("another format");
    assert!(why.to_string().contains("the format step-times"), "{why}");
}
