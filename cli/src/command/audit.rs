//! `stepcast audit`: what was done by whom.

use clap::Args;
use serde_json::json;
use stepcast_proto::v1;

use super::accounts::show;
use crate::client::timed;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::json::id;
use crate::output::table::{Side, Table};

/// Entries that are asked for at once.
const ENTRIES: u32 = 1_000;

/// Shows what was done by whom, oldest first; --json exports it with its hashes.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Only what was done after this entry
    #[arg(long, default_value_t = 0)]
    after: u64,
}

impl Audit {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let client = context.connect().await?;
        let (mut after, mut entries) = (self.after, Vec::new());
        let last = loop {
            let answer = client.ask(|| {
                let mut service = client.accounts();
                let request = timed(v1::ListAuditEntriesRequest {
                    after_seq: after,
                    page_size: ENTRIES,
                });
                async move { service.list_audit_entries(request).await }
            });
            let mut answer = answer.await?;
            let page = std::mem::take(&mut answer.entries);
            let Some(newest) = page.last() else {
                break answer;
            };
            after = newest.seq;
            entries.extend(page);
        };
        let columns = [
            ("ENTRY", Side::Right),
            ("TIME", Side::Left),
            ("WHO", Side::Left),
            ("ROLE", Side::Left),
            ("WHAT", Side::Left),
            ("TO", Side::Left),
        ];
        let mut table = Table::new(&columns);
        for entry in &entries {
            let when = entry
                .time
                .as_ref()
                .map_or_else(String::new, ToString::to_string);
            let who = if entry.user.is_empty() {
                "-"
            } else {
                id(&entry.user)
            };
            table.row(vec![
                entry.seq.to_string().into(),
                when.into(),
                who.into(),
                entry.role.clone().into(),
                entry.action.clone().into(),
                entry.subject.clone().into(),
            ]);
        }
        let rows = entries.iter().map(|entry| {
            json!({
                "seq": entry.seq, "time": entry.time.as_ref().map(ToString::to_string), "user": id(&entry.user),
                "org": id(&entry.org), "role": entry.role, "action": entry.action, "subject": entry.subject,
                "hash": hex(&entry.hash),
            })
        });
        let whole = json!({
            "entries": rows.collect::<Vec<_>>(), "base": hex(&last.base), "sound": last.sound, "broken_seq": last.broken_seq,
        });
        show(
            context,
            &table,
            whole,
            "Nothing was done in anybody's name.",
        )?;
        if last.sound {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "entry {} of the audit log does not follow from the one before: it, or one before it, was changed or is missing",
            last.broken_seq
        )))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
