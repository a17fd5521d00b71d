//! What a trainer prints, as clean lines within a fixed size: the first part is sent on as it comes, and of what comes then the
//! newest once the trainer has ended.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use crate::redact::Redactor;

/// What one attempt may send up in all. More than this is never read by anyone, and it is the privacy promise's limit.
pub const LOG_BYTES: usize = 1024 * 1024;

/// What of it is kept for the newest lines, which are sent when the trainer has ended: what a log is looked at for stands there.
/// At a hundred bytes a line it is two and a half thousand of them.
const END_BYTES: usize = LOG_BYTES / 4;

/// What the two words about what is missing have at most.
const WORDS_BYTES: usize = 256;

/// What is sent on as it comes.
const FIRST_BYTES: usize = LOG_BYTES - END_BYTES - WORDS_BYTES;

/// What one line may hold.
pub const LINE_BYTES: usize = 8 * 1024;

/// Bytes of one line that are looked at; argparse and progress bars stay far below, and the rest of a longer line is lost.
const RAW_LINE_BYTES: usize = 4 * LINE_BYTES;

/// Taken off the end of a line longer than that: it may end in the middle of a secret, which no search finds.
pub(crate) const LONGEST_SECRET_BYTES: usize = 1024;

/// Last lines kept for the failure's detail.
const TAIL_LINES: usize = 24;

/// Lines that are sent at once: a server takes no more of one message. A read from the pipe may hold many more empty ones.
const LINES_AT_ONCE: usize = 1_000;

/// And bytes of them, unless one line has more: leases are renewed between two messages.
const BYTES_AT_ONCE: usize = 32 * 1024;

/// Stands in the log where nothing more is sent while the trainer runs.
const HELD_BACK: &str = "(the log is full: what is printed from here on follows when the trainer has ended, its newest lines at least)";

/// How long room for the last lines is waited for.
const LAST_LINES: Duration = Duration::from_secs(2);

/// One read from the pipe.
const CHUNK_BYTES: usize = 16 * 1024;

/// Turns chunks of bytes into redacted lines and keeps the budget.
#[derive(Debug)]
pub struct Capture {
    redactor: Redactor,
    line: Vec<u8>,
    /// A carriage return was seen: a line feed ends the line, anything else starts it anew (progress bars do that).
    returned: bool,
    sent_bytes: usize,
    /// Whether the first part is full.
    is_full: bool,
    /// The newest lines after that.
    end: VecDeque<String>,
    end_bytes: usize,
    left_out: u64,
    tail: VecDeque<String>,
}

impl Capture {
    /// An empty log that redacts with `redactor`.
    pub fn new(redactor: Redactor) -> Self {
        Self {
            redactor,
            line: Vec::new(),
            returned: false,
            sent_bytes: 0,
            is_full: false,
            end: VecDeque::new(),
            end_bytes: 0,
            left_out: 0,
            tail: VecDeque::new(),
        }
    }

    /// Takes a chunk and gives the lines that it completes and that are still within the budget.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in chunk {
            match byte {
                b'\n' => {
                    self.returned = false;
                    lines.extend(self.end_line());
                }
                b'\r' => self.returned = true,
                _ => {
                    if std::mem::take(&mut self.returned) {
                        self.line.clear();
                    }
                    if self.line.len() < RAW_LINE_BYTES {
                        self.line.push(byte);
                    }
                }
            }
        }
        lines
    }

    /// The last line, if the trainer did not end it; and where the log is full, how much was left out and the newest lines.
    pub fn finish(&mut self) -> Vec<String> {
        let mut lines: Vec<String> = if self.line.is_empty() {
            Vec::new()
        } else {
            self.end_line().into_iter().collect()
        };
        if self.left_out > 0 {
            lines.push(format!(
                "({} lines were left out here: of one attempt {LOG_BYTES} bytes are kept)",
                self.left_out
            ));
        }
        lines.extend(self.end.drain(..));
        self.end_bytes = 0;
        lines
    }

    /// The last lines, oldest first.
    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    fn end_line(&mut self) -> Option<String> {
        // Redacted before it is cut: a cut in the middle of a secret would hide it from the search.
        let mut line = self.redactor.clean(&String::from_utf8_lossy(&self.line));
        if self.line.len() == RAW_LINE_BYTES {
            let keep = line.len().saturating_sub(LONGEST_SECRET_BYTES);
            cut(&mut line, keep);
        }
        self.line.clear();
        cut(&mut line, LINE_BYTES);
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        if !self.is_full && self.sent_bytes + line.len() < FIRST_BYTES {
            self.sent_bytes += line.len() + 1;
            return Some(line);
        }
        // From the first line on that finds no room, so that their order stays.
        let was_full = std::mem::replace(&mut self.is_full, true);
        self.end_bytes += line.len() + 1;
        self.end.push_back(line);
        while self.end_bytes > END_BYTES {
            self.end_bytes -= self.end.pop_front().map_or(0, |line| line.len() + 1);
            self.left_out += 1;
        }
        (!was_full).then(|| HELD_BACK.to_owned())
    }
}

/// Passes batches of lines on, and says in their place how many there was no room for.
#[derive(Debug)]
struct Passing {
    lines: mpsc::Sender<Vec<String>>,
    /// Lines dropped since the last batch that was passed on.
    dropped: usize,
}

impl Passing {
    /// Passes a batch on if there is room for it, an empty one too: it is a sign of life.
    fn pass(&mut self, batch: Vec<String>) {
        let count = batch.len();
        match self.lines.try_send(self.complete(batch)) {
            Ok(()) => self.dropped = 0,
            Err(_full) => self.dropped += count,
        }
    }

    /// Passes the last batch on; waits a moment for room, since nothing is printed any more that could be held up.
    async fn end(mut self, batch: Vec<String>) {
        let last = self.complete(batch);
        if last.is_empty() {
            return;
        }
        self.dropped = 0;
        if self.lines.send_timeout(last, LAST_LINES).await.is_err() {
            tracing::debug!("the last lines of a trainer were not passed on");
        }
    }

    /// A batch with a word about what is missing before it.
    fn complete(&self, batch: Vec<String>) -> Vec<String> {
        let missing = (self.dropped > 0).then(|| left_out(self.dropped));
        missing.into_iter().chain(batch).collect()
    }
}

/// What stands in the log in place of lines that there was no room for.
pub(crate) fn left_out(lines: usize) -> String {
    format!("({lines} lines were left out here: more was printed than could be passed on)")
}

/// Reads `output` to its end, sending lines on, and returns the last ones.
///
/// Lines that do not fit in the queue are dropped and counted, which a line in their place says: a slow leader must not slow
/// the trainer.
pub async fn read(
    mut output: impl AsyncRead + Unpin,
    mut capture: Capture,
    lines: mpsc::Sender<Vec<String>>,
) -> Capture {
    let mut passing = Passing { lines, dropped: 0 };
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match output.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                passing.pass(capture.push(&chunk[..count]));
            }
        }
    }
    passing.end(capture.finish()).await;
    capture
}

/// Divides lines into as many messages as they need.
pub(crate) fn messages(mut lines: Vec<String>) -> Vec<Vec<String>> {
    let mut messages = Vec::new();
    while !lines.is_empty() {
        let mut bytes = 0;
        let fit = lines.iter().take(LINES_AT_ONCE).take_while(|line| {
            bytes += line.len() + 1;
            bytes <= BYTES_AT_ONCE
        });
        let rest = lines.split_off(fit.count().max(1));
        messages.push(std::mem::replace(&mut lines, rest));
    }
    messages
}

/// Shortens to at most `bytes`, at a character's border.
pub fn cut(text: &mut String, bytes: usize) {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture() -> Capture {
        Capture::new(Redactor::new([("HF_TOKEN", "hf_secretsecretsecret1")], &[]))
    }

    #[test]
    fn a_secret_cut_by_a_chunk_border_is_still_found() {
        let text = b"token hf_secretsecretsecret1 end\n";
        for border in 0..text.len() {
            let mut capture = capture();
            let mut lines = capture.push(&text[..border]);
            lines.extend(capture.push(&text[border..]));
            assert_eq!(lines, ["token [redacted] end"], "border {border}");
        }
    }

    #[test]
    fn a_secret_at_the_line_limit_is_not_cut_in_two() {
        let mut capture = capture();
        let lines = capture.push(
            format!(
                "{}hf_secretsecretsecret1\n",
                "x ".repeat(LINE_BYTES / 2 - 4)
            )
            .as_bytes(),
        );
        assert_eq!(lines.len(), 1);
        assert!(lines[0].len() <= LINE_BYTES);
        assert!(!lines[0].contains("hf_sec"));
    }

    #[test]
    fn a_progress_bar_counts_once_and_windows_line_ends_are_ends() {
        let mut capture = capture();
        assert_eq!(
            capture.push(b"10%\r50%\r100%\nnext\r\nlast"),
            ["100%", "next"]
        );
        assert_eq!(capture.finish(), ["last"]);
    }

    #[test]
    fn no_message_holds_more_lines_than_a_server_takes() {
        let text: String = (0..2_500).map(|number| format!("{number}\n")).collect();
        let lines = capture().push(text.as_bytes());
        let sent = messages(lines.clone());
        let sizes: Vec<usize> = sent.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1_000, 1_000, 500]);
        assert_eq!(sent.concat(), lines);
        assert!(messages(Vec::new()).is_empty());
        let long = vec!["y".repeat(LINE_BYTES - 1); 9];
        let sizes = messages(long).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes, [4, 4, 1], "nor more bytes than leases wait for");
        assert_eq!(messages(vec!["y".repeat(2 * BYTES_AT_ONCE)]).len(), 1);
    }

    #[tokio::test]
    async fn what_is_dropped_is_counted_in_its_place() {
        let (lines, mut batches) = mpsc::channel(1);
        let mut passing = Passing { lines, dropped: 0 };
        let batch = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        passing.pass(batch("a"));
        passing.pass(batch("b\nc"));
        passing.pass(batch(""));
        passing.pass(batch("d"));
        assert_eq!(batches.recv().await, Some(batch("a")));
        passing.pass(batch("e"));
        assert_eq!(
            batches.recv().await,
            Some(vec![left_out(3), "e".to_owned()])
        );
        passing.pass(batch("f"));
        passing.pass(batch("g"));
        // The end waits for the reader.
        let (passed, last) = tokio::join!(
            async { (batches.recv().await, batches.recv().await) },
            passing.end(Vec::new())
        );
        assert_eq!(passed, (Some(batch("f")), Some(vec![left_out(1)])));
        let () = last;
        assert_eq!(batches.recv().await, None);
    }

    #[test]
    fn a_full_log_says_so_at_once_and_has_the_newest_lines_at_its_end() {
        let mut capture = capture();
        let line = |number: u32| format!("step {number} {}", "y".repeat(90));
        let mut sent = Vec::new();
        let mut held = None;
        for number in 0..30_000 {
            sent.extend(capture.push(format!("{}\n", line(number)).as_bytes()));
            if held.is_none() && sent.last().is_some_and(|line| line == HELD_BACK) {
                held = Some(number);
            }
        }
        sent.extend(capture.push(b"the disk is full"));
        let held = held.expect("said while the trainer runs");
        assert_eq!(sent.len(), held as usize + 1, "and nothing behind it");
        assert_eq!(capture.tail().last(), Some(&line(29_999)));
        let last = capture.finish();
        assert_eq!(
            capture.tail().last().map(String::as_str),
            Some("the disk is full")
        );
        assert_eq!(last.last().map(String::as_str), Some("the disk is full"));
        let kept = last.len() - 2;
        assert_eq!(last[1], line(30_000 - u32::try_from(kept).expect("some")));
        let left_out = 30_000 - held as usize - kept;
        assert!(
            last[0].starts_with(&format!("({left_out} lines were left out here")),
            "{}",
            last[0]
        );
        let bytes: usize = sent.iter().chain(&last).map(|line| line.len() + 1).sum();
        assert!(
            (LOG_BYTES - 2 * LINE_BYTES..=LOG_BYTES).contains(&bytes),
            "{bytes}"
        );
    }

    #[test]
    fn a_log_that_is_just_full_has_every_line() {
        let mut capture = capture();
        let text: String = (0..9_000).map(|number| format!("{number:99}\n")).collect();
        let mut sent = capture.push(text.as_bytes());
        sent.extend(capture.finish());
        let held = sent.iter().position(|line| line == HELD_BACK);
        sent.remove(held.expect("they did not fit in the first part"));
        let whole: Vec<&str> = text.lines().collect();
        assert_eq!(sent, whole);
    }
}
