//! `stepcast completions`: what a shell needs to complete commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::context::Context;
use crate::failure::Failure;
use crate::options::Options;

/// Prints completions for a shell.
///
/// Example: stepcast completions zsh > ~/.zfunc/_stepcast
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    /// Prints them.
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Options::command(), "stepcast", &mut script);
        context.output.data(&String::from_utf8_lossy(&script))
    }
}
