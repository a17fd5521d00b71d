//! `stepcast config`: this program's settings, each with where it came from.

use clap::Subcommand;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::output::style::Tone;
use crate::output::table::{Cell, Side, Table};
use crate::settings::{self, Setting};

/// What can be asked about settings.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Shows each setting with where it came from
    Show,
}

impl Config {
    /// Shows them.
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let Self::Show = self;
        show(&context.output, &context.settings()?)?;
        if let Some(path) = settings::client_file() {
            context
                .output
                .say(format!("Settings are read from {}.", path.display()));
        }
        Ok(())
    }
}

/// Shows settings.
pub(crate) fn show(output: &Output, settings: &[Setting]) -> Result<(), Failure> {
    if output.json {
        let settings = settings.iter().map(|setting| {
            json!({ "name": setting.name, "value": setting.value, "origin": setting.origin.to_string() })
        });
        return output.json(&json!({ "settings": settings.collect::<Vec<_>>() }));
    }
    let mut table = Table::new(&[
        ("SETTING", Side::Left),
        ("VALUE", Side::Left),
        ("FROM", Side::Left),
    ]);
    for setting in settings {
        let value = setting.value.clone().unwrap_or_else(|| "-".to_owned());
        table.row(vec![
            setting.name.into(),
            Cell::toned(value, Tone::Strong),
            Cell::toned(setting.origin.to_string(), Tone::Dim),
        ]);
    }
    output.table(&table)
}
