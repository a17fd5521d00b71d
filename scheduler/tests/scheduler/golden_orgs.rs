//! The only organisation of a cluster as bytes in the repository.

use stepcast_scheduler::accounts::AccountChange;
use stepcast_scheduler::ids::OrgId;
use stepcast_scheduler::{Command, State};

use crate::golden::{bytes, hex, in_format_3, stand_in};

/// A log, an entry a line.
const LOG: &str = include_str!("../../testdata/golden/log-3-orgs.txt");

/// A snapshot of the state that it leads to.
const SNAPSHOT: &str = include_str!("../../testdata/golden/snapshot-3-orgs.txt");

#[test]
fn an_only_organisation_is_written_and_read_as_ever() {
    let made = |name: &str| Command::Account {
        change: AccountChange::CreateOnlyOrg {
            name: name.parse().expect("a label"),
        },
    };
    let removed = Command::Account {
        change: AccountChange::RemoveOrg { org: OrgId(1) },
    };
    let commands = vec![
        Command::Barrier { version: 3 },
        made("acem"),
        removed,
        made("acme"),
    ];
    let (entries, state) = in_format_3(commands);
    stand_in(LOG, &entries);
    assert_eq!(hex(&state.snapshot()), SNAPSHOT.trim_end());
    let restored = State::restore(&bytes(SNAPSHOT)).expect("it is restored");
    assert_eq!(restored, state);
}
