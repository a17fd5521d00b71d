//! Who may make and unmake whom, and what stays when somebody goes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

const OPERATOR: Actor = Actor {
    user: None,
    org: None,
    role: Role::Operator,
};

fn label(name: &str) -> Label {
    name.to_owned().try_into().unwrap()
}

fn make(accounts: &mut Accounts, change: AccountChange) -> Result<Reply, Rejection> {
    accounts.change(1_000, OPERATOR, &change, true)
}

fn user(accounts: &mut Accounts, org: Option<OrgId>, name: &str, role: Role) -> UserId {
    let name = label(name);
    match make(accounts, AccountChange::CreateUser { org, name, role }) {
        Ok(Reply::UserCreated { user }) => user,
        other => panic!("{other:?}"),
    }
}

fn two_orgs() -> (Accounts, OrgId, OrgId) {
    let mut accounts = Accounts::default();
    for name in ["one", "two"] {
        let name = label(name);
        make(&mut accounts, AccountChange::CreateOrg { name }).unwrap();
    }
    (accounts, OrgId(1), OrgId(2))
}

#[test]
fn an_only_organisation_is_the_first_and_no_other_follows_it_once_there_was_work() {
    let only = |accounts: &mut Accounts, name: &str, is_used| {
        let name = label(name);
        let change = AccountChange::CreateOnlyOrg { name };
        accounts.change(1_000, OPERATOR, &change, is_used)
    };
    let remove = |accounts: &mut Accounts, org| {
        make(accounts, AccountChange::RemoveOrg { org }).unwrap();
    };
    let mut accounts = Accounts::default();
    // Work of nobody before it is no reason.
    let made = only(&mut accounts, "one", true);
    assert_eq!(made, Ok(Reply::OrgCreated { org: OrgId(1) }));
    let second = only(&mut accounts, "two", true);
    assert_eq!(second, Err(Rejection::SecondOrg));
    remove(&mut accounts, OrgId(1));
    let after = only(&mut accounts, "two", true);
    assert_eq!(after, Err(Rejection::SecondOrg));
    // One that was called wrongly makes room for the right one.
    let mut accounts = Accounts::default();
    only(&mut accounts, "oen", false).unwrap();
    remove(&mut accounts, OrgId(1));
    let made = only(&mut accounts, "one", false);
    assert_eq!(made, Ok(Reply::OrgCreated { org: OrgId(2) }));
    assert_eq!(only(&mut accounts, "two", false), Err(Rejection::SecondOrg));
}

#[test]
fn who_leads_an_organisation_rules_there_and_nowhere_else() {
    let (mut accounts, one, two) = two_orgs();
    let admin = user(&mut accounts, Some(one), "ana", Role::Admin);
    let owner = user(&mut accounts, Some(one), "olu", Role::Owner);
    let foreign = user(&mut accounts, Some(two), "fay", Role::Member);
    let ana = Actor {
        user: Some(admin),
        org: Some(one),
        role: Role::Admin,
    };
    let name = label("max");
    let member = |org| AccountChange::CreateUser {
        org,
        name: name.clone(),
        role: Role::Member,
    };
    assert!(accounts.change(1, ana, &member(Some(one)), true).is_ok());
    for (change, why) in [
        (member(Some(two)), Rejection::NotAllowed),
        (member(None), Rejection::RoleElsewhere),
        (
            AccountChange::RemoveUser { user: owner },
            Rejection::NotAllowed,
        ),
        (
            AccountChange::RemoveUser { user: foreign },
            Rejection::NotAllowed,
        ),
        (
            AccountChange::SetRole {
                user: admin,
                role: Role::Owner,
            },
            Rejection::NotAllowed,
        ),
        (
            AccountChange::CreateKey {
                user: foreign,
                hash: TokenHash([1; 32]),
                expires_ms: None,
            },
            Rejection::NotAllowed,
        ),
    ] {
        assert_eq!(
            accounts.change(1, ana, &change, true),
            Err(why),
            "{change:?}"
        );
    }
    let refused = accounts.trail().after(0).count();
    assert_eq!(refused, 6, "what was refused is not in the trail");
}

#[test]
fn a_token_ends_with_its_time_its_holder_and_its_organisation() {
    let (mut accounts, one, _) = two_orgs();
    let max = user(&mut accounts, Some(one), "max", Role::Member);
    let hash = TokenHash([7; 32]);
    let expires_ms = Some(5_000);
    let key = AccountChange::CreateKey {
        user: max,
        hash,
        expires_ms,
    };
    make(&mut accounts, key.clone()).unwrap();
    assert_eq!(
        make(&mut accounts, key.clone()),
        Err(Rejection::TokenExists)
    );
    assert!(accounts.holder(&hash, 4_999).is_some());
    assert!(accounts.holder(&hash, 5_000).is_none());
    assert!(accounts.holder(&TokenHash([8; 32]), 1).is_none());
    make(&mut accounts, AccountChange::RemoveUser { user: max }).unwrap();
    assert!(accounts.holder(&hash, 1).is_none());
    let moe = user(&mut accounts, Some(one), "moe", Role::Viewer);
    make(
        &mut accounts,
        AccountChange::CreateKey {
            user: moe,
            hash,
            expires_ms: None,
        },
    )
    .unwrap();
    make(&mut accounts, AccountChange::RemoveOrg { org: one }).unwrap();
    assert!(accounts.holder(&hash, 1).is_none() && accounts.keys.is_empty());
}

#[test]
fn the_last_owner_and_the_last_operator_stay() {
    let (mut accounts, one, _) = two_orgs();
    let owner = user(&mut accounts, Some(one), "olu", Role::Owner);
    let operator = user(&mut accounts, None, "root", Role::Operator);
    for user in [owner, operator] {
        let remove = AccountChange::RemoveUser { user };
        assert_eq!(make(&mut accounts, remove), Err(Rejection::LastOne));
    }
    let role = Role::Member;
    let less = AccountChange::SetRole { user: owner, role };
    assert_eq!(make(&mut accounts, less.clone()), Err(Rejection::LastOne));
    user(&mut accounts, Some(one), "ola", Role::Owner);
    assert_eq!(make(&mut accounts, less), Ok(Reply::Done));
}

#[test]
fn names_are_one_person_s_in_each_place_and_tokens_have_a_bound() {
    let (mut accounts, one, two) = two_orgs();
    let max = user(&mut accounts, Some(one), "max", Role::Member);
    user(&mut accounts, Some(two), "max", Role::Member);
    let name = label("max");
    let again = AccountChange::CreateUser {
        org: Some(one),
        name: name.clone(),
        role: Role::Viewer,
    };
    assert_eq!(
        make(&mut accounts, again),
        Err(Rejection::AccountNameTaken { name })
    );
    let key = |n: u8| AccountChange::CreateKey {
        user: max,
        hash: TokenHash([n; 32]),
        expires_ms: None,
    };
    for n in 0..KEYS_PER_USER as u8 {
        make(&mut accounts, key(n)).unwrap();
    }
    assert_eq!(
        make(&mut accounts, key(99)),
        Err(Rejection::Full { what: "tokens" })
    );
}
