//! Figures a user would ask for: one program a question, listed in README.md with how to run it.
