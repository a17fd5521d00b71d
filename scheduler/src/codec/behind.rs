//! What only some commands have, written behind everything else of an envelope: nothing where there is nothing to say.

use super::{Error, malformed};
use crate::command::{Command, Placement, Seat};
use crate::model::{Label, Terms};

/// Writes it behind the rest.
pub(super) fn write(command: &Command, bytes: Vec<u8>) -> postcard::Result<Vec<u8>> {
    match command {
        Command::RegisterWorker { inventory, .. } => match &inventory.address {
            None => Ok(bytes),
            Some(address) => postcard::to_extend(address, bytes),
        },
        Command::Place { placements } => match others(placements) {
            others if others.is_empty() => Ok(bytes),
            others => postcard::to_extend(&others, bytes),
        },
        _ => match command.terms() {
            Some(terms) => write_terms(terms, bytes),
            None => Ok(bytes),
        },
    }
}

/// Reads it; gives back what follows.
pub(super) fn read<'a>(command: &mut Command, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    match command {
        Command::RegisterWorker { inventory, .. } => {
            let (address, rest) = postcard::take_from_bytes(bytes).map_err(malformed)?;
            inventory.address = Some(address);
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
        _ => match command.terms_mut() {
            Some(terms) => read_terms(terms, bytes),
            None => Ok(bytes),
        },
    }
}

/// The names of credentials, and behind them the hosts beyond the first. Without any hosts names without any are not
/// written either.
fn write_terms(terms: &Terms, bytes: Vec<u8>) -> postcard::Result<Vec<u8>> {
    if terms.credentials.is_empty() && terms.more_hosts == 0 {
        return Ok(bytes);
    }
    let bytes = postcard::to_extend(&terms.credentials, bytes)?;
    match terms.more_hosts {
        0 => Ok(bytes),
        hosts => postcard::to_extend(&hosts, bytes),
    }
}

fn read_terms<'a>(terms: &mut Terms, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    let (names, rest): (Vec<Label>, _) = postcard::take_from_bytes(bytes).map_err(malformed)?;
    let nothing = || malformed("it says that there is more, and there is nothing");
    let rest = if rest.is_empty() {
        if names.is_empty() {
            return Err(nothing());
        }
        rest
    } else {
        let (hosts, rest) = postcard::take_from_bytes(rest).map_err(malformed)?;
        if hosts == 0 {
            return Err(nothing());
        }
        terms.more_hosts = hosts;
        rest
    };
    terms.credentials = names;
    Ok(rest)
}

/// The other hosts of the gangs among placements, by the position of each.
fn others(placements: &[Placement]) -> Vec<(u8, &[Seat])> {
    let gangs = (0..=u8::MAX).zip(placements);
    gangs
        .filter(|(_, placement)| placement.is_gang())
        .map(|(position, placement)| (position, placement.others.as_slice()))
        .collect()
}
