//! Teams that are not for everybody: as bytes in the repository, and whose jobs they take.

use std::collections::BTreeSet;

use stepcast_scheduler::accounts::{AccountChange, Role};
use stepcast_scheduler::ids::{JobId, OrgId, StagingId, TeamId, UserId};
use stepcast_scheduler::model::{JobSpec, Member, Owner, TeamRules};
use stepcast_scheduler::{Command, Envelope, Rejection, Reply, State, codec};

use crate::golden::{bytes, hex, in_format_3, stand_in};
use crate::support::workload;

/// A log, an entry a line.
const LOG: &str = include_str!("../../testdata/golden/log-3-members.txt");

/// A snapshot of the state that it leads to.
const SNAPSHOT: &str = include_str!("../../testdata/golden/snapshot-3-members.txt");

const ACME: OrgId = OrgId(1);
const OTHERS: OrgId = OrgId(2);
/// In acme, and so is Ben.
const ADA: UserId = UserId(1);
const BEN: UserId = UserId(2);
/// Of the others.
const CAT: UserId = UserId(3);
const TEAM: TeamId = TeamId(1);
/// A part of it.
const PART: TeamId = TeamId(2);

fn team(name: &str) -> Command {
    Command::SetTeam {
        name: name.parse().expect("a team's name"),
        rules: TeamRules::default(),
    }
}

fn members(name: &str, only: &[Member]) -> Command {
    Command::SetTeamMembers {
        name: name.parse().expect("a team's name"),
        only: only.iter().copied().collect::<BTreeSet<_>>(),
    }
}

fn org(name: &str) -> Command {
    let name = name.parse().expect("a label");
    Command::Account {
        change: AccountChange::CreateOrg { name },
    }
}

fn user(org: OrgId, name: &str) -> Command {
    Command::Account {
        change: AccountChange::CreateUser {
            org: Some(org),
            name: name.parse().expect("a label"),
            role: Role::Member,
        },
    }
}

/// A team for an organisation, of which a part is for one of its people alone.
fn entries() -> (Vec<Envelope>, State) {
    in_format_3(vec![
        Command::Barrier { version: 3 },
        org("acme"),
        org("others"),
        user(ACME, "ada"),
        user(ACME, "ben"),
        user(OTHERS, "cat"),
        team("acme"),
        team("acme/vision"),
        team("open"),
        members("acme", &[Member::Org(ACME)]),
        members("acme/vision", &[Member::Org(OTHERS), Member::User(ADA)]),
        members("open", &[Member::User(CAT)]),
        members("open", &[]),
    ])
}

/// A state to which commands are applied as they come.
struct Cluster(State);

impl Cluster {
    fn new() -> Self {
        Self(entries().1)
    }

    fn apply(&mut self, command: Command) -> Result<Reply, Rejection> {
        let index = self.0.applied_index() + 1;
        let envelope = Envelope::new(1_800_000_000_000 + index, None, command).in_format(3);
        self.0.apply(index, &envelope).reply
    }

    fn submit(&mut self, owner: Option<(OrgId, UserId)>, team: TeamId) -> Result<Reply, Rejection> {
        let number = u8::try_from(self.0.applied_index()).expect("a short history");
        let spec = spec(number, owner, team);
        self.apply(Command::SubmitJob { spec })
    }
}

fn spec(number: u8, owner: Option<(OrgId, UserId)>, team: TeamId) -> Box<JobSpec> {
    let mut spec = JobSpec::new(workload(), StagingId([number; 16]));
    spec.terms.owner = owner.map(|(org, user)| Owner { org, user });
    spec.terms.team = team;
    Box::new(spec)
}

#[test]
fn members_are_written_and_read_as_ever() {
    let (entries, state) = entries();
    stand_in(LOG, &entries);
    assert_eq!(hex(&state.snapshot()), SNAPSHOT.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT)).expect("it is restored");
    assert_eq!(restored, state);
    let only = restored.team(PART).map(|team| team.only.len());
    assert_eq!(only, Some(2));
    let mut bytes = codec::encode(&entries[9]);
    bytes[..2].copy_from_slice(&2_u16.to_le_bytes());
    assert!(codec::decode(&bytes).is_err(), "an older format has none");
}

#[test]
fn a_team_takes_the_jobs_of_its_members_and_its_parent_has_a_say() {
    let mut cluster = Cluster::new();
    let (ada, ben, cat) = (Some((ACME, ADA)), Some((ACME, BEN)), Some((OTHERS, CAT)));
    let mut taken = |owner, team| match cluster.submit(owner, team) {
        Ok(_) => None,
        Err(Rejection::NotInTeam { team }) => Some(team.to_string()),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(taken(ada, TEAM), None);
    assert_eq!(taken(ben, TEAM), None);
    assert_eq!(taken(cat, TEAM).as_deref(), Some("acme"));
    assert_eq!(taken(ada, PART), None);
    assert_eq!(taken(ben, PART).as_deref(), Some("acme/vision"));
    // Of an organisation that the part is for, but not what it is a part of.
    assert_eq!(taken(cat, PART).as_deref(), Some("acme"));
    for team in [TEAM, PART] {
        assert_eq!(taken(None, team), None, "an operator's");
    }
    for owner in [ada, ben, cat] {
        assert_eq!(taken(owner, TeamId(3)), None, "open again");
        assert_eq!(taken(owner, TeamId::DEFAULT), None);
    }
}

#[test]
fn what_is_in_a_team_stays_and_nothing_is_moved_into_one_that_is_for_others() {
    let mut cluster = Cluster::new();
    let cat = Some((OTHERS, CAT));
    cluster.submit(cat, TeamId::DEFAULT).expect("it is taken");
    let staging = cluster.0.job(JobId(1)).expect("a job").spec.staging;
    let mut changed = |team, priority| {
        let mut spec = spec(staging.0[0], cat, team);
        spec.priority = priority;
        cluster.apply(Command::UpdateJob {
            job: JobId(1),
            spec,
            seq: None,
        })
    };
    let refused = changed(TEAM, 0);
    assert!(matches!(refused, Err(Rejection::NotInTeam { .. })));
    // Moved to where it may be, which is closed behind it: it stays, and can be changed.
    changed(TeamId(3), 0).expect("it may be there");
    cluster
        .apply(members("open", &[Member::User(ADA)]))
        .expect("it is set");
    let mut spec = spec(staging.0[0], cat, TeamId(3));
    spec.priority = -3;
    let update = Command::UpdateJob {
        job: JobId(1),
        spec,
        seq: None,
    };
    cluster.apply(update).expect("it is changed");
    assert_eq!(cluster.0.job(JobId(1)).expect("a job").spec.priority, -3);
}

#[test]
fn who_is_not_there_is_no_member() {
    let mut cluster = Cluster::new();
    let many = (1..=257).map(|user| Member::User(UserId(user)));
    for (only, refused) in [
        (vec![Member::User(UserId(9))], Rejection::NoSuchUser),
        (vec![Member::Org(OrgId(9))], Rejection::NoSuchOrg),
        (
            many.collect(),
            Rejection::TooMany {
                what: "members of a team",
            },
        ),
    ] {
        assert_eq!(cluster.apply(members("open", &only)), Err(refused));
    }
    let unknown = cluster.apply(members("nobody", &[]));
    assert!(matches!(unknown, Err(Rejection::NoSuchTeam { .. })));
}
