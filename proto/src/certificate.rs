//! The certificate that a port shows: a pair of files that are read again as they change, so that nobody is restarted for it.

mod end;

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub use self::end::End;

/// How often the files are looked at. What has changed counts once two looks have found it alike, so it is shown within twice
/// this time: soon enough for certificates that are renewed days before their end.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// Bytes of a file at most: a chain has some thousand.
const FILE_BYTES: u64 = 1 << 20;

/// A certificate and its key, each in a PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a port cannot show what is in the files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, or is no PEM file of what it should hold.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificate and its key are no pair.
    #[error("the certificate cannot be used")]
    Unusable(#[source] rustls::Error),
}

/// What ports show of a pair of files: what was in them when they last were a pair.
#[derive(Debug)]
pub struct Shown {
    files: Files,
    pair: RwLock<Pair>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    /// The certificate's file, as it is.
    pem: Vec<u8>,
    end: Option<End>,
}

/// What the looks have found, each as a hash of it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// By the last look.
    last: u64,
    /// What is shown, or was told to be of no use.
    settled: u64,
}

/// What is in both files.
type Content = Result<(Vec<u8>, Vec<u8>), (PathBuf, io::Error)>;

impl Shown {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// When a file cannot be read, or they are no pair.
    pub fn read(files: Files) -> Result<Arc<Self>, Error> {
        let content = files.content();
        let mark = mark(&content);
        let pair = RwLock::new(files.pair(content)?);
        let seen = Mutex::new(Seen {
            last: mark,
            settled: mark,
        });
        Ok(Arc::new(Self { files, pair, seen }))
    }

    /// Where it lies.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The certificate's file as it is shown.
    #[must_use]
    pub fn pem(&self) -> Vec<u8> {
        self.pair().pem.clone()
    }

    /// When the certificate ends, if that can be read out of it.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.pair().end
    }

    /// How a port greets that shows it and speaks these protocols.
    ///
    /// # Errors
    /// None that is known: the versions of TLS are the library's own.
    pub fn greeting(
        self: &Arc<Self>,
        protocols: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        // More than one library of primitives is linked, so rustls has no default of its own.
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as _);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Shows what is in the files as it changes, for as long as it runs.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let shown = Arc::clone(&self);
            // A file system of the network may hang. A look that has failed is followed by the next.
            let _ = tokio::task::spawn_blocking(move || shown.look()).await;
        }
    }

    /// Looks at the files once. What has changed counts from the second look that finds it alike: one file is replaced after
    /// the other, and a chain may be half written. From then on it is shown; or, where it is no pair, told, once.
    pub fn look(&self) {
        let content = self.files.content();
        let mark = mark(&content);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut seen.last, mark) != mark || seen.settled == mark {
            return;
        }
        seen.settled = mark;
        drop(seen);
        let Files { certificate, .. } = &self.files;
        match self.files.pair(content) {
            Ok(pair) => {
                let ends = pair.end.map_or_else(String::new, |end| end.to_string());
                *self.pair.write().unwrap_or_else(PoisonError::into_inner) = pair;
                tracing::info!(
                    certificate = %certificate.display(),
                    ends,
                    "the certificate has changed and is shown from now on"
                );
            }
            Err(error) => {
                let ends = self.end().map_or_else(String::new, |end| end.to_string());
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    certificate = %certificate.display(),
                    ends,
                    "the certificate or its key has changed and cannot be used: the one before is shown until they are a pair"
                );
            }
        }
    }

    fn pair(&self) -> std::sync::RwLockReadGuard<'_, Pair> {
        // Whole after any panic: it is replaced as one.
        self.pair.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.pair().key))
    }
}

impl Files {
    fn content(&self) -> Content {
        let read = |path: &Path| {
            let mut bytes = Vec::new();
            let read = File::open(path).and_then(|file| {
                // One byte more, to be told from what just fits.
                file.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
                match bytes.len() as u64 {
                    0..=FILE_BYTES => Ok(bytes),
                    _ => Err(io::Error::other("it is larger than any certificate or key")),
                }
            });
            read.map_err(|error| (path.to_owned(), error))
        };
        Ok((read(&self.certificate)?, read(&self.key)?))
    }

    fn pair(&self, content: Content) -> Result<Pair, Error> {
        let unreadable = |(path, source)| Error::Unreadable { path, source };
        let (pem, key) = content.map_err(unreadable)?;
        let wrong = |path: &Path, error: PemError| {
            let source = match error {
                PemError::Io(error) => error,
                other => io::Error::other(other),
            };
            unreadable((path.to_owned(), source))
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.map_err(|error| wrong(&self.certificate, error))?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| wrong(&self.key, error))?;
        let end = chain.first().and_then(|first| End::of(first));
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider());
        Ok(Pair {
            key: Arc::new(key.map_err(Error::Unusable)?),
            pem,
            end,
        })
    }
}

/// Tells contents apart.
fn mark(content: &Content) -> u64 {
    let mut hasher = DefaultHasher::new();
    match content {
        Ok(both) => both.hash(&mut hasher),
        Err((path, error)) => (path, error.to_string()).hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
