//! `stepcast job why`: why a job does not run, what would start it, and when it is expected to start and to be done.

use prost_types::Timestamp;
use stepcast_proto::v1::{ExplainJobRequest, ExplainJobResponse, Outlook, WhyTier};

use super::jobs::words;
use crate::client::{Client, timed};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::money::{counted, dollars};
use crate::output::style::Tone;
use crate::output::{Output, json, time};

/// Asks and tells.
pub(crate) async fn why(context: &Context, client: &Client, name: &str) -> Result<(), Failure> {
    let answer = client.ask(|| {
        let request = timed(ExplainJobRequest {
            name: name.to_owned(),
        });
        let mut service = client.jobs();
        async move { service.explain_job(request).await }
    });
    let answer = answer.await?;
    let output = &context.output;
    if output.json {
        return output.json(&json::why(json::id(name), &answer));
    }
    output.data(&why_text(output, json::id(name), &answer))?;
    for sooner in &answer.sooner {
        let worker = match sooner.worker.as_str() {
            "" => String::new(),
            worker => format!(" on {worker}"),
        };
        let cost = sooner
            .cost_usd_micros
            .map_or_else(String::new, |micros| format!(", about {}", dollars(micros)));
        let by = match sooner.by.as_str() {
            "" => String::new(),
            by => format!("by {by}: "),
        };
        let command = Tone::Strong.paint(&sooner.command);
        output.say(format!(
            "  {} {command}     {by}starts now{worker}{cost}",
            Tone::Dim.paint("Sooner:")
        ));
    }
    // What was tried says more than what might help.
    let untried = if answer.sooner.is_empty() {
        &answer.hints[..]
    } else {
        &[]
    };
    for hint in untried {
        output.say(format!("  {} {hint}", Tone::Dim.paint("Sooner:")));
    }
    if answer.tier() == WhyTier::Unspecified {
        output.next(format!("stepcast job show {}", json::id(name)));
    }
    Ok(())
}

fn why_text(output: &Output, id: &str, answer: &ExplainJobResponse) -> String {
    let tone = if answer.tier() == WhyTier::Never {
        Tone::Bad
    } else {
        Tone::Strong
    };
    let headline = answer.headline.trim_end_matches('.');
    let headline = headline.strip_prefix(id).unwrap_or(headline).trim_start();
    let mut text = format!("{}\n", tone.paint(&format!("{id} {headline}.")));
    let workers: u32 = answer.lines.iter().map(|line| line.count).sum();
    if workers > 0 {
        text.push_str(&format!(
            "\n  Of {}:\n",
            counted(u64::from(workers), "worker", "workers")
        ));
        let width = answer
            .lines
            .iter()
            .map(|line| words(&line.reason).len())
            .max()
            .unwrap_or(0);
        for line in &answer.lines {
            let names = line.workers.join(", ");
            let rest = output
                .columns
                .saturating_sub(12 + width + names.len())
                .max(20);
            let detail = wrapped(&line.detail, rest, 12 + width + names.len());
            let reason = words(&line.reason);
            text.push_str(
                format!("  {:>3}  {reason:<width$}   {names}   {detail}", line.count).trim_end(),
            );
            text.push('\n');
        }
    }
    if answer.jobs_ahead > 0 {
        text.push_str(&format!(
            "\n  Ahead of it: {}.\n",
            counted(u64::from(answer.jobs_ahead), "job", "jobs")
        ));
    }
    // What no worker can hold has been told to be so.
    if let Some(outlook) = answer
        .outlook
        .as_ref()
        .filter(|_| answer.tier() != WhyTier::Never)
    {
        text.push_str(&outlook_text(outlook));
    }
    text
}

/// When it is expected to start and to be done, and what is missing of that.
fn outlook_text(outlook: &Outlook) -> String {
    let times = [
        ("Starts", &outlook.start_time_p50, &outlook.start_time_p90),
        ("Done", &outlook.finish_time_p50, &outlook.finish_time_p90),
    ];
    let mut text = String::new();
    for (what, likely, late) in times {
        if likely.is_some() {
            text.push_str(&format!("  {what} {}.\n", about(likely, late)));
        }
    }
    if !outlook.note.is_empty() {
        text.push_str(&format!("  When: {}.\n", outlook.note));
    }
    text
}

/// When something is expected: `about 2026-11-26 16:00, nine in ten by 2026-11-26 16:20`; empty if nobody knows.
pub(super) fn about(likely: &Option<Timestamp>, late: &Option<Timestamp>) -> String {
    let Some(likely) = likely else {
        return String::new();
    };
    let late = late.as_ref().map_or_else(String::new, |late| {
        format!(", nine in ten by {}", time::day_and_clock(Some(late)))
    });
    format!("about {}{late}", time::day_and_clock(Some(likely)))
}

/// The text in lines of so many columns, all but the first behind so many spaces.
fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::style::Signs;
    use stepcast_proto::v1::WhyLine;

    #[test]
    fn why_reads_as_count_reason_who_and_what_clears_it() {
        let line = |count, reason: &str, worker: &str, detail: &str| WhyLine {
            count,
            reason: reason.to_owned(),
            workers: vec![worker.to_owned()],
            detail: detail.to_owned(),
        };
        let answer = ExplainJobResponse {
            tier: WhyTier::Capacity.into(),
            headline: "is waiting for GPUs".to_owned(),
            lines: vec![
                line(1, "GPUS_BUSY", "h100-a1", "both GPUs are in use"),
                line(
                    1,
                    "OTHER_GPU",
                    "a100-b1",
                    "A100-80; the job allows H100 only",
                ),
            ],
            jobs_ahead: 0,
            hints: Vec::new(),
            sooner: Vec::new(),
            outlook: None,
        };
        let output = Output {
            json: false,
            drawn: true,
            telling: false,
            live: false,
            asks: false,
            columns: 100,
            signs: Signs { unicode: true },
        };
        let text = anstream::adapter::strip_str(&why_text(&output, "91c0", &answer)).to_string();
        let expected = "91c0 is waiting for GPUs.\n\n  Of 2 workers:\n    1  gpus busy   h100-a1   both GPUs are in use\n    \
                        1  other gpu   a100-b1   A100-80; the job allows H100 only\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn times_are_told_as_far_as_they_are_known() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let outlook = Outlook {
            finish_time_p50: at(3_600),
            finish_time_p90: at(7_200),
            worlds: 16,
            ..Outlook::default()
        };
        let text = outlook_text(&outlook);
        assert!(
            text.starts_with("  Done about 1970-01-0")
                && text.contains(", nine in ten by 1970-01-0"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
        let unknown = Outlook {
            note: "it does not start".to_owned(),
            ..Outlook::default()
        };
        assert_eq!(outlook_text(&unknown), "  When: it does not start.\n");
    }

    #[test]
    fn long_details_wrap_behind_their_column() {
        assert_eq!(wrapped("one two three", 8, 4), "one two\n    three");
        assert_eq!(wrapped("", 8, 4), "");
    }
}
