//! The command line: one struct that clap, the help, the completions and docs/cli.md are all made from.

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use stepcast_worker::helpers;
use stepcast_worker::options::without_empty;

use crate::command;

/// Tells you what a fine-tune will cost before you run it, then runs it on the GPU that makes sense.
#[derive(Debug, Parser)]
#[command(
    name = "stepcast",
    version,
    before_help = "Example: stepcast estimate config/flux-cats    (a SimpleTuner configuration, as it is)",
    after_help = EXIT_CODES,
    after_long_help = EXIT_CODES,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Options {
    /// What this program was called with.
    ///
    /// # Errors
    /// A wrong command line, or the help that it asks for.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let matches = without_empty(Self::command()).try_get_matches()?;
        Self::from_arg_matches(&matches)
    }
}

/// Part of every help text and of docs/cli.md.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0    done
  1    refused by rule
  2    usage
  3    not found
  4    cluster not reachable
  5    outcome unknown, ask again with the same request id
  130  interrupted";

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The servers to talk to, separated by commas; one is enough while it runs
    ///
    /// Environment: STEPCAST_SERVER. Default: http://127.0.0.1:7070.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help_heading = "Common options"
    )]
    pub(crate) server: Option<String>,
    /// File with the token that the server asks people for
    ///
    /// Environment: STEPCAST_ACCESS_TOKEN_FILE.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Common options"
    )]
    pub(crate) access_token_file: Option<String>,
    /// Certificate authority to trust besides the system's, as a PEM file; it may hold several, as of servers that make their own
    ///
    /// Environment: STEPCAST_CA_FILE.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Common options"
    )]
    pub(crate) ca_file: Option<String>,
    /// Speak without TLS beyond this host, as a server and when calling one; only where something else encrypts
    ///
    /// Environment: STEPCAST_ALLOW_PLAIN_TEXT.
    #[arg(long, global = true, help_heading = "Common options")]
    pub(crate) allow_plain_text: bool,
    /// Let any server answer a question from what it has, also when it cannot reach the others
    ///
    /// The answer may be a moment old. Without it every answer contains all that was acknowledged before.
    #[arg(long, global = true, help_heading = "Common options")]
    pub(crate) stale: bool,
    /// Answer in JSON; its names never change within a major version
    #[arg(long, global = true, help_heading = "Common options")]
    pub(crate) json: bool,
    /// Draw tables for a terminal of so many columns, also on a pipe
    #[arg(long, global = true, value_name = "COLUMNS", help_heading = "Common options", value_parser = clap::value_parser!(u16).range(40..=400))]
    pub(crate) columns: Option<u16>,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows the whole ring in a temporary folder, in under a minute
    Demo(command::demo::Demo),
    /// Runs a server and a worker on this machine, for trying things out
    Dev(command::dev::Dev),
    /// Runs a server
    Server(Box<command::server::Server>),
    /// Offers this host's GPUs to a cluster until SIGTERM, which drains it
    Worker(Box<command::worker::Worker>),
    /// Says what a run will take and cost on each hardware
    Estimate(command::estimate::Estimate),
    /// Puts a run into the queue
    Submit(Box<command::submit::Submit>),
    /// Lists jobs, newest first
    Jobs(command::jobs::Jobs),
    /// Looks at one job, changes it, or cancels it
    #[command(subcommand)]
    Job(command::job::Job),
    /// Says when jobs start and are done, as it is and if something were different; changes nothing
    ///
    /// Every change is made on a copy of the queue by the command that would make it, and the real scheduler is run forward
    /// from there. What nobody has submitted yet is in neither. Options from --allow on are what the one job that is named
    /// would ask for. Example: stepcast what-if --add h100x8
    WhatIf(Box<command::what_if::WhatIf>),
    /// Lists workers; lets them in, drains them, takes them out
    Workers(command::workers::Workers),
    /// Lists teams; makes them, gives them other rules, forgets them
    Teams(command::teams::Teams),
    /// Shows by what the cluster decides, or has it decide by something else
    Policy(command::policy::Policy),
    /// Makes, lists and removes organisations
    #[command(subcommand)]
    Org(command::accounts::Org),
    /// Lets people in and out, and says what they may do
    #[command(subcommand)]
    User(command::accounts::User),
    /// Makes, lists and takes back the long-lived tokens of people
    #[command(subcommand)]
    Token(command::accounts::Token),
    /// Shows what was done by whom
    Audit(command::audit::Audit),
    /// Asks the benchmark records in SQL; without a query it prompts
    Sql(command::sql::Sql),
    /// Adds measured figures to the records, lists where they came from, or takes wrong ones out again
    #[command(subcommand)]
    Records(command::records::Records),
    /// Lists what an hour on each GPU costs, or adds prices from a file
    Prices(command::prices::Prices),
    /// Says how far estimates are off, on measured times that nothing is learnt from
    Backtest(command::backtest::Backtest),
    /// Says where the cluster stands; lets nodes in and takes them out, backs up and restores
    #[command(subcommand)]
    Cluster(command::cluster::Cluster),
    /// Plays a trace of jobs through the real scheduler under a virtual clock; needs no server
    Simulate(command::simulate::Simulate),
    /// Shows this program's settings and where each came from
    #[command(subcommand)]
    Config(command::config::Config),
    /// Prints completions for a shell
    Completions(command::completions::Completions),
    /// Guards one trainer process (started by the worker itself).
    #[command(hide = true)]
    Guard(helpers::Guard),
    /// Becomes an account and then its trainer (started by the guard).
    #[command(hide = true)]
    StepDown(helpers::StepDown),
    /// Runs statements of SQL for a server (started by the server itself).
    #[command(hide = true, name = "sql-process")]
    SqlProcess,
    /// Plays a stream of webhooks instead of a trainer (started by the worker itself).
    #[command(hide = true)]
    Replay(helpers::Replay),
}
