//! When this node campaigns.

use raft::StateRole;

use super::{ELECTION_TICKS, HEARTBEAT_TICKS, Peer};

/// Between the campaigns of two followers of a leader that is gone: longer than a round of votes takes, disks included,
/// so that they do not split the votes and lose another election timeout over it.
const APART_TICKS: usize = 3;

/// Ticks without a word of a leader that has hung up before it is taken for gone: more than a heartbeat is late, and a
/// connection that merely broke is made again within one.
const SILENT_TICKS: usize = HEARTBEAT_TICKS + 1;

/// Who has learned first that the leader is gone asks the others again after this long: they may have learned it since.
const AGAIN_TICKS: usize = 4;

/// Ticks without a leader's word after which a node without a vote knows none: no voter waits for longer before it campaigns.
const LEFT_TICKS: usize = 2 * ELECTION_TICKS;

/// Time passes at most so many times slower for who has no leader: several seconds for one try.
const SLOWER_AT_MOST: u64 = 8;

/// Tries to get a leader, and how long each may take.
#[derive(Debug, Default)]
pub(super) struct Leaderless {
    /// The newest term, and how many there were since somebody led.
    term: u64,
    tries: u32,
    /// Ticks since then.
    ticks: u64,
}

impl Leaderless {
    /// A tick has passed in this term. Whether it counts towards the end of the try: votes are written down on two disks, one
    /// after the other, so where these are slow each try is given twice the time of the one before.
    fn counts(&mut self, term: u64, is_led: bool) -> bool {
        if is_led {
            *self = Self {
                term,
                ..Self::default()
            };
            return true;
        }
        self.tries += u32::from(term > self.term);
        self.term = term;
        self.ticks += 1;
        let slower = 1 << self.tries.saturating_sub(1).min(SLOWER_AT_MOST.ilog2());
        self.ticks.is_multiple_of(slower)
    }
}

impl Peer {
    /// A tick has passed.
    pub fn tick(&mut self) {
        self.watch_disk();
        self.retry_snapshots();
        if self.must_not_campaign() {
            return;
        }
        self.take_turns();
        self.hurry();
        let raft = &self.raw.raft;
        let is_led = raft.state == StateRole::Leader || raft.leader_id != 0;
        if self.leaderless.counts(raft.term, is_led) {
            self.raw.tick();
        }
    }

    /// The connection to this node was closed by its other end.
    pub fn hung_up(&mut self, node: u64) {
        if self.members.contains(node) {
            self.hung_up.insert(node);
        }
    }

    /// There is a connection to this node again.
    pub fn reached(&mut self, node: u64) {
        self.hung_up.remove(&node);
        self.retries.reached(node);
    }

    /// While a snapshot takes the place of the state, the log between the two is not there to be looked through, which
    /// Raft's library does before it campaigns; and who votes alone wins at once, for which its own writes must be done.
    pub(super) fn must_not_campaign(&self) -> bool {
        let installing = self.raw.raft.raft_log.applied < self.installed;
        let writing = self.persisted < self.handed && self.votes_alone();
        self.raw.raft.state != StateRole::Leader && (installing || writing)
    }

    /// Whether this node has no vote and nobody has led it for long. A voter campaigns then and knows no leader from there on;
    /// Raft's library has who does not campaign name the one that is gone until there is another.
    pub(super) fn is_left(&self) -> bool {
        let raft = &self.raw.raft;
        !raft.promotable() && raft.election_elapsed >= LEFT_TICKS
    }

    /// Raft has every follower wait for a time that is drawn by chance, and sometimes two draw nearly the same. Followers
    /// of one leader know each other, so they take turns instead: the first try comes soon and is nearly always the last.
    /// Without success Raft's chance decides from then on.
    fn take_turns(&mut self) {
        let raft = &self.raw.raft;
        if self.chosen_timeout || raft.state != StateRole::Follower || raft.leader_id == 0 {
            return;
        }
        let ahead = |id: &&u64| **id > raft.id && **id != raft.leader_id;
        let turn = self.members.voters.iter().filter(ahead).count();
        // One who hurries lets the others learn of it first, or they would refuse.
        let later = usize::from(self.hung_up.contains(&raft.leader_id));
        let ticks = ELECTION_TICKS + later + turn * APART_TICKS;
        self.raw
            .raft
            .set_randomized_election_timeout(ticks.min(2 * ELECTION_TICKS - 1));
    }

    /// A process that ends closes its connections, at once and everywhere. Whose leader has done so does not wait for the
    /// whole election timeout: the rest of it passes in one tick. It is a hint and no more. A leader that is heard all the
    /// same starts the time anew, the others refuse whoever asks for their votes while they hear it (each by its own hint),
    /// and who is elected is decided by votes as ever.
    fn hurry(&mut self) {
        let raft = &mut self.raw.raft;
        let patience = match raft.state {
            StateRole::Follower if raft.leader_id != 0 => {
                self.hurries = self.hung_up.contains(&raft.leader_id);
                SILENT_TICKS
            }
            StateRole::PreCandidate => AGAIN_TICKS,
            _ => return,
        };
        if self.hurries && (patience..ELECTION_TICKS).contains(&raft.election_elapsed) {
            raft.election_elapsed = ELECTION_TICKS - 1;
        }
    }

    /// Takes the only chance out of Raft's library: when a simulated node campaigns follows from the seed. To be called
    /// after every other call, since any of them may draw a new timeout.
    pub fn set_election_timeout(&mut self, ticks: usize) {
        self.chosen_timeout = true;
        self.raw
            .raft
            .set_randomized_election_timeout(ticks.clamp(ELECTION_TICKS, 2 * ELECTION_TICKS - 1));
    }
}
