//! What is done to a cluster while it is used, one fault after the other and some at once, all from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stepcast_tests::random::Random;

use crate::cluster::{Cluster, PATIENCE};
use crate::history::History;
use crate::proxy::{Link, Party};
use crate::verdict::by_kind;
use crate::wires::Wires;

/// How long a fault lasts: from shorter than an election to longer than several.
const HELD_MS: std::ops::Range<u64> = 100..3_000;

/// Before the next one, after the cluster has served again.
const BETWEEN_MS: std::ops::Range<u64> = 20..800;

/// Submissions acknowledged after a fault before the next one: more than were under way when it ended.
const SERVES: u64 = 12;

/// Bytes left on a full disk: less than the server keeps in reserve.
const LEFT: u64 = 24 << 20;

/// With fewer nodes than this none is taken out before another one is there.
const FEW: usize = 4;

/// With so many nodes none is added before another one is out.
const MANY: usize = 6;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillLeader,
    KillNode,
    KillAllNodes,
    KillWorker,
    PauseLeader,
    PauseNode,
    PauseWorker,
    IsolateLeader,
    CutOneWay,
    Split,
    CutWorker,
    SlowLinks,
    LossyLinks,
    NarrowLinks,
    ResetLinks,
    Transfer,
    RollingRestart,
    ReplaceNode,
    FullDisk,
    FrozenDisk,
    SlowDisk,
}

/// What belongs together: even a short run has one of each family, as far as it can be done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Kill,
    Stop,
    Partition,
    Isolation,
    BadNetwork,
    Transfer,
    RollingRestart,
    Membership,
    SlowDisk,
    FullDisk,
}

impl Family {
    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Stop => "SIGSTOP",
            Self::Partition => "partition",
            Self::Isolation => "leader isolated",
            Self::BadNetwork => "bad network",
            Self::Transfer => "leadership transferred",
            Self::RollingRestart => "rolling restart",
            Self::Membership => "members changed",
            Self::SlowDisk => "slow or frozen disk",
            Self::FullDisk => "full disk",
        }
    }
}

/// Every kind with its name and family, and how often it comes.
const KINDS: [(Fault, &str, Family, u64); 21] = [
    (Fault::KillLeader, "kill-leader", Family::Kill, 4),
    (Fault::KillNode, "kill-node", Family::Kill, 3),
    (Fault::KillAllNodes, "kill-all-nodes", Family::Kill, 1),
    (Fault::KillWorker, "kill-worker", Family::Kill, 2),
    (Fault::PauseLeader, "pause-leader", Family::Stop, 3),
    (Fault::PauseNode, "pause-node", Family::Stop, 1),
    (Fault::PauseWorker, "pause-worker", Family::Stop, 2),
    (Fault::IsolateLeader, "isolate-leader", Family::Isolation, 3),
    (Fault::CutOneWay, "cut-one-way", Family::Partition, 3),
    (Fault::Split, "split", Family::Partition, 3),
    (Fault::CutWorker, "cut-worker", Family::Partition, 1),
    (Fault::SlowLinks, "slow-links", Family::BadNetwork, 1),
    (Fault::LossyLinks, "lossy-links", Family::BadNetwork, 2),
    (Fault::NarrowLinks, "narrow-links", Family::BadNetwork, 1),
    (Fault::ResetLinks, "reset-links", Family::BadNetwork, 2),
    (Fault::Transfer, "transfer", Family::Transfer, 2),
    (
        Fault::RollingRestart,
        "rolling-restart",
        Family::RollingRestart,
        1,
    ),
    (Fault::ReplaceNode, "replace-node", Family::Membership, 1),
    (Fault::FullDisk, "full-disk", Family::FullDisk, 1),
    (Fault::FrozenDisk, "frozen-disk", Family::SlowDisk, 2),
    (Fault::SlowDisk, "slow-disk", Family::SlowDisk, 1),
];

/// Those who make the faults.
#[derive(Debug)]
pub(crate) struct Faults {
    random: Random,
    wanted: BTreeSet<Fault>,
    /// How often each kind was done.
    done: BTreeMap<&'static str, u64>,
    families: BTreeMap<Family, u64>,
}

impl Faults {
    /// All kinds, or those whose names are given, separated by commas.
    pub(crate) fn new(random: Random, names: Option<&str>) -> Self {
        let names: Option<Vec<&str>> = names.map(|names| names.split(',').collect());
        let all = KINDS.map(|(_, name, ..)| name);
        for name in names.iter().flatten() {
            assert!(
                all.contains(name),
                "there is no fault {name}; there are {all:?}"
            );
        }
        let wanted = KINDS
            .iter()
            .filter(|(_, name, ..)| names.as_ref().is_none_or(|names| names.contains(name)));
        Self {
            random,
            wanted: wanted.map(|(fault, ..)| *fault).collect(),
            done: BTreeMap::new(),
            families: BTreeMap::new(),
        }
    }

    /// Whether there was one of each family that can be done here.
    pub(crate) fn were_all(&self, cluster: &Cluster) -> bool {
        let mut possible = self.possible(cluster);
        possible.all(|(_, family, _)| self.families.contains_key(&family))
    }

    /// How many there were: by family, and by kind.
    pub(crate) fn told(&self) -> String {
        let families = self.families.iter();
        let families = by_kind(families.map(|(family, count)| (family.name(), *count)));
        let kinds = by_kind(self.done.iter().map(|(kind, count)| (*kind, *count)));
        format!("{families}; by kind {kinds}")
    }

    fn possible(&self, cluster: &Cluster) -> impl Iterator<Item = (Fault, Family, u64)> {
        let wanted = move |fault: Fault| self.wanted.contains(&fault) && fault.is_possible(cluster);
        let kinds = KINDS
            .iter()
            .map(|(fault, _, family, often)| (*fault, *family, *often));
        kinds.filter(move |(fault, ..)| wanted(*fault))
    }

    /// One fault, perhaps with a second one while it lasts; then everything is made good, and the cluster serves again.
    pub(crate) async fn one(&mut self, cluster: &mut Cluster, history: &History) {
        let first = self.pick(cluster);
        self.begin(first, cluster, history).await;
        self.wait(HELD_MS).await;
        if self.random.one_in(4) {
            let second = self.pick(cluster);
            // What waits for the cluster to do something needs one that can.
            if second.is_quick() && second.goes_beside(first) {
                self.begin(second, cluster, history).await;
                self.wait(HELD_MS).await;
            }
        }
        let at = history.now() as f64 / 1e9;
        make_good(cluster);
        serves(history).await;
        let after = history.now() as f64 / 1e9 - at;
        println!("{at:6.1} s made good; serves {after:.1} s later");
        self.wait(BETWEEN_MS).await;
    }

    /// One of a family that was not there yet, or one of all.
    fn pick(&mut self, cluster: &Cluster) -> Fault {
        let mut possible: Vec<_> = self.possible(cluster).collect();
        if !self.were_all(cluster) {
            possible.retain(|(_, family, _)| !self.families.contains_key(family));
        }
        let all: u64 = possible.iter().map(|(.., often)| often).sum();
        let mut at = self.random.within(0..all);
        for (fault, _, often) in possible {
            if at < often {
                return fault;
            }
            at -= often;
        }
        unreachable!("the number lies below the sum");
    }

    async fn wait(&mut self, range: std::ops::Range<u64>) {
        let ms = self.random.within(range);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn begin(&mut self, fault: Fault, cluster: &mut Cluster, history: &History) {
        let (_, name, family, _) = KINDS.into_iter().find(|(kind, ..)| *kind == fault).unwrap();
        let members = cluster.members();
        let node = *self.random.pick(&members);
        let leader = cluster.leader().await.unwrap_or(node);
        let workers = cluster.workers.len() as u64;
        let worker = usize::try_from(self.random.within(0..workers)).unwrap();
        let at = history.now() as f64 / 1e9;
        println!("{at:6.1} s {name}: node {node}, worker {worker}; node {leader} leads");
        *self.done.entry(name).or_default() += 1;
        *self.families.entry(family).or_default() += 1;
        match fault {
            Fault::KillLeader => kill(cluster, leader),
            Fault::KillNode => kill(cluster, node),
            Fault::KillAllNodes => members.iter().for_each(|node| kill(cluster, *node)),
            Fault::KillWorker => {
                if let Some(process) = cluster.workers[worker].process.take() {
                    process.kill();
                }
            }
            Fault::PauseLeader => pause(cluster, leader),
            Fault::PauseNode => pause(cluster, node),
            Fault::PauseWorker => {
                cluster.workers[worker]
                    .process
                    .iter()
                    .for_each(|process| process.pause());
            }
            Fault::IsolateLeader => {
                let mut others = cluster.others(leader);
                // Half of the time its callers still reach it: what it says must not be old.
                if self.random.one_in(2) {
                    others.retain(|other| matches!(other, Party::Node(_)));
                }
                cluster.wires.isolate(leader, &others);
            }
            Fault::CutOneWay => self.cut_one_way(cluster, leader, node),
            Fault::Split => self.split(cluster, &members),
            Fault::CutWorker => {
                for node in members {
                    let link = Link::cut();
                    cluster
                        .wires
                        .change_all(node, &[Party::Worker(worker)], link);
                }
            }
            Fault::SlowLinks => {
                let delay = Duration::from_millis(self.random.within(5..80));
                let jitter = Duration::from_millis(self.random.within(1..60));
                let link = Link {
                    delay,
                    jitter,
                    ..Link::default()
                };
                everywhere(cluster, link);
            }
            Fault::LossyLinks => {
                let lost_per_mille = self.random.within(10..150);
                everywhere(
                    cluster,
                    Link {
                        lost_per_mille,
                        ..Link::default()
                    },
                );
            }
            Fault::NarrowLinks => {
                let bytes_per_second = Some(self.random.within(20_000..200_000));
                everywhere(
                    cluster,
                    Link {
                        bytes_per_second,
                        ..Link::default()
                    },
                );
            }
            Fault::ResetLinks => cluster.wires.reset(node, &cluster.others(node)),
            Fault::Transfer => drop(cluster.transfer().await),
            Fault::RollingRestart => rolling_restart(cluster).await,
            Fault::ReplaceNode => self.replace(cluster, &members).await,
            Fault::FullDisk => disks(cluster, |disk| disk.fill_up_to(LEFT)),
            Fault::FrozenDisk => disks(cluster, crate::disk::Disk::freeze),
            Fault::SlowDisk => disks(cluster, crate::disk::Disk::slow),
        }
    }

    /// The leader hears a node that does not hear it, or the other way round.
    fn cut_one_way(&mut self, cluster: &Cluster, leader: usize, node: usize) {
        let other = cluster.members().into_iter().find(|other| *other != leader);
        let other = if node == leader { other } else { Some(node) };
        if let Some(other) = other {
            let (from, to) = if self.random.one_in(2) {
                (leader, other)
            } else {
                (other, leader)
            };
            cluster.wires.cut(from, to);
        }
    }

    /// Two parts that do not hear each other, sometimes with one node that hears both.
    fn split(&mut self, cluster: &Cluster, members: &[usize]) {
        let mut one = Vec::new();
        let mut other = Vec::new();
        for member in members {
            if self.random.one_in(2) {
                &mut one
            } else {
                &mut other
            }
            .push(*member);
        }
        let bridge = self.random.one_in(3).then(|| *self.random.pick(members));
        for one in &one {
            for other in other.iter().filter(|other| bridge != Some(**other)) {
                if bridge != Some(*one) {
                    cluster.wires.cut(*one, *other);
                    cluster.wires.cut(*other, *one);
                }
            }
        }
    }

    /// One more node, and one less, in either order if there are enough. A node with a disk of its own stays.
    async fn replace(&mut self, cluster: &mut Cluster, members: &[usize]) {
        let mut leaving = members.to_vec();
        leaving.retain(|node| cluster.node(*node).disk.is_none());
        let leaving = *self.random.pick(&leaving);
        let grow_first = members.len() < FEW || (members.len() < MANY && self.random.one_in(2));
        if grow_first {
            cluster.grow(false).await;
        }
        let removed = cluster.remove(leaving).await;
        if !grow_first && removed {
            cluster.grow(false).await;
        }
    }
}

impl Fault {
    fn is_possible(self, cluster: &Cluster) -> bool {
        let (several, three) = (cluster.members().len() > 1, cluster.members().len() > 2);
        let proxied = matches!(cluster.wires, Wires::Proxied(_));
        match self {
            Self::KillLeader
            | Self::KillNode
            | Self::KillAllNodes
            | Self::KillWorker
            | Self::PauseLeader
            | Self::PauseNode
            | Self::PauseWorker
            | Self::RollingRestart => true,
            Self::IsolateLeader | Self::CutOneWay | Self::Split => {
                several && !matches!(cluster.wires, Wires::Direct)
            }
            Self::CutWorker
            | Self::SlowLinks
            | Self::LossyLinks
            | Self::NarrowLinks
            | Self::ResetLinks => proxied,
            Self::Transfer => several,
            Self::ReplaceNode => three,
            Self::FullDisk | Self::FrozenDisk | Self::SlowDisk => cluster
                .nodes
                .iter()
                .any(|node| node.member && node.disk.is_some()),
        }
    }

    /// Whether it can be done while the other lasts: nothing is written to a frozen disk, and none is frozen twice.
    fn goes_beside(self, other: Self) -> bool {
        let disks = [Self::FullDisk, Self::FrozenDisk, Self::SlowDisk];
        !(disks.contains(&self) && disks.contains(&other))
    }

    /// Whether it is done without the cluster's help.
    const fn is_quick(self) -> bool {
        !matches!(
            self,
            Self::Transfer | Self::RollingRestart | Self::ReplaceNode
        )
    }
}

/// Ends every fault and starts whatever does not run.
pub(crate) fn make_good(cluster: &mut Cluster) {
    cluster.wires.heal();
    disks(cluster, |disk| {
        disk.thaw();
        disk.quick();
        disk.empty();
    });
    for number in cluster.members() {
        if let Some(process) = &mut cluster.node(number).process {
            process.resume();
            if process.has_ended() {
                println!("node {number} has ended by itself and is started again");
                cluster.node(number).process = None;
            }
        }
        cluster.start_node(number);
    }
    for number in 0..cluster.workers.len() {
        if let Some(process) = &mut cluster.workers[number].process {
            process.resume();
            assert!(!process.has_ended(), "worker {number} has ended by itself");
        }
        cluster.start_worker(number);
    }
}

/// Waits until the cluster takes submissions again.
pub(crate) async fn serves(history: &History) {
    let mut acknowledged = history.acknowledged();
    let goal = *acknowledged.borrow_and_update() + SERVES;
    let served = acknowledged.wait_for(|count| *count >= goal);
    let served = tokio::time::timeout(PATIENCE, served).await;
    assert!(
        served.is_ok(),
        "the cluster takes no submissions though nothing is wrong any more"
    );
}

fn kill(cluster: &mut Cluster, number: usize) {
    if let Some(process) = cluster.node(number).process.take() {
        process.kill();
    }
}

fn pause(cluster: &mut Cluster, number: usize) {
    if let Some(process) = &cluster.node(number).process {
        process.pause();
    }
}

fn everywhere(cluster: &Cluster, link: Link) {
    for node in cluster.members() {
        cluster.wires.change_all(node, &cluster.others(node), link);
    }
}

fn disks(cluster: &Cluster, change: impl Fn(&crate::disk::Disk)) {
    for node in cluster.nodes.iter().filter(|node| node.member) {
        node.disk.iter().for_each(&change);
    }
}

/// Every node once, each only after the one before takes part again.
async fn rolling_restart(cluster: &mut Cluster) {
    for number in cluster.members() {
        if let Some(process) = cluster.node(number).process.take() {
            process.resume();
            process.stop().await;
        }
        cluster.start_node(number);
        cluster.until_even().await;
    }
}
