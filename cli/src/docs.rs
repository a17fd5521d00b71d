//! docs/cli.md and docs/config.md, written from the definitions: `UPDATE=1 cargo test -p stepcast` writes them anew.

use std::path::PathBuf;

use clap::{Command, CommandFactory};

use crate::options::{EXIT_CODES, Options};
use crate::settings::{CLIENT, Known};

fn check(name: &str, expected: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().expect("folder")).expect("docs");
        std::fs::write(&path, expected).expect("written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/{name} is not what the code says; UPDATE=1 writes it anew"
    );
}

#[test]
fn the_command_line_is_documented() {
    let mut command = Options::command();
    command.build();
    let mut text = "# The `stepcast` program\n\nWritten from the program's own definitions by a test; do not edit.\n".to_owned();
    text.push_str(&format!(
        "\n{}\n\n```text\n{EXIT_CODES}\n```\n",
        command.get_about().expect("about")
    ));
    text.push_str("\nData goes to stdout, everything else to stderr. On a pipe tables are tab-separated; `--json` answers in JSON\n");
    text.push_str(
        "with names that never change within a major version, and what is refused, a wrong command line too, is then one\n\
         object `error` on stderr. Colours follow `NO_COLOR`.\n",
    );
    text.push_str("\n## Common options\n\n");
    for argument in command
        .get_arguments()
        .filter(|argument| argument.is_global_set())
    {
        text.push_str(&line(argument));
    }
    for child in command.get_subcommands() {
        section(&mut text, child, "stepcast");
    }
    check("cli.md", &text);
}

fn section(text: &mut String, command: &Command, parent: &str) {
    if command.is_hide_set() {
        return;
    }
    let name = format!("{parent} {}", command.get_name());
    let about = command
        .get_long_about()
        .or(command.get_about())
        .map(ToString::to_string)
        .unwrap_or_default();
    text.push_str(&format!("\n## `{name}`\n\n{}\n", about.trim_end()));
    let own = |argument: &&clap::Arg| {
        // What a command hands down to those below it is told at the command itself.
        let handed_down = argument.is_global_set() && (parent != "stepcast" || common(argument));
        !handed_down
            && !argument.is_hide_set()
            && !matches!(argument.get_id().as_str(), "help" | "version")
    };
    let arguments: Vec<String> = command.get_arguments().filter(own).map(line).collect();
    if !arguments.is_empty() {
        text.push_str(&format!("\n{}", arguments.concat()));
    }
    for child in command.get_subcommands() {
        section(text, child, &name);
    }
}

/// Whether every command has it.
fn common(argument: &clap::Arg) -> bool {
    let names = [
        "server",
        "access_token_file",
        "ca_file",
        "allow_plain_text",
        "json",
        "columns",
    ];
    names.contains(&argument.get_id().as_str())
}

fn line(argument: &clap::Arg) -> String {
    let values: Vec<String> = argument
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(|name| format!("<{name}>"))
        .collect();
    let flag = match (argument.get_long(), argument.get_short()) {
        (Some(long), Some(short)) => format!("-{short}, --{long}"),
        (Some(long), None) => format!("--{long}"),
        _ => String::new(),
    };
    let values = if argument.get_action().takes_values() {
        values.join(" ")
    } else {
        String::new()
    };
    let shown = [flag, values]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let help = argument
        .get_long_help()
        .or(argument.get_help())
        .map(ToString::to_string)
        .unwrap_or_default();
    let paragraphs = help
        .split("\n\n")
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let help = paragraphs.collect::<Vec<_>>().join(". ");
    let choices: Vec<String> = argument
        .get_possible_values()
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let choices = if choices.is_empty() || !argument.get_action().takes_values() {
        String::new()
    } else {
        format!(" One of {}.", choices.join(", "))
    };
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let default = if defaults.is_empty() || !argument.get_action().takes_values() {
        String::new()
    } else {
        format!(" Default: {}.", defaults.join(", "))
    };
    let end = if help.ends_with('.') { "" } else { "." };
    format!("- `{shown}`: {help}{end}{choices}{default}\n")
}

#[test]
fn the_settings_are_documented() {
    let mut text =
        "# Settings\n\nWritten from the program's own definitions by a test; do not edit.\n\n"
            .to_owned();
    text.push_str("A flag beats the environment, the environment beats the file, and the file beats the default. `stepcast config show`\n");
    text.push_str("and `stepcast server config show` print each value with where it came from. An unknown key in a file is refused.\n");
    text.push_str("\n## A person's commands\n\nFile: `$XDG_CONFIG_HOME/stepcast/config.toml`.\n\n");
    text.push_str(&settings_table(CLIENT));
    text.push_str(
        "\n## A server\n\nFile: `/etc/stepcast/server.toml`, or the one that `--config` names.\n\n",
    );
    text.push_str(&settings_table(crate::command::server::SETTINGS));
    text.push_str("\n## A worker\n\nNo file: flags and the environment alone, the same for `stepcast worker` and `stepcast-worker run`. Where the\n");
    text.push_str("servers are and whom to trust (`server`, `ca_file`, `allow_plain_text`) is told as for a person's commands, to\n");
    text.push_str("`stepcast worker` by the same file too. What has no variable stands among the [commands](cli.md#stepcast-worker).\n\n");
    text.push_str(&variables_table("worker"));
    check("config.md", &text);
}

/// The flags of a command that the environment can give as well.
fn variables_table(command: &str) -> String {
    let options = Options::command();
    let command = options.find_subcommand(command).expect("a command");
    let mut text = "| flag | environment | default | meaning |\n|---|---|---|---|\n".to_owned();
    for argument in command.get_arguments() {
        let (Some(flag), Some(variable)) = (argument.get_long(), argument.get_env()) else {
            continue;
        };
        let defaults = argument.get_default_values().iter();
        let defaults: Vec<String> = match argument.get_action().takes_values() {
            true => defaults
                .map(|value| format!("`{}`", value.to_string_lossy()))
                .collect(),
            // What is there or not.
            false => vec!["`false`".to_owned()],
        };
        let default = match defaults.is_empty() {
            true => "none".to_owned(),
            false => defaults.join(", "),
        };
        let help = argument.get_help().map(ToString::to_string);
        text.push_str(&format!(
            "| `--{flag}` | `{}` | {default} | {}. |\n",
            variable.to_string_lossy(),
            help.unwrap_or_default()
        ));
    }
    text
}

fn settings_table(known: &[Known]) -> String {
    let mut text = "| key | environment | default | meaning |\n|---|---|---|---|\n".to_owned();
    for setting in known {
        let default = setting
            .default
            .map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
        text.push_str(&format!(
            "| `{}` | `{}` | {default} | {} |\n",
            setting.name, setting.variable, setting.doc
        ));
    }
    text
}
