//! Who may use which route and which call, and what the tests send there.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Town;
use crate::http::submission;

/// Who may use each route: `o`wner, `a`dmin, `m`ember, `v`iewer, `O`perator, `-` for everybody without a name too. A route
/// that is not here fails the test.
pub(super) const ROUTES: &str = "
    post /v1/auth/cli/token        -
    get  /v1/account/me            oamvO
    post /v1/jobs                  oamO
    get  /v1/jobs                  oamvO
    get  /v1/jobs/{id}             oamvO
    get  /v1/jobs/{id}/logs        oamvO
    get  /v1/jobs/{id}/why         oamvO
    post /v1/jobs/{id}/cancel      oamO
    post /v1/jobs/{id}/credentials oamO
    post /v1/jobs/{id}/update      oamO
    post /v1/jobs/{id}/approve     O
    get  /v1/sweeps                oamvO
    post /v1/sweeps                oamO
    get  /v1/sweeps/{id}           oamvO
    post /v1/sweeps/{id}/cancel    oamO
    get  /v1/teams                 oamvO
    post /v1/teams                 O
    post /v1/teams/{id}/members    O
    post /v1/teams/{id}/remove     O
    get  /v1/policy                O
    post /v1/policy                O
    get  /v1/jobs/{id}/watch       oamvO
    post /v1/estimates             oamvO
    post /v1/what-if               oamvO
    get  /v1/workers               oamvO
    post /v1/workers/{id}/drain    O
    post /v1/workers/{id}/resume   O
    get  /v1/worker-tokens         O
    post /v1/worker-tokens         O
    post /v1/worker-tokens/{id}/revoke O
    get  /v1/records               oamvO
    post /v1/records               O
    get  /v1/records/status        oamvO
    get  /v1/records/versions      O
    post /v1/records/take-back     O
    get  /v1/cluster               O
    post /v1/join-tokens           O
    post /v1/nodes/{id}/remove     O
    post /v1/cluster/rotate        O
    post /v1/leadership            O
    post /v1/sql                   oamvO
    get  /v1/prices                oamvO
    post /v1/prices                O
    get  /v1/tables                oamvO
    get  /v1/orgs                  O
    post /v1/orgs                  O
    post /v1/orgs/{id}/remove      O
    get  /v1/users                 oaO
    post /v1/users                 oaO
    post /v1/users/{id}/role       oaO
    post /v1/users/{id}/remove     oaO
    get  /v1/tokens                oamvO
    post /v1/tokens                oamvO
    post /v1/tokens/{id}/revoke    oamvO
    get  /v1/audit                 oaO
    post /v1/operator              -
    get  /v1/openapi.json          -
";

/// The same of the calls over gRPC.
pub(super) const CALLS: &str = "
    Jobs/SubmitJob oamO           Jobs/GetJob oamvO             Jobs/ListJobs oamvO
    Jobs/CancelJob oamO           Jobs/ExplainJob oamvO         Jobs/WatchJob oamvO
    Jobs/GetJobLogs oamvO         Estimates/EstimateJob oamvO   Records/RunQuery oamvO
    Records/ListTables oamvO      Records/ImportRecords O       Records/ListSources oamvO
    Workers/CreateWorkerToken O   Workers/RevokeWorkerToken O   Workers/ListWorkerTokens O
    Workers/ListWorkers oamvO     Workers/DrainWorker O         Workers/ResumeWorker O
    Cluster/GetClusterStatus O    Cluster/CreateJoinToken O     Cluster/RemoveNode O
    Cluster/TransferLeadership O  Cluster/Backup O              Accounts/CreateOrg O
    Accounts/ListOrgs O           Accounts/DeleteOrg O          Accounts/CreateUser oaO
    Accounts/ListUsers oaO        Accounts/SetUserRole oaO      Accounts/DeleteUser oaO
    Accounts/CreateToken oamvO    Accounts/ListTokens oamvO     Accounts/RevokeToken oamvO
    Accounts/ListAuditEntries oaO Accounts/ClaimOperator -      Jobs/SubmitArray oamO
    Jobs/UpdateJob oamO           Jobs/ApproveJob O             Jobs/CancelArray oamO
    Jobs/GiveCredentials oamO
    Scheduling/ListTeams oamvO    Scheduling/GetPolicy O        Scheduling/SetTeam O
    Scheduling/RemoveTeam O       Scheduling/SetPolicy O        Records/GetRecordsStatus oamvO
    Estimates/ListPrices oamvO    Estimates/ImportPrices O      Scheduling/SetTeamMembers O
    Jobs/WhatIf oamvO             Records/ListVersions O        Records/TakeBackRows O
    Cluster/RotateSecret O
";

/// A table by its first words; the last one of a row is who may.
pub(super) fn table(text: &'static str, words: usize) -> BTreeMap<String, &'static str> {
    let words_of = text.split_whitespace().collect::<Vec<_>>();
    let rows = words_of.chunks(words + 1);
    rows.map(|row| (row[..words].join(" "), row[words]))
        .collect()
}

/// A body that each route takes, as far as it takes one.
pub(super) fn body(path: &str, town: &Town) -> Option<Value> {
    let user = &town.person(1, 'v').user;
    Some(match path {
        "/v1/auth/cli/token" => json!({"refresh_token": "x", "org_id": "y"}),
        "/v1/jobs" => submission(),
        "/v1/jobs/{id}/credentials" | "/v1/policy" | "/v1/join-tokens" => json!({}),
        "/v1/jobs/{id}/update" => json!({"wishes": {"priority": 1}}),
        "/v1/sweeps" => {
            let mut sweep = submission();
            sweep["tasks"] = json!([{"config": {"seed": 1}}, {"config": {"seed": 2}}]);
            sweep
        }
        "/v1/teams" => json!({"name": "acme"}),
        "/v1/teams/{id}/members" => json!({"members": []}),
        "/v1/worker-tokens" => json!({"name": "w"}),
        "/v1/records" => json!({"source": "x", "csv": ""}),
        "/v1/records/take-back" => json!({"since": "2026-01-01T00:00:00Z"}),
        "/v1/leadership" => json!({"node_id": 99}),
        "/v1/estimates" => submission(),
        "/v1/what-if" => json!({}),
        "/v1/sql" => json!({"sql": "SELECT 1"}),
        "/v1/prices" => json!({"source": "x", "csv": ""}),
        "/v1/orgs" => json!({"name": "three"}),
        // A role that nobody has, so that nobody is made and everybody gets as far as they may.
        "/v1/users" => json!({"name": "x", "role": "nobody"}),
        "/v1/users/{id}/role" => json!({"role": "nobody"}),
        "/v1/tokens" => json!({"user_id": user, "valid_seconds": u64::MAX / 2_000}),
        "/v1/operator" => json!({"first_token": "x", "name": "y"}),
        _ => return None,
    })
}

/// What stands in the path: the job where it is a job's, and what is not there elsewhere, so that nothing is removed.
pub(super) fn filled(path: &str, job: &str) -> String {
    let id = match path.split('/').nth(2) {
        Some("jobs" | "sweeps") => job,
        Some("workers") => "w9999",
        Some("orgs") => "ozzzz",
        Some("users") => "uzzzz",
        _ => "kzzzz",
    };
    path.replace("{id}", id)
}
