//! The core from outside: scripts that people read, and properties of random histories.
#![expect(clippy::print_stdout, reason = "figures are told with --nocapture")]

mod agreement;
mod drawn;
mod drifting;
mod golden;
mod golden_3;
mod golden_clips;
mod golden_credentials;
mod golden_forgotten;
mod golden_gangs;
mod golden_members;
mod golden_nodes;
mod golden_orgs;
mod golden_outputs;
mod golden_preparation;
mod golden_prices;
mod golden_revised;
mod golden_sharing;
mod history;
mod home;
mod launch;
mod limits;
mod outlook;
mod planner;
mod portions;
mod priced;
mod properties;
mod script;
mod scripts;
mod show;
mod sooner;
mod suggested;
mod support;
mod urgent;
mod what_if;
mod wishes;
