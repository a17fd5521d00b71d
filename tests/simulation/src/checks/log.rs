//! Terms, entries and states, as every node shows them.

use std::collections::BTreeMap;

use raft::eraftpb::Entry;
use stepcast_cluster::members::Members;
use xxhash_rust::xxh3::xxh3_64;

use super::Check;

/// What all nodes together have shown of the log.
#[derive(Default)]
pub(crate) struct Logs {
    /// Who led each term.
    leaders: BTreeMap<u64, u64>,
    /// What any log holds, by index and term.
    written: BTreeMap<(u64, u64), u64>,
    /// What any node applied, by index.
    applied: BTreeMap<u64, (u64, u64)>,
    /// The state after an entry.
    states: BTreeMap<u64, (u64, u64)>,
}

type Found = Option<(Check, String)>;

impl Logs {
    /// This node leads.
    pub(crate) fn leads(&mut self, node: u64, term: u64) -> Found {
        let first = *self.leaders.entry(term).or_insert(node);
        (first != node).then(|| {
            let detail = format!("nodes {first} and {node} both lead term {term}");
            (Check::OneLeaderATerm, detail)
        })
    }

    /// How many terms had a leader.
    pub(crate) fn led(&self) -> usize {
        self.leaders.len()
    }

    /// A node writes this into its log.
    pub(crate) fn writes(&mut self, node: u64, entry: &Entry) -> Found {
        let hash = hash(entry);
        let known = *self
            .written
            .entry((entry.index, entry.term))
            .or_insert(hash);
        (known != hash).then(|| {
            let detail = format!(
                "node {node} has another entry {} of term {} than others",
                entry.index, entry.term
            );
            (Check::LogsMatch, detail)
        })
    }

    /// A node applies this. Also says whether it is the first to.
    pub(crate) fn applies(&mut self, node: u64, entry: &Entry) -> (bool, Found) {
        let shown = (entry.term, hash(entry));
        let newest = self.applied.last_key_value().map_or(0, |(index, _)| *index);
        let known = *self.applied.entry(entry.index).or_insert(shown);
        let found = (known != shown).then(|| {
            let detail = format!(
                "node {node} applies another entry {} (term {}) than was applied before (term {})",
                entry.index, entry.term, known.0
            );
            (Check::CommittedEntriesAgree, detail)
        });
        (entry.index > newest, found)
    }

    /// The newest entry that any node has applied.
    pub(crate) fn newest(&self) -> u64 {
        self.applied.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// The state of a node and its members after this entry.
    pub(crate) fn state(
        &mut self,
        node: u64,
        index: u64,
        snapshot: &[u8],
        members: &Members,
    ) -> Found {
        let hash = xxh3_64(snapshot) ^ xxh3_64(&members.encode()).rotate_left(9);
        let (first, known) = *self.states.entry(index).or_insert((node, hash));
        (known != hash).then(|| {
            let detail =
                format!("after entry {index} node {node} has another state or other members than node {first} had");
            (Check::StatesAgree, detail)
        })
    }
}

fn hash(entry: &Entry) -> u64 {
    let kind = entry.entry_type as u64;
    xxh3_64(&entry.data) ^ xxh3_64(&entry.context).rotate_left(7) ^ kind
}
