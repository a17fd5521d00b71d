//! Writing one log entry: at the next version that nobody else has, as long as what it removes is still there.

use std::collections::HashMap;

use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, CommitInfo, Transaction};
use deltalake::protocol::DeltaOperation;
use deltalake::{DeltaTable, DeltaTableError};
use object_store::path::Path;

use super::commit::{ATTEMPTS, BACKOFF};
use super::follow::named;
use super::log::{State, Table};
use crate::error::Error;

/// What stands in an entry's header beside what stands in every one.
pub(super) type Header = HashMap<String, serde_json::Value>;

/// What a log entry says, but for its header.
struct Content {
    actions: Vec<Action>,
    transactions: Vec<Transaction>,
    operation: DeltaOperation,
}

impl Table {
    /// Writes one log entry right behind the version that was followed to; one that removes files again at the next version
    /// while others win that version without touching these.
    ///
    /// # Errors
    /// [`Error::Contended`] when others were faster: once where nothing is removed, since they may have stored the same ids,
    /// and else when they did touch the files, or won again and again. An error does not say that nothing was written.
    pub(super) async fn write_entry(
        &self,
        state: &mut State,
        mut actions: Vec<Action>,
        transactions: Vec<Transaction>,
        operation: DeltaOperation,
        info: Header,
    ) -> Result<(), Error> {
        if state.is_cut {
            // Whoever opens the table would look for that checkpoint.
            self.drop_hint().await?;
            state.is_cut = false;
        }
        let delta = state
            .delta
            .as_ref()
            .ok_or_else(|| self.foreign("it was never opened"))?;
        let removed = removed(&actions);
        // Our own entry header, since the usual one says when to the millisecond.
        actions.insert(
            0,
            Action::CommitInfo(CommitInfo {
                operation: Some(operation.name().to_owned()),
                engine_info: Some("stepcast".to_owned()),
                info,
                ..CommitInfo::default()
            }),
        );
        let content = Content {
            actions,
            transactions,
            operation,
        };
        if removed.is_empty() {
            // Who stores looks again by itself at what others have stored meanwhile.
            return self.put_entry(delta, &content).await;
        }
        self.replace(delta.clone(), &content, &removed).await
    }

    /// Writes an entry that removes files right behind a version that names all of them. What the library does when
    /// others were faster is not enough here: it does not look at files that somebody has moved meanwhile, whose rows
    /// would then be there twice.
    async fn replace(
        &self,
        mut delta: DeltaTable,
        content: &Content,
        removed: &[Path],
    ) -> Result<(), Error> {
        for attempt in 0..ATTEMPTS {
            match self.put_entry(&delta, content).await {
                Err(Error::Contended { .. }) => {}
                done => return done,
            }
            tokio::time::sleep(BACKOFF * 2u32.pow(attempt)).await;
            delta.update_state().await.map_err(|e| self.unopened(e))?;
            if self.check(&delta)? {
                return Err(self.foreign("a newer version has added columns to it"));
            }
            let named = named(&delta)?;
            if !removed.iter().all(|path| named.contains_key(path)) {
                break;
            }
        }
        Err(self.contended())
    }

    /// Writes it behind the version that was looked at and nowhere else.
    async fn put_entry(&self, delta: &DeltaTable, content: &Content) -> Result<(), Error> {
        let snapshot = delta.snapshot().map_err(Error::unreachable)?;
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false))
            .with_application_transactions(content.transactions.clone());
        let commit = CommitBuilder::from(properties)
            .with_actions(content.actions.clone())
            .build(
                Some(snapshot),
                // Past what the version was read past.
                delta.log_store(),
                content.operation.clone(),
            );
        match commit.await {
            Ok(_) => Ok(()),
            Err(error) if is_race(&error) => Err(self.contended()),
            Err(error) => Err(Error::unreachable(error)),
        }
    }

    /// That others were faster.
    pub(super) const fn contended(&self) -> Error {
        Error::Contended {
            table: self.kind.name(),
        }
    }
}

/// The files that are removed.
fn removed(actions: &[Action]) -> Vec<Path> {
    let removed = actions.iter().filter_map(|action| match action {
        Action::Remove(remove) => Path::from_url_path(&remove.path).ok(),
        _ => None,
    });
    removed.collect()
}

/// Whether somebody else was faster, as opposed to a store that does not answer.
fn is_race(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::CommitConflict(_)
                    | TransactionError::MaxCommitAttempts(_)
                    | TransactionError::VersionAlreadyExists(_)
            }
    )
}
