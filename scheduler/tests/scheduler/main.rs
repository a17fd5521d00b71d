//! The core from outside: scripts that people read, and properties of random histories.

mod agreement;
mod drawn;
mod golden;
mod golden_3;
mod golden_credentials;
mod history;
mod limits;
mod properties;
mod script;
mod scripts;
mod show;
mod sooner;
mod support;
mod wishes;
