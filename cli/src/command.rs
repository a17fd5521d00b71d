//! Every command in a file of its own; here is the way to them.

pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod backtest;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod credentials;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod estimate;
mod hardware;
pub(crate) mod job;
pub(crate) mod jobs;
mod place;
pub(crate) mod policy;
pub(crate) mod prices;
pub(crate) mod records;
pub(crate) mod server;
pub(crate) mod simulate;
pub(crate) mod sql;
pub(crate) mod submit;
pub(crate) mod sweep;
pub(crate) mod teams;
pub(crate) mod terms;
pub(crate) mod update;
pub(crate) mod watch;
pub(crate) mod what_if;
pub(crate) mod why;
pub(crate) mod worker;
pub(crate) mod workers;

use std::process::ExitCode;

use crate::context::Context;
use crate::failure::Failure;
use crate::options::Command;

/// Runs a command until it is done or a person presses Ctrl-C.
pub(crate) async fn run(command: Command, context: &Context) -> Result<ExitCode, Failure> {
    match command {
        // These end on their own terms when they are asked to.
        Command::Server(server) => return server.run(context).await,
        Command::Dev(dev) => return dev.run(context).await.map(|()| ExitCode::SUCCESS),
        Command::Worker(worker) => return worker.run(context).await,
        Command::Replay(replay) => return Ok(replay.run().await),
        Command::Guard(guard) => return Ok(guard.run()),
        Command::StepDown(step_down) => return Ok(step_down.run()),
        Command::SqlProcess => {
            return Err(
                Failure::refused("a server starts this by itself, over a socket")
                    .hint("ask with `stepcast sql`"),
            );
        }
        _ => {}
    }
    tokio::select! {
        done = client_command(command, context) => done,
        _ = tokio::signal::ctrl_c() => Err(context.interrupted()),
    }
}

async fn client_command(command: Command, context: &Context) -> Result<ExitCode, Failure> {
    match command {
        Command::Demo(demo) => demo.run(context).await?,
        Command::Estimate(estimate) => estimate.run(context).await?,
        Command::Submit(submit) => return submit.run(context).await,
        Command::Jobs(jobs) => jobs.run(context).await?,
        Command::Job(job) => return job.run(context).await,
        Command::Workers(workers) => workers.run(context).await?,
        Command::WhatIf(what_if) => what_if.run(context).await?,
        Command::Teams(teams) => teams.run(context).await?,
        Command::Policy(policy) => policy.run(context).await?,
        Command::Org(org) => org.run(context).await?,
        Command::User(user) => user.run(context).await?,
        Command::Token(token) => token.run(context).await?,
        Command::Audit(audit) => audit.run(context).await?,
        Command::Sql(sql) => sql.run(context).await?,
        Command::Prices(prices) => prices.run(context).await?,
        Command::Records(records) => records.run(context).await?,
        Command::Backtest(backtest) => backtest.run(context).await?,
        Command::Cluster(cluster) => cluster.run(context).await?,
        Command::Config(config) => config.run(context)?,
        Command::Simulate(simulate) => {
            // It computes and waits for nothing: a thread of its own, so that Ctrl-C is heard.
            let context = context.clone();
            let (told, played) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || told.send(simulate.run(&context)));
            played
                .await
                .map_err(|_| Failure::refused("the simulation broke off"))??;
        }
        Command::Completions(completions) => completions.run(context)?,
        Command::Dev(_)
        | Command::Server(_)
        | Command::Worker(_)
        | Command::Replay(_)
        | Command::Guard(_)
        | Command::StepDown(_)
        | Command::SqlProcess => {}
    }
    Ok(ExitCode::SUCCESS)
}
