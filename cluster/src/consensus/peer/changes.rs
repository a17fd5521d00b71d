//! Changes of the members as they pass through the log, and the transfer of leadership.

use protobuf::Message as _;
use raft::StateRole;
use raft::eraftpb::{ConfChange, ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType};

use super::{Output, Peer};
use crate::consensus::UNREADABLE;
use crate::consensus::change::{Change, ChangeError};
use crate::consensus::log::Position;
use crate::members::Members;

impl Peer {
    /// Appends a change of the members, if this node leads and no other change is under way.
    pub fn propose_change(&mut self, change: &Change) -> Result<Position, ChangeError> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            let leader = self.role().leader;
            return Err(ChangeError::NotLeader { leader });
        }
        if raft.has_pending_conf() || !self.members.outgoing.is_empty() {
            return Err(ChangeError::UnderWay);
        }
        change.check(&self.members, raft.id)?;
        let at = Position {
            index: raft.raft_log.last_index() + 1,
            term: raft.term,
        };
        let (conf_change, context) = change.entry(&self.members);
        self.raw
            .propose_conf_change(context, conf_change)
            .map_err(|_| ChangeError::Busy)?;
        Ok(at)
    }

    /// Begins to hand leadership to `to`, or to whichever voter has most of the log. Proposals are dropped until that
    /// node leads, or for one election timeout. Says to whom.
    pub fn transfer(&mut self, to: Option<u64>) -> Result<u64, ChangeError> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            let leader = self.role().leader;
            return Err(ChangeError::NotLeader { leader });
        }
        let to = match to {
            Some(to) if !self.members.contains(to) => return Err(ChangeError::Unknown(to)),
            Some(to) if !self.members.voters.contains(&to) => return Err(ChangeError::Learns(to)),
            Some(to) => to,
            None => self.successor().ok_or(ChangeError::NoSuccessor)?,
        };
        self.raw.transfer_leader(to);
        Ok(to)
    }

    /// Lets Raft know of the changes in these committed entries. Says who belongs to the cluster after each.
    pub(super) fn change_members(
        &mut self,
        committed: &[Entry],
        out: &mut Vec<Output>,
    ) -> Vec<(u64, Members)> {
        let mut changes = Vec::new();
        for entry in committed {
            if entry.get_entry_type() == EntryType::EntryNormal {
                continue;
            }
            match self.change(entry) {
                Ok((members, farewell)) => {
                    out.extend(farewell.map(|message| Output::Send(vec![message])));
                    self.members.clone_from(&members);
                    changes.push((entry.index, members));
                }
                Err(why) => {
                    out.push(Output::Fail(why));
                    return changes;
                }
            }
        }
        if !changes.is_empty() {
            out.push(Output::Members(self.members.clone()));
        }
        changes
    }

    fn change(&mut self, entry: &Entry) -> Result<(Members, Option<Message>), String> {
        let broken = |error| {
            format!(
                "log entry {} changes the members in a way that cannot be read: {error}: {UNREADABLE}",
                entry.index
            )
        };
        let before = self.raw.raft.prs().iter().map(|(id, p)| (*id, p.matched));
        let before: Vec<(u64, u64)> = before.collect();
        let applied = match entry.get_entry_type() {
            EntryType::EntryConfChange => {
                let change = ConfChange::parse_from_bytes(&entry.data).map_err(broken)?;
                self.raw.apply_conf_change(&change)
            }
            _ => {
                let change = ConfChangeV2::parse_from_bytes(&entry.data).map_err(broken)?;
                self.raw.apply_conf_change(&change)
            }
        };
        match applied {
            Ok(conf_state) => {
                let members = self.members.changed(&conf_state, &entry.context)?;
                let farewell = self.farewell(entry.index, &before);
                Ok((members, farewell))
            }
            // Every node refuses it alike, as they all have the same members before it.
            Err(error) => {
                tracing::warn!(%error, index = entry.index, "a change of members has no effect");
                Ok((self.members.clone(), None))
            }
        }
    }

    /// The leader says nothing more to a node that is removed, so it tells it with its last word that its removal is
    /// committed: if it has that entry, it learns from its own log what has become of it.
    fn farewell(&self, index: u64, before: &[(u64, u64)]) -> Option<Message> {
        let raft = &self.raw.raft;
        let (gone, _) = before
            .iter()
            .find(|(id, matched)| raft.prs().get(*id).is_none() && *matched >= index)?;
        if raft.state != StateRole::Leader {
            return None;
        }
        let mut message = Message {
            from: raft.id,
            to: *gone,
            term: raft.term,
            commit: index,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgHeartbeat);
        Some(message)
    }

    /// Who votes and learns, by Raft's own word.
    pub fn conf_state(&self) -> ConfState {
        self.raw.raft.prs().conf().to_conf_state()
    }
}
