//! What every command is given: where the server is, and how to show answers.

use std::path::PathBuf;

use crate::client::{self, Address, Client};
use crate::failure::Failure;
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
}

impl Context {
    /// By the command line.
    pub(crate) fn new(common: Common) -> Self {
        let output = Output::new(common.json, common.columns.map(usize::from));
        Self { output, common }
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
