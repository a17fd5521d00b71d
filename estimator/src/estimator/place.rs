//! What tells one store of tables from every other: an id beside the tables, which moves with them.

use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutOptions};

use super::Estimator;
use crate::error::Error;

/// The object beside the tables.
const NAME: &str = "store-id";

/// An id has so many hexadecimal digits.
const DIGITS: usize = 32;

impl Estimator {
    /// The id of the store, 32 hexadecimal digits; nothing where nobody has given it one.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the store does not answer, [`Error::Config`] when what lies there is no id.
    pub async fn store_id(&self) -> Result<Option<String>, Error> {
        let object = match self.prefixed().get(&Path::from(NAME)).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(Error::unreachable(error)),
        };
        // A line more than the digits at most.
        let short = object.meta.size <= DIGITS as u64 + 2;
        let bytes = if short {
            object.bytes().await.map_err(Error::unreachable)?
        } else {
            Default::default()
        };
        let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
        let is_id = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| Some(text.to_owned())).ok_or_else(|| {
            Error::Config(format!(
                "`{NAME}` in the store of the tables is damaged: delete it, and the next server that starts makes another one"
            ))
        })
    }

    /// Gives the store this id, 32 hexadecimal digits, unless it has one. Of two that do so at once only one does, so the
    /// store is asked afterwards.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the store does not answer or may not be written to.
    pub async fn give_store_id(&self, id: &str) -> Result<(), Error> {
        let options = PutOptions::from(PutMode::Create);
        let text = format!("{id}\n");
        match self
            .prefixed()
            .put_opts(&Path::from(NAME), text.into(), options)
            .await
        {
            Ok(_) | Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                Ok(())
            }
            Err(error) => Err(Error::unreachable(error)),
        }
    }
}
