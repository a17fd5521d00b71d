//! Where each submission lies, in memory: what this process has written, and what it has found of others'.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, RangeInclusive};

use stepcast_scheduler::ids::StagingId;

use super::record::Head;

/// A segment, by the process that writes it and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentId {
    pub(super) writer: u64,
    pub(super) number: u32,
}

/// A place in a segment, counted in slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: SegmentId,
    pub(super) slot: u32,
}

/// Every submission that is known of.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// One submission has two places when it was sent again to another node, after the first one had failed.
    places: BTreeMap<(StagingId, Place), Head>,
    segments: BTreeMap<SegmentId, Known>,
}

/// What is known of a segment.
#[derive(Debug, Default)]
struct Known {
    /// Bytes that it had when it was looked through.
    bytes: u64,
    submissions: BTreeMap<u32, StagingId>,
}

impl Index {
    /// How many submissions there are; one in two places counts twice.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// A submission is there.
    pub(super) fn insert(&mut self, place: Place, head: Head) {
        self.places.insert((head.staging, place), head);
        let known = self.segments.entry(place.segment).or_default();
        known.submissions.insert(place.slot, head.staging);
    }

    /// Where a submission is.
    pub(super) fn places(&self, staging: StagingId) -> Vec<(Place, Head)> {
        let places = self.places.range(places_of(staging));
        places.map(|((_, place), head)| (*place, *head)).collect()
    }

    /// Where a submission is, in segments of this writer or of any: it is not there any more from now on.
    pub(super) fn take(&mut self, staging: StagingId, writer: Option<u64>) -> Vec<(Place, Head)> {
        let mut places = self.places(staging);
        places.retain(|(place, _)| writer.is_none_or(|writer| place.segment.writer == writer));
        for (place, _) in &places {
            self.remove(staging, *place);
        }
        places
    }

    /// How many submissions are in a segment.
    pub(super) fn live_in(&self, segment: SegmentId) -> usize {
        self.segments
            .get(&segment)
            .map_or(0, |known| known.submissions.len())
    }

    /// Bytes that a segment had when it was looked through; `None` for one that never was.
    pub(super) fn looked_at(&self, segment: SegmentId) -> Option<u64> {
        self.segments.get(&segment).map(|known| known.bytes)
    }

    /// The segments that are known.
    pub(super) fn segments(&self) -> Vec<SegmentId> {
        self.segments.keys().copied().collect()
    }

    /// What is known to be in a segment, by slot.
    pub(super) fn submissions(&self, segment: SegmentId) -> BTreeMap<u32, StagingId> {
        self.segments
            .get(&segment)
            .map(|known| known.submissions.clone())
            .unwrap_or_default()
    }

    /// A segment of so many bytes has been looked through. Of what was known to be in it before, the rest is forgotten, and
    /// what was not known is added where `add` says so.
    pub(super) fn found(
        &mut self,
        segment: SegmentId,
        before: &BTreeMap<u32, StagingId>,
        bytes: u64,
        heads: &BTreeMap<u32, Head>,
        add: bool,
    ) {
        if add {
            self.segments.entry(segment).or_default().bytes = bytes;
        }
        for (&slot, &staging) in before {
            if heads.get(&slot).is_none_or(|head| head.staging != staging) {
                self.remove(staging, Place { segment, slot });
            }
        }
        for (&slot, &head) in heads.iter().filter(|_| add) {
            self.insert(Place { segment, slot }, head);
        }
    }

    /// A segment is there no more, with all that was in it.
    pub(super) fn forget(&mut self, segment: SegmentId) {
        let known = self.segments.remove(&segment).unwrap_or_default();
        for (slot, staging) in known.submissions {
            self.places.remove(&(staging, Place { segment, slot }));
        }
    }

    /// The submissions after this one in the order of their ids, each once, with when it was put.
    pub(super) fn after(&self, after: Option<StagingId>) -> impl Iterator<Item = (StagingId, u64)> {
        let from = after.map_or(Bound::Unbounded, |after| {
            Bound::Excluded((after, Place::LAST))
        });
        let places = self.places.range((from, Bound::Unbounded));
        let mut last = None;
        places.filter_map(move |((staging, _), head)| {
            (last.replace(*staging) != Some(*staging)).then_some((*staging, head.put_ms))
        })
    }

    /// A submission is not in this place any more.
    pub(super) fn remove(&mut self, staging: StagingId, place: Place) {
        self.places.remove(&(staging, place));
        if let Some(known) = self.segments.get_mut(&place.segment) {
            known.submissions.remove(&place.slot);
        }
    }
}

/// Every place that a submission may have.
fn places_of(staging: StagingId) -> RangeInclusive<(StagingId, Place)> {
    (staging, Place::FIRST)..=(staging, Place::LAST)
}

impl Place {
    const FIRST: Self = Self {
        segment: SegmentId {
            writer: 0,
            number: 0,
        },
        slot: 0,
    };
    const LAST: Self = Self {
        segment: SegmentId {
            writer: u64::MAX,
            number: u32::MAX,
        },
        slot: u32::MAX,
    };
}

impl SegmentId {
    /// What the file is called.
    pub(super) fn name(self) -> String {
        self.to_string()
    }

    /// The segment of a file of this name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (writer, number) = name.split_once('-')?;
        let id = Self {
            writer: u64::from_str_radix(writer, 16).ok()?,
            number: u32::from_str_radix(number, 16).ok()?,
        };
        (id.name() == name).then_some(id)
    }

    /// What the sums in it begin with: known to nobody but who can see the folder.
    pub(super) fn seed(self) -> u64 {
        self.writer ^ u64::from(self.number)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:08x}", self.writer, self.number)
    }
}
