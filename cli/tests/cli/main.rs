//! The real program against a real server in a temporary folder: every command, its exit codes and its screens.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authority;
mod canary;
mod commands;
mod dev;
mod ends;
mod failover;
mod nodes;
mod open;
mod openapi;
mod passed_on;
mod refusals;
mod ring;
mod screens;
mod storage;
mod streams;
mod support;
mod take_back;
mod tokens;
