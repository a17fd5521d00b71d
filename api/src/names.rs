//! Resource names on the wire, such as `jobs/jmnpq`, and the ids in them.

use std::fmt::Display;
use std::str::FromStr;

use stepcast_scheduler::ids::{
    AttemptNumber, JobId, KeyId, OrgId, TeamId, TokenId, UserId, WorkerId,
};
use stepcast_scheduler::model::{Member, TeamName};
use tonic::Status;

use crate::status;

const JOBS: &str = "jobs";
const WORKERS: &str = "workers";
const TEAMS: &str = "teams";
const TOKENS: &str = "workerTokens";
const ORGS: &str = "orgs";
const USERS: &str = "users";
const KEYS: &str = "tokens";

/// `jobs/{job}`.
pub(crate) fn of_job(job: JobId) -> String {
    format!("{JOBS}/{job}")
}

/// `jobs/{job}/attempts/{attempt}`.
pub(crate) fn of_attempt(job: JobId, attempt: AttemptNumber) -> String {
    format!("{JOBS}/{job}/attempts/{attempt}")
}

/// `workers/{worker}`.
pub(crate) fn of_worker(worker: WorkerId) -> String {
    format!("{WORKERS}/{worker}")
}

/// `workerTokens/{token}`.
pub(crate) fn of_token(token: TokenId) -> String {
    format!("{TOKENS}/{token}")
}

/// The name of what has this id, as a caller wrote it.
pub(crate) fn of_text(kind: &str, id: &str) -> String {
    format!("{kind}/{id}")
}

/// `teams/{team}`.
pub(crate) fn of_team(team: &TeamName) -> String {
    format!("{TEAMS}/{team}")
}

/// `teams/(removed 3)`: a team that is there no more, whose name nobody knows. No team can be called so.
pub(crate) fn of_removed_team(TeamId(number): TeamId) -> String {
    format!("{TEAMS}/(removed {number})")
}

/// `acme/vision` of `teams/acme/vision`.
pub(crate) fn bare_team(name: &str) -> &str {
    name.strip_prefix("teams/").unwrap_or(name)
}

/// The name in `teams/{team}`.
pub(crate) fn team(field: &str, name: &str) -> Result<TeamName, Status> {
    bare_team(name)
        .parse()
        .map_err(|error: stepcast_scheduler::model::team::Error| {
            status::bad_field(field, error.to_string())
        })
}

/// The id in `jobs/{job}`.
pub(crate) fn job(field: &str, name: &str) -> Result<JobId, Status> {
    id(field, name, JOBS, "a job")
}

/// The id in `workers/{worker}`.
pub(crate) fn worker(field: &str, name: &str) -> Result<WorkerId, Status> {
    id(field, name, WORKERS, "a worker")
}

/// The id in `workerTokens/{token}`.
pub(crate) fn token(field: &str, name: &str) -> Result<TokenId, Status> {
    id(field, name, TOKENS, "a worker token")
}

/// `orgs/{org}`.
pub(crate) fn of_org(org: OrgId) -> String {
    format!("{ORGS}/{org}")
}

/// `users/{user}`.
pub(crate) fn of_user(user: UserId) -> String {
    format!("{USERS}/{user}")
}

/// `tokens/{token}`.
pub(crate) fn of_key(key: KeyId) -> String {
    format!("{KEYS}/{key}")
}

/// The id in `orgs/{org}`.
pub(crate) fn org(field: &str, name: &str) -> Result<OrgId, Status> {
    id(field, name, ORGS, "an organisation")
}

/// The id in `users/{user}`.
pub(crate) fn user(field: &str, name: &str) -> Result<UserId, Status> {
    id(field, name, USERS, "a user")
}

/// `orgs/{org}` or `users/{user}`.
pub(crate) fn of_member(member: Member) -> String {
    match member {
        Member::Org(org) => of_org(org),
        Member::User(user) => of_user(user),
    }
}

/// Whom `orgs/{org}` or `users/{user}` names.
pub(crate) fn member(field: &str, name: &str) -> Result<Member, Status> {
    match name.split_once('/') {
        Some((ORGS, _)) => org(field, name).map(Member::Org),
        _ => user(field, name).map(Member::User),
    }
}

/// The id in `tokens/{token}`.
pub(crate) fn key(field: &str, name: &str) -> Result<KeyId, Status> {
    id(field, name, KEYS, "a token")
}

/// A name of the right kind with an id that nothing can have names what is not there; any other text is a mistake.
fn id<T: FromStr + Display>(
    field: &str,
    name: &str,
    kind: &'static str,
    article: &str,
) -> Result<T, Status> {
    let rest = name
        .strip_prefix(kind)
        .and_then(|rest| rest.strip_prefix('/'));
    let Some(id) = rest.filter(|id| !id.is_empty() && !id.contains('/')) else {
        return Err(status::bad_field(
            field,
            format!("{article} is named {kind}/ and its id"),
        ));
    };
    id.parse()
        .map_err(|_| status::not_found(kind, article, name))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let name = of_job(JobId(7));
        assert_eq!(job("name", &name).map_err(|_| ()), Ok(JobId(7)));
        assert_eq!(
            of_attempt(JobId(7), AttemptNumber(2)),
            format!("{name}/attempts/2")
        );
        assert_eq!(
            worker("name", &of_worker(WorkerId(3))).map_err(|_| ()),
            Ok(WorkerId(3))
        );
        assert_eq!(
            token("name", &of_token(TokenId(9))).map_err(|_| ()),
            Ok(TokenId(9))
        );
    }

    #[test]
    fn another_kind_is_a_mistake_and_an_impossible_id_is_not_there() {
        for name in [
            "",
            "jobs",
            "jobs/",
            "workers/w2222",
            "jobs/j2222/attempts/1",
        ] {
            let code = job("name", name).err().map(|status| status.code());
            assert_eq!(code, Some(Code::InvalidArgument), "{name}");
        }
        let code = job("name", "jobs/nonsense")
            .err()
            .map(|status| status.code());
        assert_eq!(code, Some(Code::NotFound));
    }
}
