//! A segment as one run of bytes, where it is a file no more: as an object in a bucket, say.

use stepcast_scheduler::ids::StagingId;

use super::super::super::packed::unpack;
use super::index::SegmentId;
use super::look::LEFT;
use super::record::{self, SLOT};

/// The submissions in a segment of this name, each packed; `None` when no segment is called so. What is not whole is none:
/// a crash has left it.
pub(in super::super::super) fn in_segment<'a>(
    name: &str,
    segment: &'a [u8],
) -> Option<Vec<(StagingId, &'a [u8])>> {
    let id = SegmentId::parse(name.strip_suffix(LEFT).unwrap_or(name))?;
    let mut found = Vec::new();
    let mut rest = segment;
    while !rest.is_empty() {
        let mut slots = 1;
        if let Some(head) = record::head(id.seed(), rest)
            && let Some(packed) = rest
                .get(..record::length(head.bytes))
                .and_then(record::body)
        {
            if unpack(head.staging, packed).is_some() {
                found.push((head.staging, packed));
            }
            slots = head.slots() as usize;
        }
        rest = rest.get(slots * SLOT as usize..).unwrap_or_default();
    }
    Some(found)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::super::super::packed::pack;
    use super::*;

    #[test]
    fn what_is_whole_is_found_behind_holes_and_what_is_not() {
        let id = |number| StagingId([number; 16]);
        let name = "00000000000000ab-00000003";
        let seed = SegmentId::parse(name).unwrap().seed();
        let files = [crate::submission::StagedFile {
            role: crate::submission::Role::Config,
            name: "config.json".into(),
            content: vec![b'x'; 5_000],
        }];
        let mut segment = vec![0; SLOT as usize];
        let mut ends = Vec::new();
        for number in 1..=4 {
            record::add(&mut segment, seed, 77, &pack(id(number), &files));
            ends.push(segment.len());
        }
        let found = |name, segment: &[u8]| {
            let found = in_segment(name, segment)?;
            let ids = found.iter().map(|(staging, packed)| {
                assert_eq!(unpack(*staging, packed).unwrap(), files);
                staging.0[0]
            });
            Some(ids.collect::<Vec<u8>>())
        };
        assert_eq!(found(name, &segment), Some(vec![1, 2, 3, 4]));
        // The first has a head and no body, the second was deleted, and of the last a part was not written.
        segment[4_200..4_300].fill(0);
        segment[ends[0]..ends[1]].fill(0);
        segment.truncate(ends[3] - SLOT as usize);
        let left = format!("{name}{LEFT}");
        assert_eq!(found(&left, &segment), Some(vec![3]));
        let another = "00000000000000ab-00000004";
        assert_eq!(
            found(another, &segment),
            Some(vec![]),
            "no head holds there"
        );
        assert_eq!(found("notes", &segment), None);
    }
}
