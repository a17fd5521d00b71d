//! What a node proves itself with, as files: the authority's certificate and key, its own key and certificate.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;

use super::authority::{self, Authority, key_hash, new_key, read_key};
use super::tls;
use crate::identity::Identity;

/// The authority's certificate, DER.
const AUTHORITY: &str = "authority.der";
/// The authority's key, PKCS#8 DER.
const AUTHORITY_KEY: &str = "authority.key";
/// The node's certificate, DER.
const NODE: &str = "node.der";
/// The node's key, PKCS#8 DER.
const NODE_KEY: &str = "node.key";

/// Larger than any of them: a larger file is none of them.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why a node has nothing to prove itself with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("the node's {path} cannot be used")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is missing that the cluster cannot do without.
    #[error(
        "the node's {path} is missing: restore the data directory, or wipe this node and let it join under a new id"
    )]
    Missing {
        /// Which file.
        path: String,
    },
    /// The files are not what was written, or not of one node.
    #[error("the files in {path} do not belong together: {why}")]
    Damaged {
        /// Which directory.
        path: String,
        /// What does not fit.
        why: String,
    },
    /// A key or certificate cannot be made.
    #[error(transparent)]
    Authority(#[from] authority::Error),
}

/// A node's keys and certificates, checked against each other.
pub(crate) struct Credentials {
    authority: Authority,
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Credentials {
    /// Reads the data directory's, or makes those of a cluster's founder before it has a log. Later on the others know
    /// the node by them, and every token is signed by what follows from them.
    pub(crate) fn open(data_dir: &Path, identity: &Identity) -> Result<Self, Error> {
        let dir = dir(data_dir);
        let (node, cluster) = (identity.node_id, identity.cluster_id);
        if !dir.exists() {
            if !identity.founded() || identity.has_log() {
                return Err(Error::Missing {
                    path: dir.display().to_string(),
                });
            }
            Self::found(node, cluster)?.write(data_dir)?;
        }
        let authority = Authority::of(
            cluster,
            read(&dir.join(AUTHORITY))?,
            &read(&dir.join(AUTHORITY_KEY))?,
        )
        .map_err(|error| damaged(&dir, &error))?;
        let key = read_key(&read(&dir.join(NODE_KEY))?).map_err(|error| damaged(&dir, &error))?;
        let found = Self {
            authority,
            key,
            certificate: read(&dir.join(NODE))?.into(),
        };
        found.check(node, cluster).map_err(|why| Error::Damaged {
            path: dir.display().to_string(),
            why,
        })?;
        Ok(found)
    }

    /// A founder's: a new authority, and a key and certificate of its own.
    pub(crate) fn found(node_id: u64, cluster_id: u64) -> Result<Self, authority::Error> {
        let authority = Authority::found(cluster_id)?;
        let key = new_key()?;
        let certificate = authority.certify(node_id, &key)?;
        Ok(Self {
            authority,
            key,
            certificate,
        })
    }

    /// Those of a node that was let in.
    pub(crate) fn joined(
        authority: Authority,
        key: KeyPair,
        certificate: CertificateDer<'static>,
    ) -> Self {
        Self {
            authority,
            key,
            certificate,
        }
    }

    /// Writes them all or not at all: into a directory beside, which then takes its name.
    pub(crate) fn write(&self, data_dir: &Path) -> Result<(), Error> {
        let (dir, beside) = (dir(data_dir), joining_dir(data_dir));
        make_dir(&beside)?;
        write(&beside.join(AUTHORITY), self.authority.certificate())?;
        write(&beside.join(AUTHORITY_KEY), self.authority.key())?;
        write(&beside.join(NODE_KEY), self.key.serialized_der())?;
        write(&beside.join(NODE), &self.certificate)?;
        sync_dir(&beside)?;
        if dir.exists() {
            // Of a joining that was cut off after the answer: nobody has started from it yet.
            fs::remove_dir_all(&dir).map_err(|source| io_error(&dir, source))?;
        }
        fs::rename(&beside, &dir).map_err(|source| io_error(&dir, source))?;
        sync_dir(data_dir)
    }

    /// The key with which a new node asks to join: the same at every try, so that it gets the same id.
    pub(crate) fn joining_key(data_dir: &Path) -> Result<KeyPair, Error> {
        let beside = joining_dir(data_dir);
        let path = beside.join(NODE_KEY);
        for found in [&path, &dir(data_dir).join(NODE_KEY)] {
            if found.exists() {
                return read_key(&read(found)?).map_err(|error| damaged(found, &error));
            }
        }
        let key = new_key()?;
        make_dir(&beside)?;
        write(&path, key.serialized_der())?;
        sync_dir(&beside)?;
        sync_dir(data_dir)?;
        Ok(key)
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// PKCS#8, DER. A secret.
    pub(crate) fn key(&self) -> &[u8] {
        self.key.serialized_der()
    }

    /// What [`Member::key`](crate::members::Member::key) holds for this node.
    pub(crate) fn key_hash(&self) -> [u8; 32] {
        key_hash(&self.key.subject_public_key_info())
    }

    /// Whether other nodes will know this one by it; what does not fit otherwise.
    pub(crate) fn check(&self, node_id: u64, cluster_id: u64) -> Result<(), String> {
        tls::is_signed_by(&self.certificate, self.authority.certificate())
            .map_err(|error| format!("the authority has not signed the certificate ({error})"))?;
        if !tls::is_of(&self.certificate, node_id, cluster_id) {
            return Err(format!(
                "the certificate is not of node {node_id} of cluster {cluster_id:016x}"
            ));
        }
        if tls::key_of(&self.certificate).ok() != Some(self.key_hash()) {
            return Err("the certificate is of another key".to_owned());
        }
        Ok(())
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

/// Where a node keeps them.
fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("tls")
}

/// Where they are gathered until they are complete.
fn joining_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("tls.joining")
}

fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| io_error(path, source))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let length = match fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Missing {
                path: path.display().to_string(),
            });
        }
        Err(source) => return Err(io_error(path, source)),
    };
    if length > FILE_BYTES_MAX {
        return Err(damaged(path, &"it is too large"));
    }
    fs::read(path).map_err(|source| io_error(path, source))
}

/// Writes a file that only its owner may read, durably and all or nothing.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let unfinished = path.with_extension("tmp");
    let written = (|| {
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    })();
    written.map_err(|source| io_error(path, source))
}

fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| io_error(path, source))
}

fn damaged(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Damaged {
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io {
        path: path.display().to_string(),
        source,
    }
}
