//! What tells one store of tables from every other: an id beside the tables, which moves with them.

use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutOptions, PutResult};

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

    /// Makes sure that the store refuses a second write of what may be written once, by its own id: versions of a log are
    /// such objects, and where two writers could both write one, what the first has acknowledged would be lost.
    ///
    /// # Errors
    /// [`Error::Config`] when it takes the write. One that does not answer, or may only be read, is not judged.
    pub async fn check_conditions(&self, id: &str) -> Result<(), Error> {
        match self.put_once(id).await {
            Ok(_) => Err(Error::Config(
                "the store writes an object a second time that must be written once (`If-None-Match: *`), so that records would be lost: use S3, R2, or another store that keeps to this"
                    .to_owned(),
            )),
            Err(_) => Ok(()),
        }
    }

    /// Gives the store this id, 32 hexadecimal digits, unless it has one. Of two that do so at once only one does, so the
    /// store is asked afterwards.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the store does not answer or may not be written to.
    pub async fn give_store_id(&self, id: &str) -> Result<(), Error> {
        match self.put_once(id).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                Ok(())
            }
            Err(error) => Err(Error::unreachable(error)),
        }
    }

    async fn put_once(&self, id: &str) -> object_store::Result<PutResult> {
        let options = PutOptions::from(PutMode::Create);
        let text = format!("{id}\n");
        let store = self.prefixed();
        store
            .put_opts(&Path::from(NAME), text.into(), options)
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStore;
    use object_store::memory::InMemory;
    use url::Url;

    use super::*;
    use crate::PriceBook;
    use crate::testing::{Fault, Faulty};

    #[tokio::test]
    async fn a_store_that_writes_twice_what_is_written_once_is_refused() {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let faulty = Faulty::new(&memory, Some((2, Fault::Unasked)));
        let base = Url::parse("memory:///bench/").expect("url");
        let estimator =
            Estimator::over(faulty.clone(), base, PriceBook::default()).expect("estimator");
        let id = "0123456789abcdef0123456789abcdef";
        estimator.give_store_id(id).await.expect("given");
        estimator.check_conditions(id).await.expect("it is kept to");
        let refused = estimator.check_conditions(id).await;
        assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
        assert_eq!(faulty.writes(), 3);
        // One that is away is not judged.
        faulty.set_dead(true);
        estimator.check_conditions(id).await.expect("not known");
    }
}
