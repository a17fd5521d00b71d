//! The `stepcast` program: a person's commands, and the server and worker that they talk to.

mod asked;
mod assembly;
mod child;
mod client;
mod command;
mod confirm;
mod context;
#[cfg(test)]
mod docs;
mod failure;
mod files;
mod options;
mod output;
mod part;
mod secret;
mod settings;
mod usage;

use std::io::Write;
use std::process::ExitCode;

use stepcast_estimator::sql;

use context::Context;
use failure::{Exit, Failure};
use options::{Command, Options};
use output::Output;

/// A submission makes some hundred small pieces of memory on one thread and frees them on others, which takes the system's
/// own allocator a sixth of a server's time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let options = match Options::read() {
        Ok(options) => options,
        Err(error) => return not_read(&error),
    };
    // These run before any thread exists: one watches a process, the other has limits of its own, and neither needs more.
    match options.command {
        Command::Guard(guard) => return guard.run(),
        Command::StepDown(step_down) => return step_down.run(),
        Command::SqlProcess if sql::serve().is_ok() => return ExitCode::SUCCESS,
        _ => {}
    }
    // More than one library of primitives is linked, as the tables' object store brings its own: rustls has to be told.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let context = Context::new(options.common);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            context.output.failure(&Failure::refused(format!(
                "this program cannot start: {error}"
            )));
            return Exit::Refused.into();
        }
    };
    let code = runtime.block_on(command::run(options.command, &context));
    // A prompt that still waits for a line must not keep the program.
    runtime.shutdown_background();
    match code {
        Ok(code) => code,
        Err(failure) => {
            context.output.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Tells what is wrong with the command line, or the help that it asks for.
fn not_read(error: &clap::Error) -> ExitCode {
    match usage::failure(error).filter(|_| usage::asks_for_json(std::env::args_os().skip(1))) {
        Some(failure) => {
            Output::new(true, None).failure(&failure);
            failure.exit.into()
        }
        None if error.use_stderr() => {
            let text = usage::in_words(&error.render().ansi().to_string());
            // How the program ends says it too, where nobody reads it.
            let _ = writeln!(anstream::stderr(), "{text}");
            Exit::Usage.into()
        }
        None => error.exit(),
    }
}
