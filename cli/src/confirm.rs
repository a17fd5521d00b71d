//! What the person who sits there writes: a line, or whether something is to be done.

use std::io::Write;

use crate::failure::Failure;

/// Asks; an empty line means what is given. Whoever has ended the input has said no.
pub(crate) async fn confirmed(question: &str, by_default: bool) -> Result<bool, Failure> {
    let answers = if by_default { "[Y/n]" } else { "[y/N]" };
    // Who does not see the question does not answer it either.
    let _ = write!(std::io::stderr(), "  {question} {answers} ");
    let line = line("the answer").await?;
    Ok(line.is_some_and(|line| means_yes(&line, by_default)))
}

/// The next line that somebody writes; nothing once the input has ended.
///
/// # Errors
/// When `what` this is cannot be read.
pub(crate) async fn line(what: &str) -> Result<Option<String>, Failure> {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin()
            .read_line(&mut line)
            .map(|read| (read > 0).then_some(line))
    });
    let line = line
        .await
        .map_err(|error| Failure::refused(error.to_string()))?;
    line.map_err(|error| Failure::refused(format!("{what} cannot be read: {error}")))
}

fn means_yes(line: &str, by_default: bool) -> bool {
    match line.trim().to_ascii_lowercase().as_str() {
        "" => by_default,
        word => matches!(word, "y" | "yes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_line_means_what_the_question_says() {
        for by_default in [true, false] {
            assert_eq!(means_yes("\n", by_default), by_default);
            assert!(means_yes(" Yes\n", by_default) && means_yes("y", by_default));
            assert!(!means_yes("n\n", by_default) && !means_yes("14:30", by_default));
        }
    }
}
