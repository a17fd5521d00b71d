//! Asks the tables on several processes or machines: workers that read shares of them, and one who asks and gathers.

mod alone;
mod ask;
mod made;
mod store;
mod table;
mod worker;

use std::net::SocketAddr;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use stepcast_estimator::sql::Answer;
use url::Url;

/// The benchmark tables on several processes.
#[derive(Debug, Parser)]
struct Options {
    /// Where the tables lie, as a server's `--store` has it: a folder or `s3://bucket/prefix`.
    #[arg(long, env = "STEPCAST_STORE")]
    store: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Works for whoever asks, until it is stopped; then it says what it has done.
    Worker {
        /// Where it listens. Whoever reaches this port can have the worker read its store, so it is loopback or an
        /// address in a network that nobody else is in.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// What its groups, sorts and joins may hold in memory together, in MiB. Beyond that they go to the disk or fail.
        #[arg(long, default_value_t = 2_048)]
        memory: usize,
        /// At most so many tasks of questions at the same time, more are refused. A question gives a worker one for each
        /// of its stages: two where it groups, more where it joins.
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
        tasks: u32,
    },
    /// Asks one question, shared out over the workers, and prints the answer as JSON.
    Ask {
        /// Every worker, such as `http://10.0.0.1:7080,http://10.0.0.2:7080`.
        #[arg(long, required = true, value_delimiter = ',')]
        workers: Vec<Url>,
        /// Prints how it was shared out, and what each part took, instead of the answer.
        #[arg(long)]
        explain: bool,
        /// One statement that reads `training_steps` or `validation_prompts`.
        statement: String,
    },
    /// Asks the same of the engine of `stepcast sql`, in this process alone.
    Alone {
        /// One statement.
        statement: String,
    },
    /// Makes a table of rows that nobody measured, in a place where there is none.
    Make {
        /// How many rows.
        #[arg(long, default_value_t = 400_000)]
        rows: usize,
        /// In how many commits. The first half of them is compacted, from eight on.
        #[arg(long, default_value_t = 16)]
        commits: usize,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let store = &options.store;
    match options.what {
        What::Worker {
            listen,
            memory,
            tasks,
        } => worker::serve(store, listen, memory << 20, tasks as usize).await,
        What::Ask {
            workers,
            explain,
            statement,
        } => {
            let asker = ask::Asker::new(store, workers).await?;
            if explain {
                println!("{}", asker.explain(&statement).await?);
                return Ok(());
            }
            let answer = asker.ask(&statement).await?;
            say(&answer, json!(asker.versions()));
            Ok(())
        }
        What::Alone { statement } => {
            let answer = alone::ask(store, &statement).await?;
            say(&answer, Value::Null);
            Ok(())
        }
        What::Make { rows, commits } => made::table(store, rows, commits).await,
    }
}

/// Prints an answer as one line of JSON: columns, rows as text, what of the tables was read, and how long it took.
fn say(answer: &Answer, versions: Value) {
    let columns: Vec<String> = answer.columns().into_iter().map(|(name, _)| name).collect();
    let said = json!({
        "columns": columns,
        "rows": answer.cells(),
        "truncated": answer.truncated,
        "versions": versions,
        "files": answer.objects,
        "seconds": answer.elapsed.as_secs_f64(),
    });
    println!("{said}");
}
