//! `stepcast teams`: who pays for jobs and whose jobs those are, what share they are due, and what they may use and spend.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use stepcast_proto::v1::{
    BudgetPeriod, ListTeamsRequest, RemoveTeamRequest, SetTeamMembersRequest, SetTeamRequest, Team,
    TeamUse,
};

use super::accounts::people;
use crate::client::{self, Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::money::{count, dollars, parse_dollars};
use crate::output::style::{Mark, Tone};
use crate::output::table::{Cell, Side, Table};

/// Lists teams; makes them, gives them other rules, forgets them.
#[derive(Debug, Args)]
pub(crate) struct Teams {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Makes a team, or gives one other rules; what is not given has no limit
    Set(Set),
    /// Says whose jobs may run in a team and its parts; those that are in it stay
    Members(Members),
    /// Forgets a team that has no part and no job that is not over
    Remove {
        /// The team, such as acme/vision
        team: String,
    },
}

/// A team as it is to be.
#[derive(Debug, Args)]
struct Set {
    /// One word, or two for a part of a team, as in acme/vision
    team: String,
    /// Its share against the other teams of the same level, 1 to 10,000
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    weight: i32,
    /// Most GPUs at the same time
    #[arg(long, value_name = "GPUS")]
    quota: Option<u32>,
    /// Most money in a period, in dollars
    #[arg(long, value_name = "DOLLARS", allow_negative_numbers = true, value_parser = parse_dollars)]
    budget: Option<u64>,
    /// What the budget is for
    #[arg(long, value_enum, default_value_t = Per::Once, requires = "budget")]
    per: Per,
    /// A job may cost more than this only once an operator has approved it, in dollars
    #[arg(long, value_name = "DOLLARS", allow_negative_numbers = true, value_parser = parse_dollars)]
    approve_above: Option<u64>,
    /// The highest priority that its jobs may have, -10 to 10
    #[arg(long, value_name = "PRIORITY", allow_negative_numbers = true)]
    priority_max: Option<i32>,
}

/// Whom a team is for.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whom").required(true).multiple(true)))]
struct Members {
    /// The team, such as acme/vision
    team: String,
    /// Everybody in an organisation, by its name or id; can be given several times
    #[arg(long, value_name = "ORG", group = "whom")]
    org: Vec<String>,
    /// Somebody, by name or id; can be given several times
    #[arg(long, value_name = "USER", group = "whom")]
    user: Vec<String>,
    /// Everybody, as it was when the team was made
    #[arg(long, group = "whom", conflicts_with_all = ["org", "user"])]
    everybody: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Per {
    /// For good
    Once,
    /// From midnight UTC to midnight
    Day,
    /// A calendar month
    Month,
}

impl Teams {
    /// Does it.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.connect().await?;
        match self.what {
            None => list(context, &client).await,
            Some(What::Set(set)) => set.run(context, &client).await,
            Some(What::Members(members)) => members.run(context, &client).await,
            Some(What::Remove { team }) => remove(context, &client, &team).await,
        }
    }
}

impl Set {
    async fn run(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        let message = SetTeamRequest {
            team: Some(Team {
                name: wire_name(&self.team),
                // On the wire nothing means one; a person who writes 0 is told that it is none.
                weight: if self.weight == 0 { -1 } else { self.weight },
                gpu_quota: self.quota,
                budget_usd_micros: self.budget,
                budget_period: match self.per {
                    Per::Once => BudgetPeriod::Once,
                    Per::Day => BudgetPeriod::Day,
                    Per::Month => BudgetPeriod::Month,
                }
                .into(),
                approve_above_usd_micros: self.approve_above,
                priority_max: self.priority_max,
                r#use: None,
                members: Vec::new(),
            }),
            request_id: client::request_id(),
        };
        let answer = client.change(|| {
            let request = timed(message.clone());
            let mut service = client.scheduling();
            async move { service.set_team(request).await }
        });
        let team = answer.await?.team.unwrap_or_default();
        let output = &context.output;
        if output.json {
            return output.json(&team_json(&team));
        }
        output.marked(
            Mark::Done,
            Tone::Good,
            format!("team {} set", bare(&team.name)),
        );
        output.next(format!("stepcast submit PATH --team {}", bare(&team.name)));
        Ok(())
    }
}

impl Members {
    async fn run(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        let mut members = Vec::new();
        for org in &self.org {
            members.push(people::find_org(client, org).await?);
        }
        for user in &self.user {
            members.push(people::find_user(client, user).await?);
        }
        let message = SetTeamMembersRequest {
            name: wire_name(&self.team),
            members,
            request_id: client::request_id(),
        };
        let answer = client.change(|| {
            let request = timed(message.clone());
            let mut service = client.scheduling();
            async move { service.set_team_members(request).await }
        });
        let team = answer.await?.team.unwrap_or_default();
        let output = &context.output;
        if output.json {
            return output.json(&team_json(&team));
        }
        let whose = match team.members.len() {
            0 => "everybody's jobs".to_owned(),
            1 => "the jobs of one member".to_owned(),
            several => format!("the jobs of {several} members"),
        };
        output.marked(
            Mark::Done,
            Tone::Good,
            format!("team {} takes {whose}", bare(&team.name)),
        );
        Ok(())
    }
}

async fn remove(context: &Context, client: &Client, team: &str) -> Result<(), Failure> {
    let message = RemoveTeamRequest {
        name: wire_name(team),
        request_id: client::request_id(),
    };
    let answer = client.change(|| {
        let request = timed(message.clone());
        let mut service = client.scheduling();
        async move { service.remove_team(request).await }
    });
    answer.await?;
    let output = &context.output;
    if output.json {
        return output.json(&json!({ "removed": team }));
    }
    output.marked(Mark::Done, Tone::Good, format!("team {team} is forgotten"));
    Ok(())
}

async fn list(context: &Context, client: &Client) -> Result<(), Failure> {
    let answer = client.ask(|| {
        let mut service = client.scheduling();
        async move { service.list_teams(timed(ListTeamsRequest {})).await }
    });
    let teams = answer.await?.teams;
    let output = &context.output;
    if output.json {
        return output.json(&json!({ "teams": teams.iter().map(team_json).collect::<Vec<_>>() }));
    }
    let mut table = Table::new(&[
        ("TEAM", Side::Left),
        ("WEIGHT", Side::Right),
        ("GPUS", Side::Right),
        ("JOBS", Side::Right),
        ("SPENT", Side::Right),
        ("SET ASIDE", Side::Right),
        ("BUDGET", Side::Right),
        ("APPROVE ABOVE", Side::Right),
        ("LATELY", Side::Right),
        ("MEMBERS", Side::Right),
    ]);
    teams.iter().for_each(|team| table.row(row(team)));
    output.table(&table)?;
    match teams.as_slice() {
        [only] if only.r#use.is_some() => {
            output.next("stepcast teams set NAME --weight 2 --quota 8 --budget 500 --per month");
        }
        _ => output.next("stepcast submit PATH --team NAME"),
    }
    Ok(())
}

fn row(team: &Team) -> Vec<Cell> {
    let using = team.r#use.as_ref();
    let in_use = using.map_or_else(none, |using| using.gpus.to_string());
    let gpus = match team.gpu_quota {
        Some(quota) => format!("{in_use}/{quota}"),
        None => in_use,
    };
    let full = using
        .zip(team.gpu_quota)
        .is_some_and(|(using, quota)| using.gpus >= quota);
    let budget = team.budget_usd_micros.map_or_else(none, |micros| {
        let per = match team.budget_period() {
            BudgetPeriod::Day => " a day",
            BudgetPeriod::Month => " a month",
            BudgetPeriod::Once | BudgetPeriod::Unspecified => "",
        };
        format!("{}{per}", dollars(micros))
    });
    let money =
        |micros: fn(&TeamUse) -> u64| using.map_or_else(none, |using| dollars(micros(using)));
    let spent = match team.budget_usd_micros {
        Some(_) => money(|using| using.spent_usd_micros),
        None => none(),
    };
    vec![
        Cell::toned(bare(&team.name), Tone::Strong),
        team.weight.to_string().into(),
        if full {
            Cell::toned(gpus, Tone::Warn)
        } else {
            gpus.into()
        },
        using
            .map_or_else(none, |using| count(using.unfinished_jobs.into()))
            .into(),
        spent.into(),
        money(|using| using.reserved_usd_micros).into(),
        budget.into(),
        team.approve_above_usd_micros
            .map_or_else(none, dollars)
            .into(),
        money(|using| using.recent_usd_micros).into(),
        match (using, team.members.len()) {
            (None, _) => none().into(),
            (_, 0) => "all".into(),
            (_, members) => members.to_string().into(),
        },
    ]
}

fn none() -> String {
    "-".to_owned()
}

fn team_json(team: &Team) -> Value {
    let using = team.r#use.as_ref();
    json!({
        "team": bare(&team.name),
        "name": team.name,
        "weight": team.weight,
        "gpu_quota": team.gpu_quota,
        "budget_usd_micros": team.budget_usd_micros,
        "budget_period": team.budget_period().as_str_name().trim_start_matches("BUDGET_PERIOD_"),
        "approve_above_usd_micros": team.approve_above_usd_micros,
        "priority_max": team.priority_max,
        "gpus": using.map(|using| using.gpus),
        "unfinished_jobs": using.map(|using| using.unfinished_jobs),
        "spent_usd_micros": using.map(|using| using.spent_usd_micros),
        "reserved_usd_micros": using.map(|using| using.reserved_usd_micros),
        "recent_usd_micros": using.map(|using| using.recent_usd_micros),
        "recent_work": using.map(|using| using.recent_work),
        "members": using.map(|_| &team.members),
    })
}

/// `acme/vision` of `teams/acme/vision`.
fn bare(name: &str) -> &str {
    name.strip_prefix("teams/").unwrap_or(name)
}

/// The resource name of a team.
pub(super) fn wire_name(team: &str) -> String {
    format!("teams/{}", bare(team))
}
