//! Tests of importing: each figure once, each refused line named, and nothing lost on the way.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use super::*;
use crate::testing::{Fault, Faulty};
use crate::{Kind, PriceBook};

fn over(store: &Arc<dyn ObjectStore>) -> Estimator {
    let base = Url::parse("memory:///bench/").expect("url");
    Estimator::over(Arc::clone(store), base, PriceBook::default()).expect("estimator")
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn file(lines: &[&str]) -> Vec<u8> {
    format!("{TRAINING_HEADER}\n{}\n", lines.join("\n")).into_bytes()
}

const GOOD: [&str; 3] = [
    "flux.dev/lora,rtx4090,1.0,4,1,bf16,int8,14000,150",
    "flux.dev/lora,H100 x2,1.25,4,1,bf16,none,5012.4,99999",
    "flux.dev/lora,rtx4090,1.0,4,1,bf16,int8,14000,150",
];

/// Else the first estimates behind an import would be others than those some seconds later.
#[tokio::test(flavor = "multi_thread")]
async fn everything_is_learnt_from_an_import_when_it_returns() {
    let estimator = over(&memory());
    estimator
        .import("lab", Mapping::Records, &file(&GOOD))
        .await
        .expect("imported");
    assert!(!estimator.is_behind());
    assert!(estimator.learnt().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_stored_once_also_when_the_file_comes_again_and_has_grown() {
    let store = memory();
    let estimator = over(&store);
    let first = estimator
        .import("lab", Mapping::Records, &file(&GOOD))
        .await
        .expect("imported");
    assert_eq!(
        (first.lines, first.stored, first.known, first.refused()),
        (3, 3, 0, 0)
    );
    let again = estimator
        .import("lab", Mapping::Records, &file(&GOOD))
        .await
        .expect("imported");
    assert_eq!((again.lines, again.stored, again.known), (3, 0, 3));
    let mut grown = vec!["flux.dev/lora,a100-80,1.0,4,1,bf16,int8,9000,150"];
    grown.extend(GOOD);
    let stranger = over(&store);
    let more = stranger
        .import("lab", Mapping::Records, &file(&grown))
        .await
        .expect("imported");
    assert_eq!(
        (more.lines, more.stored, more.known),
        (4, 1, 3),
        "also by another process, in another order"
    );
    let other = estimator
        .import("other-lab", Mapping::Records, &file(&GOOD))
        .await
        .expect("imported");
    assert_eq!(other.stored, 3, "another source measured by itself");
    estimator.refresh().await.expect("read");
    assert_eq!(estimator.index().rows(Kind::Training), 7);

    let sources = estimator.sources().await.expect("list");
    let found: Vec<_> = sources
        .iter()
        .map(|s| (s.name.as_str(), s.files, s.rows, s.refused))
        .collect();
    assert_eq!(found, [("lab", 2, 7, 0), ("other-lab", 1, 3, 0)]);
    assert_eq!(sources[0].first_day, Day::today().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_read_as_a_row_has_them() {
    let estimator = over(&memory());
    estimator
        .import("lab", Mapping::Records, &file(&GOOD[1..2]))
        .await
        .expect("imported");
    let answer = estimator
        .sql("SELECT * FROM training_steps")
        .await
        .expect("answer");
    let cells: Vec<String> = answer.cells().remove(0).into_iter().flatten().collect();
    assert_eq!(
        cells.join(" "),
        "flux.dev/lora h100x2 1.5 4 1 bf16 none 5010 1000"
    );
    let validation = format!(
        "{}\n20,flux.dev/lora,rtx4090,1.0,bf16,int8,20000,9\n",
        "inference_steps,recipe,hardware,resolution_mp,precision,quantization,avg_prompt_ms,prompts_observed"
    );
    let done = estimator
        .import("lab", Mapping::Records, validation.as_bytes())
        .await
        .expect("imported");
    assert_eq!(
        (done.stored, estimator.index().rows(Kind::Validation)),
        (1, 1),
        "columns come in any order"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refused_line_is_named_with_its_reason() {
    let estimator = over(&memory());
    let lines = [
        GOOD[0],
        "# a comment",
        "my.own/lora,rtx4090,1.0,4,1,bf16,int8,14000,150",
        "flux.dev/lora,rtx9999,1.0,4,1,bf16,int8,14000,150",
        "flux.dev/lora,h100x3,1.0,4,1,bf16,int8,14000,150",
        "flux.dev/lora,h100,0,4,1,bf16,int8,14000,150",
        "flux.dev/lora,h100,1.0,5,1,bf16,int8,14000,150",
        "flux.dev/lora,h100,1.0,4,1,fp8,int8,14000,150",
        "flux.dev/lora,h100,1.0,4,1,bf16,int4,14000,150",
        "flux.dev/lora,h100,1.0,4,1,bf16,int8,NaN,150",
        "flux.dev/lora,h100,1.0,4,1,bf16,int8,0.5,150",
        "flux.dev/lora,h100,1.0,4,1,bf16,int8,14000,19",
        "flux.dev/lora,h100,1.0,4,1,bf16",
    ];
    let done = estimator
        .import("lab", Mapping::Records, &file(&lines))
        .await
        .expect("imported");
    assert_eq!((done.lines, done.stored, done.refused()), (12, 1, 11));
    let told: Vec<String> = done
        .refusals
        .iter()
        .map(|r| format!("{} {} `{}`", r.line, r.reason, r.cell))
        .collect();
    assert_eq!(told[0], "4 the recipe is not in the registry `my.own/lora`");
    assert_eq!(told[1], "5 the hardware is not in the registry `rtx9999`");
    assert_eq!(told[10], "14 another number of cells than the header ``");
    let windows = file(&lines)
        .iter()
        .flat_map(|&b| if b == b'\n' { vec![b'\r', b] } else { vec![b] })
        .collect::<Vec<_>>();
    let windows = over(&memory())
        .import("lab", Mapping::Records, &windows)
        .await
        .expect("imported");
    assert_eq!(windows, done, "line ends of another system");
    assert_eq!(
        done.reasons["the time is no number of milliseconds from 1 up to an hour"],
        2
    );
}

#[tokio::test]
async fn headers_are_told_what_they_lack_and_may_have_more() {
    let estimator = over(&memory());
    let import = async |header: &str, line: &str| {
        let file = format!("{header}\n{line}\n");
        let done = estimator.import("lab", Mapping::Records, file.as_bytes());
        done.await.map_err(|error| error.to_string())
    };
    let more = format!("note,{}", records::TRAINING_HEADER);
    let line = format!("\"one,\nof mine\",{}", GOOD[0]);
    assert_eq!(import(&more, &line).await.map(|done| done.stored), Ok(1));
    let less = records::VALIDATION_HEADER.replace("avg_prompt_ms", "ms");
    let steps = "trainer,model,recipe,method,gpu,gpu_count,resolution_effective,frames,batch,grad_accum,precision,\
                 quant_class,grad_checkpointing,compile,step_ms,n_steps,status,quality";
    for (header, told) in [
        (&*less, "it lacks avg_prompt_ms"),
        ("hardware,recipe,hardware", "\"hardware\" twice"),
        ("", "the file: it is empty"),
        (steps, "the mapping training_step_times"),
    ] {
        let why = import(header, "").await.expect_err(header);
        assert!(why.contains(told), "{why}");
    }
}

#[tokio::test]
async fn a_wrong_file_or_name_stores_nothing() {
    let estimator = over(&memory());
    for (name, bytes) in [
        ("lab", b"recipe,hardware\nx,y\n".to_vec()),
        ("lab", Vec::new()),
        ("lab", vec![b'x'; FILE_BYTES_MAX + 1]),
        ("", file(&GOOD)),
        ("../lab", file(&GOOD)),
        ("a/b", file(&GOOD)),
        ("Lab", file(&GOOD)),
    ] {
        let error = estimator
            .import(name, Mapping::Records, &bytes)
            .await
            .expect_err(name);
        assert!(matches!(error, Error::Config(_)), "{name}: {error:?}");
    }
    let error = estimator
        .import("lab", Mapping::StepTimes, &file(&GOOD))
        .await
        .expect_err("another header");
    assert!(
        error
            .to_string()
            .starts_with("the header lacks trainer, model, method"),
        "{error}"
    );
    assert!(estimator.sources().await.expect("list").is_empty());
    assert_eq!(estimator.stats().rows(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_any_write_is_repaired_by_importing_again() {
    let lines: Vec<String> = (1..=40)
        .map(|n| format!("flux.dev/lora,h100,1.0,4,1,bf16,int8,{n}00,150"))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let reliable = Faulty::new(&memory(), None);
    let as_store: Arc<dyn ObjectStore> = reliable.clone();
    over(&as_store)
        .import("lab", Mapping::Records, &file(&lines))
        .await
        .expect("imported");
    for at in 0..reliable.writes() {
        for fault in Fault::ALL {
            let disk = memory();
            let faulty: Arc<dyn ObjectStore> = Faulty::new(&disk, Some((at, fault)));
            let _first_try = over(&faulty)
                .import("lab", Mapping::Records, &file(&lines))
                .await;
            let estimator = over(&disk);
            let again = estimator
                .import("lab", Mapping::Records, &file(&lines))
                .await;
            let again = again.unwrap_or_else(|error| panic!("write {at} {fault:?}: {error:?}"));
            assert_eq!(again.stored + again.known, 40, "write {at} {fault:?}");
            estimator.refresh().await.expect("read");
            assert_eq!(
                estimator.index().rows(Kind::Training),
                40,
                "write {at} {fault:?}"
            );
            assert_eq!(
                estimator.sources().await.expect("list")[0].rows,
                40,
                "write {at} {fault:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_remembered_longer_than_the_log_remembers_ids() {
    let store = memory();
    let estimator = over(&store);
    estimator
        .import("lab", Mapping::Records, &file(&GOOD))
        .await
        .expect("imported");
    // The log forgets after a month; a table that was written anew has forgotten at once.
    let logged: Vec<_> = {
        use futures::TryStreamExt;
        let under = "bench/training_steps".into();
        store
            .list(Some(&under))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .expect("list")
    };
    for path in logged {
        object_store::ObjectStoreExt::delete(store.as_ref(), &path)
            .await
            .expect("deleted");
    }
    let again = over(&store)
        .import("lab", Mapping::Records, &file(&GOOD))
        .await
        .expect("imported");
    assert_eq!((again.stored, again.known), (0, 3));
}

/// The bytes of all lists of ids, and how many ids of the source they hold.
async fn listed(store: &Arc<dyn ObjectStore>) -> (u64, usize) {
    use futures::TryStreamExt;
    let under = "bench/sources".into();
    let objects = store.list(Some(&under)).try_collect::<Vec<_>>().await;
    let objects = objects.expect("list").into_iter();
    let lists = objects.filter(|object| object.location.extension() == Some("ids"));
    let known = sources::known(over(store).prefixed(), "lab").await;
    (
        lists.map(|list| list.size).sum(),
        known.expect("read").len(),
    )
}

fn many(lines: usize) -> Vec<u8> {
    let line = |n: usize| {
        let (ms, steps) = (100 + n % 900, 20 + n / 900);
        format!("flux.dev/lora,rtx4090,1.0,4,1,bf16,int8,{ms},{steps}")
    };
    let lines: Vec<String> = (0..lines).map(line).collect();
    file(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

/// However many times the file has grown, a line is in one list.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_holds_what_no_earlier_one_does() {
    let store = memory();
    let estimator = over(&store);
    for lines in [10, 25, 25, 20, 30] {
        let done = estimator
            .import("lab", Mapping::Records, &many(lines))
            .await;
        done.expect("imported");
    }
    assert_eq!(listed(&store).await, (30 * 16, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_of_a_source_counts_however_many_there_are() {
    let store = memory();
    for number in 0..20_100u32 {
        let path = Path::from(format!("bench/sources/lab/{number:032x}.ids"));
        let id = u128::from(number).to_be_bytes().to_vec();
        store.put(&path, id.into()).await.expect("put");
    }
    assert_eq!(listed(&store).await, (20_100 * 16, 20_100));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_breaks_off_has_listed_what_it_has_stored() {
    let lines = many(2 * LINES_PER_COMMIT + 1);
    let reliable = Faulty::new(&memory(), None);
    let as_store: Arc<dyn ObjectStore> = reliable.clone();
    let estimator = over(&as_store);
    let done = estimator.import("lab", Mapping::Records, &lines).await;
    done.expect("imported");
    for at in 0..reliable.writes() {
        let disk = memory();
        let faulty: Arc<dyn ObjectStore> = Faulty::new(&disk, Some((at, Fault::DieBefore)));
        let estimator = over(&faulty);
        let broken_off = estimator.import("lab", Mapping::Records, &lines).await;
        broken_off.expect_err("the store is gone");
        let estimator = over(&disk);
        estimator.refresh().await.expect("read");
        let stored = estimator.index().rows(Kind::Training) as usize;
        let (_, known) = listed(&disk).await;
        // All but the last that were stored, whose ids the log has.
        assert!(
            known <= stored && known + LINES_PER_COMMIT >= stored,
            "write {at}: {known} of {stored}"
        );
    }
}

const STEP_TIMES: &str = "trainer,model,recipe,method,gpu,gpu_count,resolution_effective,frames,batch,grad_accum,\
precision,quant_class,grad_checkpointing,compile,step_ms,n_steps,status,quality";

#[tokio::test(flavor = "multi_thread")]
async fn published_step_times_are_mapped_and_what_has_no_key_is_left_out() {
    let good = "SimpleTuner,SDXL,sdxl.lycoris-lokr,lycoris-lokr,L40S 48GB,1,1024x1024,1,1,1,bf16,none,layer,unstated,1022.0,,ok,A";
    let with = |from: &str, to: &str| good.replacen(from, to, 1);
    let lines = [
        good.to_owned(),
        with(",ok,", ",oom,"),
        with("SimpleTuner,", "kohya sd-scripts,"),
        with(",ok,A", ",ok,P"),
        with(",layer,", ",interval2,"),
        with(",layer,", ",activation-offload,"),
        with(",unstated,", ",regional,"),
        with("1024x1024", "mixed 256/512/1024 sq"),
        with(",none,", ",fp8,"),
        with("lokr,L40S 48GB", "lokr,Apple MPS"),
        with(
            "lycoris-lokr,lycoris-lokr",
            "lycoris-lokr+ramtorch,lycoris-lokr",
        ),
    ];
    let file = format!("{STEP_TIMES}\n{}\n", lines.join("\n"));
    let estimator = over(&memory());
    let done = estimator
        .import("published", Mapping::StepTimes, file.as_bytes())
        .await
        .expect("imported");
    assert_eq!(
        (done.lines, done.stored, done.refused()),
        (11, 1, 10),
        "{:?}",
        done.reasons
    );
    let answer = estimator
        .sql("SELECT * FROM training_steps")
        .await
        .expect("answer");
    let cells: Vec<String> = answer.cells().remove(0).into_iter().flatten().collect();
    assert_eq!(
        cells.join(" "),
        "sdxl.base-1.0/lycoris+ckpt l40sx1 1.0 1 1 bf16 none 1020 20"
    );
}

/// The collection itself, where it is at hand: `STEPCAST_STEP_TIMES` names the file.
#[tokio::test(flavor = "multi_thread")]
async fn the_collection_of_published_step_times() {
    let Some(path) = std::env::var_os("STEPCAST_STEP_TIMES") else {
        return;
    };
    let bytes = std::fs::read(path).expect("file");
    let estimator = over(&memory());
    let done = estimator
        .import("published", Mapping::StepTimes, &bytes)
        .await
        .expect("imported");
    assert_eq!(done.lines, done.stored + done.refused());
    assert!(done.stored * 10 >= done.lines, "{:?}", done.reasons);
    let again = estimator
        .import("published", Mapping::StepTimes, &bytes)
        .await
        .expect("imported");
    assert_eq!(again.stored, 0);
}
