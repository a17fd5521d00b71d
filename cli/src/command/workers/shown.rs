//! Workers as the list shows them: what each offers, how it stands, what it costs and what it runs.

use stepcast_proto::v1::{Worker, WorkerState};

use crate::output::money::{counted, dollars};
use crate::output::style::Tone;
use crate::output::table::{Cell, Side, Table};
use crate::output::{json, time};

/// The list.
pub(super) fn table(workers: &[Worker]) -> Table {
    let mut table = Table::new(&[
        ("WORKER", Side::Left),
        ("GPUS", Side::Left),
        ("USED", Side::Right),
        ("STATE", Side::Left),
        ("PRICE/GPU h", Side::Right),
        ("RUNS", Side::Left),
        ("SINCE", Side::Right),
    ]);
    workers.iter().for_each(|worker| table.row(row(worker)));
    table
}

fn row(worker: &Worker) -> Vec<Cell> {
    let used = worker.gpus.iter().filter(|gpu| !gpu.job.is_empty()).count();
    let mut runs: Vec<&str> = worker
        .gpus
        .iter()
        .map(|gpu| json::id(&gpu.job))
        .filter(|job| !job.is_empty())
        .collect();
    runs.dedup();
    let (state, tone) = stands(worker);
    let state = match worker.since_time.as_ref().and_then(time::seconds_since) {
        Some(since) if worker.state() != WorkerState::Ready => {
            format!("{state} {}", time::rough_span(since))
        }
        _ => state.to_owned(),
    };
    vec![
        Cell::toned(called(worker), Tone::Strong),
        gpus(worker).into(),
        format!("{used}/{}", worker.gpus.len()).into(),
        Cell::toned(state, tone),
        price(worker).into(),
        if runs.is_empty() {
            "-".to_owned()
        } else {
            runs.join(" ")
        }
        .into(),
        time::age(worker.register_time.as_ref()).into(),
    ]
}

/// What a GPU of a worker costs an hour, and that the operator's prices say so and not the worker; of several models what
/// each costs.
fn price(worker: &Worker) -> String {
    let mut prices: Vec<String> = Vec::new();
    for gpu in &worker.gpus {
        // A server of an older version says only what the worker does.
        let own = worker.price_per_gpu_hour_usd_micros;
        let price = gpu.price_per_hour_usd_micros.or(own);
        let price = price.map_or_else(|| "-".to_owned(), dollars);
        if !prices.contains(&price) {
            prices.push(price);
        }
    }
    let prices = prices.join(", ");
    if worker.price_from_book {
        format!("{prices} book")
    } else {
        prices
    }
}

/// How a worker stands, in a word.
fn stands(worker: &Worker) -> (&'static str, Tone) {
    match worker.state() {
        WorkerState::Ready if worker.attached => ("ready", Tone::Good),
        WorkerState::Ready | WorkerState::Unspecified => ("away", Tone::Warn),
        WorkerState::Draining => ("draining", Tone::Warn),
        // It was asked to stop, and ends what it runs.
        WorkerState::Lost if worker.attached => ("stopping", Tone::Warn),
        WorkerState::Lost => ("away", Tone::Bad),
        WorkerState::Revoked => ("revoked", Tone::Dim),
    }
}

/// What people call a worker.
fn called(worker: &Worker) -> &str {
    if worker.display_name.is_empty() {
        json::id(&worker.name)
    } else {
        &worker.display_name
    }
}

/// `2 x H100 80GB`, or each model where a worker has several.
fn gpus(worker: &Worker) -> String {
    let mut groups: Vec<(&str, usize)> = Vec::new();
    for gpu in &worker.gpus {
        let title = if gpu.title.is_empty() {
            gpu.model.as_str()
        } else {
            &gpu.title
        };
        match groups.iter_mut().find(|(known, _)| *known == title) {
            Some((_, count)) => *count += 1,
            None => groups.push((title, 1)),
        }
    }
    groups
        .into_iter()
        .map(|(title, count)| format!("{count} x {title}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// How many GPUs there are, and how many of them are in use.
pub(super) fn summary(workers: &[Worker]) -> String {
    let all: usize = workers.iter().map(|worker| worker.gpus.len()).sum();
    let used: usize = workers
        .iter()
        .flat_map(|worker| &worker.gpus)
        .filter(|gpu| !gpu.job.is_empty())
        .count();
    // Nobody is known to be there before it has attached, and not any more once it is away.
    let ready = |worker: &&Worker| worker.state() == WorkerState::Ready && worker.attached;
    let free: usize = workers
        .iter()
        .filter(ready)
        .flat_map(|worker| &worker.gpus)
        .filter(|gpu| gpu.job.is_empty())
        .count();
    let away = all - used - free;
    let away = if away > 0 {
        format!(", {away} not available")
    } else {
        String::new()
    };
    format!(
        "{}: {used} in use, {free} free{away}",
        counted(all as u64, "GPU", "GPUs")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use stepcast_proto::v1::Gpu;

    #[test]
    fn gpus_of_a_worker_are_counted_by_model() {
        let gpu = |title: &str, job: &str| Gpu {
            model: "h100".to_owned(),
            title: title.to_owned(),
            job: job.to_owned(),
            ..Gpu::default()
        };
        let worker = Worker {
            display_name: "a1".to_owned(),
            gpus: vec![gpu("H100 80GB", "jobs/4f2a"), gpu("H100 80GB", "")],
            state: WorkerState::Ready.into(),
            attached: true,
            ..Worker::default()
        };
        assert_eq!(gpus(&worker), "2 x H100 80GB");
        assert_eq!(summary(&[worker]), "2 GPUs: 1 in use, 1 free");
    }

    #[test]
    fn prices_of_the_book_are_told_apart() {
        let gpu = |price_per_hour_usd_micros| Gpu {
            price_per_hour_usd_micros,
            ..Gpu::default()
        };
        let worker = |prices: &[Option<u64>], price_from_book| Worker {
            gpus: prices.iter().copied().map(gpu).collect(),
            price_from_book,
            ..Worker::default()
        };
        let (dear, cheap) = (Some(2_000_000), Some(400_000));
        for (worker, told) in [
            (worker(&[dear, dear], false), "$2.00"),
            (worker(&[None, None], false), "-"),
            (worker(&[dear, dear], true), "$2.00 book"),
            (worker(&[dear, cheap, None], true), "$2.00, $0.40, - book"),
        ] {
            assert_eq!(price(&worker), told);
        }
    }

    #[test]
    fn what_is_not_there_is_not_told_as_free() {
        let worker = |state: WorkerState, attached: bool| Worker {
            gpus: vec![Gpu::default()],
            state: state.into(),
            attached,
            ..Worker::default()
        };
        for (state, attached, told) in [
            (WorkerState::Ready, true, "ready"),
            (WorkerState::Ready, false, "away"),
            (WorkerState::Lost, true, "stopping"),
            (WorkerState::Lost, false, "away"),
        ] {
            assert_eq!(stands(&worker(state, attached)).0, told);
        }
        let stopped = worker(WorkerState::Ready, false);
        assert_eq!(
            summary(&[stopped]),
            "1 GPU: 0 in use, 0 free, 1 not available"
        );
    }
}
