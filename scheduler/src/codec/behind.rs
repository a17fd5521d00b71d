//! What only some commands have, written behind everything else of an envelope: nothing where there is nothing to say.

use stepcast_records::simpletuner::{Preparation, Sharing};

use super::parts::Parts;
use super::{Error, malformed};
use crate::command::{Command, Placement, Seat};
use crate::model::{JobSpec, Label};

/// Writes it behind the rest.
pub(super) fn write(command: &Command, bytes: Vec<u8>) -> postcard::Result<Vec<u8>> {
    match command {
        Command::RegisterWorker { inventory, .. } => {
            let address = inventory.address.as_ref().map(Label::as_str);
            match (address, inventory.outputs) {
                (None, None) => Ok(bytes),
                (Some(address), None) => postcard::to_extend(address, bytes),
                // No address is empty.
                (address, Some(outputs)) => {
                    postcard::to_extend(&(address.unwrap_or_default(), outputs), bytes)
                }
            }
        }
        Command::Place { placements } => match others(placements) {
            others if others.is_empty() => Ok(bytes),
            others => postcard::to_extend(&others, bytes),
        },
        Command::ApproveJob { seq, .. } => match seq {
            None => Ok(bytes),
            Some(seq) => postcard::to_extend(seq, bytes),
        },
        _ => match command.spec() {
            Some(spec) => write_spec(spec, bytes),
            None => Ok(bytes),
        },
    }
}

/// Reads it; gives back what follows.
pub(super) fn read<'a>(command: &mut Command, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    match command {
        Command::RegisterWorker { inventory, .. } => {
            let (address, mut rest): (&str, _) =
                postcard::take_from_bytes(bytes).map_err(malformed)?;
            if !rest.is_empty() {
                let (outputs, after) = postcard::take_from_bytes(rest).map_err(malformed)?;
                inventory.outputs = Some(outputs);
                rest = after;
            }
            let is_said = !address.is_empty() || inventory.outputs.is_none();
            let address = is_said.then(|| address.parse()).transpose();
            inventory.address = address.map_err(malformed)?;
            Ok(rest)
        }
        Command::Place { placements } => {
            let (others, rest): (Vec<(u8, Vec<Seat>)>, _) =
                postcard::take_from_bytes(bytes).map_err(malformed)?;
            if others.is_empty() || !others.is_sorted_by(|a, b| a.0 < b.0) {
                return Err(malformed("its gangs are none, or out of order"));
            }
            for (position, seats) in others {
                match placements.get_mut(usize::from(position)) {
                    Some(placement) if !seats.is_empty() => placement.others = seats,
                    _ => return Err(malformed("a gang is of no placement, or has no parts")),
                }
            }
            Ok(rest)
        }
        Command::ApproveJob { seq, .. } => {
            let (seen, rest) = postcard::take_from_bytes(bytes).map_err(malformed)?;
            *seq = Some(seen);
            Ok(rest)
        }
        _ => match command.spec_mut() {
            Some(spec) => read_spec(spec, bytes),
            None => Ok(bytes),
        },
    }
}

/// The names of credentials, behind them the hosts beyond the first, behind them how the run prepares itself, behind that how
/// it is shared out: each where it says anything or something stands behind it.
fn write_spec(spec: &JobSpec, bytes: Vec<u8>) -> postcard::Result<Vec<u8>> {
    let parts = Parts::behind(bytes).then_said(&spec.terms.credentials)?;
    Ok(parts.then_spec(spec)?.end())
}

fn read_spec<'a>(spec: &mut JobSpec, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    let nothing = || malformed("it says that there is more, and there is nothing");
    let terms = &mut spec.terms;
    let mut rest;
    (terms.credentials, rest) = postcard::take_from_bytes(bytes).map_err(malformed)?;
    if rest.is_empty() {
        let is_some = !terms.credentials.is_empty();
        return is_some.then_some(rest).ok_or_else(nothing);
    }
    (terms.more_hosts, rest) = postcard::take_from_bytes(rest).map_err(malformed)?;
    if rest.is_empty() {
        let is_some = terms.more_hosts > 0;
        return is_some.then_some(rest).ok_or_else(nothing);
    }
    let preparation = &mut spec.workload.preparation;
    (*preparation, rest) = postcard::take_from_bytes(rest).map_err(malformed)?;
    if rest.is_empty() {
        let is_some = *preparation != Preparation::default();
        return is_some.then_some(rest).ok_or_else(nothing);
    }
    let sharing = &mut spec.workload.sharing;
    (*sharing, rest) = postcard::take_from_bytes(rest).map_err(malformed)?;
    let is_some = *sharing != Sharing::default();
    is_some.then_some(rest).ok_or_else(nothing)
}

/// The other hosts of the gangs among placements, by the position of each.
fn others(placements: &[Placement]) -> Vec<(u8, &[Seat])> {
    let gangs = (0..=u8::MAX).zip(placements);
    gangs
        .filter(|(_, placement)| placement.is_gang())
        .map(|(position, placement)| (position, placement.others.as_slice()))
        .collect()
}
