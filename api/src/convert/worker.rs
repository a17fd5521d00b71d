//! Workers, what they offer, and their tokens.

use std::collections::BTreeSet;

use stepcast_proto::v1;
use stepcast_records::units::GPU_HOUR_MAX;
use stepcast_records::{GpuModel, UsdMicros};
use stepcast_scheduler::State;
use stepcast_scheduler::ids::{self, OutputsId};
use stepcast_scheduler::model::{Inventory, Label, Token, Worker, WorkerState};
use tonic::{Code, Status};
use tonic_types::FieldViolation;

use super::quantity::timestamp_ms;
use super::wishes::{labels, trainer_kind, written_labels};
use crate::names;
use crate::status::{Refusal, bad_field};

/// A worker, with what runs on each of its GPUs.
pub(crate) fn worker(worker: &Worker, state: &State, attached: bool) -> v1::Worker {
    let (stands, since_ms) = match (worker.state, worker.drain) {
        (WorkerState::Revoked, _) => (v1::WorkerState::Revoked, None),
        (WorkerState::Lost { since_ms }, _) => (v1::WorkerState::Lost, Some(since_ms)),
        (WorkerState::Present, Some(drain)) => (v1::WorkerState::Draining, Some(drain.since_ms)),
        (WorkerState::Present, None) => (v1::WorkerState::Ready, None),
    };
    let gpus = (0..).zip(&worker.inventory.gpus).map(|(position, model)| {
        let user = state
            .user_of(worker.id, position)
            .and_then(|epoch| state.lease(epoch));
        v1::Gpu {
            model: model.slug().to_owned(),
            title: model.to_string(),
            job: user.map_or_else(String::new, |lease| names::of_job(lease.job)),
            price_per_hour_usd_micros: worker
                .price_per_gpu_hour(*model)
                .map(|UsdMicros(micros)| micros),
        }
    });
    let own = worker.inventory.price_per_gpu_hour;
    let mut models = worker.inventory.gpus.iter();
    let is_of_book = own.is_none() && models.any(|gpu| worker.price_per_gpu_hour(*gpu).is_some());
    v1::Worker {
        name: names::of_worker(worker.id),
        display_name: worker.name.to_string(),
        state: stands.into(),
        gpus: gpus.collect(),
        labels: written_labels(&worker.inventory.labels),
        price_per_gpu_hour_usd_micros: own.map(|UsdMicros(micros)| micros),
        price_from_book: is_of_book,
        register_time: Some(timestamp_ms(worker.registered_ms)),
        since_time: since_ms.map(timestamp_ms),
        attached,
        gang_address: worker
            .inventory
            .address
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
    }
}

/// `HOST:PORT` of a host's name or address, if there is one. Other workers get it as a word of a command line.
fn gang_address(text: &str) -> Result<Option<Label>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || {
        bad_field(
            "gang_address",
            "this is no HOST:PORT of a host's name or address",
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-');
    let is_host = !host.is_empty() && !host.starts_with('-') && host.chars().all(plain);
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    let address = text.parse().ok().filter(|_| is_host && is_port);
    address.map(Some).ok_or_else(bad)
}

/// Refuses an address whose port leaves none for some of a host's GPUs: each has its own, from that one on, so that two jobs
/// never meet at one.
fn check_ports(address: &Label, gpus: usize) -> Result<(), Status> {
    let port = address.as_str().rsplit_once(':');
    let port = port.and_then(|(_, port)| port.parse::<u16>().ok());
    let more = gpus.saturating_sub(1);
    let most = usize::from(u16::MAX).saturating_sub(more);
    if port.is_none_or(|port| usize::from(port) <= most) {
        return Ok(());
    }
    let message = format!(
        "each of the {gpus} GPUs needs a port of its own from that of {address} on, and 65535 is the last: give \
         --gang-address a port of at most {most}"
    );
    let field = FieldViolation::new("gang_address", &message);
    let refusal = Refusal::new(Code::InvalidArgument, "INVALID_INVENTORY", message);
    Err(refusal.fields(vec![field]).into())
}

/// A token, without its secret, which nobody here knows.
pub(crate) fn token(token: &Token) -> v1::WorkerToken {
    v1::WorkerToken {
        name: names::of_token(token.id),
        display_name: token.name.to_string(),
        create_time: Some(timestamp_ms(token.created_ms)),
        worker: token.worker.map_or_else(String::new, names::of_worker),
    }
}

/// Which folder it puts results into, if it says so.
fn outputs(text: &str) -> Result<Option<OutputsId>, Status> {
    let said = (!text.is_empty()).then(|| text.parse());
    said.transpose()
        .map_err(|error: ids::Error| bad_field("outputs", error.to_string()))
}

/// What an hour on one GPU costs there.
fn price(micros: u64) -> Result<UsdMicros, Status> {
    let price = UsdMicros(micros);
    let dear = || {
        bad_field(
            "price_per_gpu_hour_usd_micros",
            "a GPU costs $1,000 an hour at most",
        )
    };
    (price <= GPU_HOUR_MAX).then_some(price).ok_or_else(dear)
}

/// What a worker says it offers. Its other bounds are the state's to check.
pub(crate) fn inventory(request: v1::RegisterWorkerRequest) -> Result<Inventory, Status> {
    let gpus = request.gpus.iter().enumerate().map(|(index, model)| {
        model.parse().map_err(|error| {
            bad_field(
                &format!("gpus[{index}]"),
                format!("{error}; is the server older than the worker?"),
            )
        })
    });
    let trainers = request
        .trainers
        .iter()
        .enumerate()
        .map(|(index, trainer)| trainer_kind(&format!("trainers[{index}]"), *trainer));
    let gpus: Vec<GpuModel> = gpus.collect::<Result<_, _>>()?;
    let address = gang_address(&request.gang_address)?;
    if let Some(address) = &address {
        check_ports(address, gpus.len())?;
    }
    Ok(Inventory {
        gpus,
        trainers: trainers.collect::<Result<BTreeSet<_>, _>>()?,
        labels: labels("labels", request.labels)?,
        price_per_gpu_hour: request
            .price_per_gpu_hour_usd_micros
            .map(price)
            .transpose()?,
        address,
        outputs: outputs(&request.outputs)?,
    })
}
