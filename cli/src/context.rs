//! What every command is given: where the server is, and how to show answers.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client::{self, Address, Client};
use crate::failure::{Exit, Failure};
use crate::options::Common;
use crate::output::Output;
use crate::settings::{self, CLIENT, Setting, SettingsFile};

/// Settings and output of one call of the program.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// How to show answers.
    pub(crate) output: Output,
    /// What was given on the command line.
    pub(crate) common: Common,
    /// What is told where a person does not wait for what is on its way.
    in_doubt: Arc<Mutex<Option<Failure>>>,
}

impl Context {
    /// By the command line.
    pub(crate) fn new(common: Common) -> Self {
        let output = Output::new(common.json, common.columns.map(usize::from));
        Self {
            output,
            common,
            in_doubt: Arc::default(),
        }
    }

    /// The same with answers shown in another way.
    pub(crate) fn with_output(&self, output: Output) -> Self {
        Self {
            output,
            ..self.clone()
        }
    }

    /// The answer to what may have been done when a person presses Ctrl-C before it is there: they are told this then.
    pub(crate) async fn or_in_doubt<T>(
        &self,
        doubt: Failure,
        answer: impl Future<Output = T>,
    ) -> T {
        *self.doubt() = Some(doubt);
        let answer = answer.await;
        *self.doubt() = None;
        answer
    }

    /// What a person is told who has pressed Ctrl-C.
    pub(crate) fn interrupted(&self) -> Failure {
        let doubt = self.doubt().take();
        doubt.unwrap_or_else(|| Failure::new(Exit::Interrupted, "interrupted"))
    }

    fn doubt(&self) -> MutexGuard<'_, Option<Failure>> {
        self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every setting with its origin.
    pub(crate) fn settings(&self) -> Result<Vec<Setting>, Failure> {
        self.settings_in(settings::client_file())
    }

    /// Every setting with its origin, where this is the file of settings.
    pub(crate) fn settings_in(&self, file: Option<PathBuf>) -> Result<Vec<Setting>, Failure> {
        let file = match file {
            Some(path) => SettingsFile::read(&path, CLIENT)?,
            None => SettingsFile::default(),
        };
        let common = &self.common;
        let flags = [
            common.server.clone(),
            common.access_token_file.clone(),
            common.ca_file.clone(),
            common.allow_plain_text.then(|| "true".to_owned()),
        ];
        Ok(CLIENT
            .iter()
            .zip(flags)
            .map(|(known, flag)| settings::resolve(known, flag, &file))
            .collect())
    }

    /// Where the servers are.
    pub(crate) fn address(&self) -> Result<Address, Failure> {
        let settings = self.settings()?;
        let value = |name: &str| {
            settings
                .iter()
                .find(|setting| setting.name == name)
                .and_then(|setting| setting.value.clone())
        };
        let (token, authority) = (value("access_token_file"), value("ca_file"));
        let plain = settings::plain_text(value("allow_plain_text").as_deref())?;
        client::address(
            value("server").unwrap_or_default(),
            token.as_deref(),
            authority.as_deref(),
            plain,
            self.common.stale,
        )
    }

    /// A connection to one of the servers.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        Client::connect(&self.address()?).await
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Options;

    #[tokio::test]
    async fn who_does_not_wait_for_an_answer_is_told_of_the_doubt() {
        let options = Options::try_parse_from(["stepcast", "jobs"]).expect("read");
        let context = Context::new(options.common);
        let doubt = Failure::new(Exit::Unknown, "interrupted before the server has answered");
        assert_eq!(context.or_in_doubt(doubt.clone(), async { 1 }).await, 1);
        assert_eq!(context.interrupted().exit, Exit::Interrupted);
        let given_up = tokio::select! {
            biased;
            () = context.or_in_doubt(doubt.clone(), std::future::pending()) => false,
            () = std::future::ready(()) => true,
        };
        assert!(given_up);
        assert_eq!(context.interrupted(), doubt);
    }
}
