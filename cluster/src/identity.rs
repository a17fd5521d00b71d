//! Who a data directory belongs to: one node of one cluster, written down when the directory is new.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::members::Member;

/// The file's name in the data directory.
const FILE: &str = "node.json";

/// The file's format. Format 1 knew no other nodes.
const FORMAT: u32 = 2;

/// The id of a cluster's founder: who joins begins with it as the only voter, and reads from the log what came after.
pub(crate) const FIRST_NODE: u64 = 1;

/// A node and its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The file's format.
    format: u32,
    /// The node, never 0 and never used again once its data is lost.
    pub node_id: u64,
    /// The cluster, drawn at random by its founder: nodes of different clusters must never talk.
    pub cluster_id: u64,
    /// Who was there when this node joined: whom to talk to until the log says more. Empty for a founder.
    #[serde(default)]
    known: Vec<Known>,
    /// Whether the node has had a log: it must not begin with an empty one again.
    #[serde(default)]
    has_log: bool,
}

/// A node of which a joining one was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    id: u64,
    peer_address: String,
    client_address: String,
    /// SHA-256 of its public key, in hexadecimal digits.
    key: String,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("the data directory's {path} cannot be used")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The identity file is not what was written.
    #[error("the identity file {path} is damaged")]
    Damaged {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A newer program wrote it.
    #[error(
        "the identity file has format {found}, but this version knows {FORMAT}; upgrade this node"
    )]
    UpgradeRequired {
        /// The file's format.
        found: u32,
    },
    /// The directory belongs to another node.
    #[error("the data directory belongs to node {found}, not to node {asked}")]
    OtherNode {
        /// Whose it is.
        found: u64,
        /// Whose it should be.
        asked: u64,
    },
    /// A cluster begins with node 1, and gives every other node its id.
    #[error(
        "a new cluster begins with node {FIRST_NODE}, not with node {0}; other nodes join it and are given their ids"
    )]
    NotFirst(u64),
    /// The log is gone.
    #[error(
        "the log of this node is gone from {path}: what it has acknowledged and voted is not known any more. Put it back; \
         or take the node out of its cluster and let it join with an empty data directory; or restore a backup"
    )]
    NoLog {
        /// Where it was.
        path: String,
    },
    /// There is a log, but nobody knows whose.
    #[error(
        "the data directory has a log but no {FILE}: it was copied in part, or that file was deleted"
    )]
    Orphan,
    /// A node was let in and was stopped before it had written that down.
    #[error(
        "this node has not finished joining its cluster: start it with --join once more (it gets the same id), or empty \
         the data directory to begin a new cluster"
    )]
    HalfJoined,
}

impl Identity {
    /// That of a node without a directory.
    pub(crate) const fn pretend(node_id: u64) -> Self {
        Self {
            format: FORMAT,
            node_id,
            cluster_id: 1,
            known: Vec::new(),
            has_log: true,
        }
    }

    /// Reads the directory's identity, or gives a new directory one.
    pub(crate) fn open(dir: &Path, asked: Option<u64>) -> Result<Self, Error> {
        make_private(dir).map_err(|source| io_error(dir, source))?;
        let path = dir.join(FILE);
        let found = match fs::read(&path) {
            Ok(bytes) => read(&path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return create(dir, &path, asked);
            }
            Err(source) => return Err(io_error(&path, source)),
        };
        match asked {
            Some(asked) if asked != found.node_id => Err(Error::OtherNode {
                found: found.node_id,
                asked,
            }),
            _ => Ok(found),
        }
    }

    /// Whether the directory belongs to some node already.
    pub(crate) fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Writes down that this directory is now this node's, which was let in to a cluster of these others.
    pub(crate) fn join(
        dir: &Path,
        node_id: u64,
        cluster_id: u64,
        others: &[Member],
    ) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let identity = Self {
            format: FORMAT,
            node_id,
            cluster_id,
            known: others.iter().map(Known::from).collect(),
            has_log: false,
        };
        write_synced(dir, &path, &identity).map_err(|source| io_error(&path, source))?;
        Ok(identity)
    }

    /// Refuses to go on without the log that this node has had: it has voted and acknowledged with it.
    pub(crate) fn check_log(&self, dir: &Path) -> Result<(), Error> {
        let log = log_dir(dir);
        let is_there = || fs::read_dir(&log).is_ok_and(|mut files| files.next().is_some());
        if self.has_log && !is_there() {
            return Err(Error::NoLog {
                path: log.display().to_string(),
            });
        }
        Ok(())
    }

    /// Whether the node has had a log: it may have voted, and others may know it.
    pub(crate) const fn has_log(&self) -> bool {
        self.has_log
    }

    /// Takes note that the directory has a log from now on.
    pub(crate) fn note_log(&mut self, dir: &Path) -> Result<(), Error> {
        if self.has_log {
            return Ok(());
        }
        self.has_log = true;
        let path = dir.join(FILE);
        write_synced(dir, &path, self).map_err(|source| io_error(&path, source))
    }

    /// Whether this node began its cluster, rather than joined it.
    pub(crate) fn founded(&self) -> bool {
        self.known.is_empty()
    }

    /// Who was there when this node joined.
    pub(crate) fn known(&self) -> Vec<Member> {
        self.known.iter().map(Member::from).collect()
    }
}

impl From<&Member> for Known {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id,
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            key: member.key.iter().map(|b| format!("{b:02x}")).collect(),
        }
    }
}

impl From<&Known> for Member {
    fn from(known: &Known) -> Self {
        let mut key = [0; 32];
        for (byte, digits) in key.iter_mut().zip(known.key.as_bytes().chunks(2)) {
            // A key that is damaged is nobody's: that node is not talked to until the log says its key.
            *byte = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .unwrap_or(0);
        }
        Self {
            id: known.id,
            peer_address: known.peer_address.clone(),
            client_address: known.client_address.clone(),
            key,
        }
    }
}

/// Whether a data directory belongs to a node of some cluster.
#[must_use]
pub fn is_node(dir: &Path) -> bool {
    Identity::exists(dir)
}

/// Where a node keeps its log.
pub(crate) fn log_dir(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Where a node keeps its snapshots.
pub(crate) fn snapshot_dir(dir: &Path) -> PathBuf {
    dir.join("snapshots")
}

fn read(path: &Path, bytes: &[u8]) -> Result<Identity, Error> {
    let damaged = |source| Error::Damaged {
        path: path.display().to_string(),
        source,
    };
    let identity: Identity = serde_json::from_slice(bytes).map_err(damaged)?;
    if !(1..=FORMAT).contains(&identity.format) {
        return Err(Error::UpgradeRequired {
            found: identity.format,
        });
    }
    Ok(identity)
}

/// Makes the folder if it is missing, and closes it to everybody but its owner: log and snapshots hold people's names.
fn make_private(dir: &Path) -> io::Result<()> {
    disk::make_folder(dir)?;
    let closed = fs::Permissions::from_mode(0o700);
    if fs::metadata(dir)?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    // A file system that knows no permissions may refuse, and is no reason to stop.
    if let Err(error) = fs::set_permissions(dir, closed) {
        tracing::warn!(dir = %dir.display(), %error, "others than its owner may read the node's folder");
    }
    Ok(())
}

fn create(dir: &Path, path: &Path, asked: Option<u64>) -> Result<Identity, Error> {
    if log_dir(dir).exists() {
        return Err(Error::Orphan);
    }
    if dir.join("tls").exists() || dir.join("tls.joining").exists() {
        return Err(Error::HalfJoined);
    }
    if let Some(other) = asked.filter(|asked| *asked != FIRST_NODE) {
        return Err(Error::NotFirst(other));
    }
    let cluster_id = random().map_err(|source| io_error(Path::new("/dev/urandom"), source))?;
    let identity = Identity {
        format: FORMAT,
        node_id: FIRST_NODE,
        cluster_id,
        known: Vec::new(),
        has_log: false,
    };
    write_synced(dir, path, &identity).map_err(|source| io_error(path, source))?;
    Ok(identity)
}

fn write_synced(dir: &Path, path: &Path, identity: &Identity) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(serde_json::to_string_pretty(identity)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(dir)?.sync_all()
}

/// Random, and never 0.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes).max(1))
}

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_identity() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep").join("data");
        let first = Identity::open(&data, None).unwrap();
        assert_eq!((first.node_id, first.cluster_id != 0), (1, true));
        assert_eq!(Identity::open(&data, Some(1)).unwrap(), first);
        assert!(matches!(
            Identity::open(&data, Some(2)),
            Err(Error::OtherNode { found: 1, asked: 2 })
        ));
        for other in [0, 2] {
            let founded = Identity::open(&dir.path().join("other"), Some(other));
            assert!(matches!(founded, Err(Error::NotFirst(_))), "{founded:?}");
        }
    }

    /// Also one that an older version has made.
    #[test]
    fn only_its_owner_reads_a_node_s_folder() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mode = || fs::metadata(&data).unwrap().permissions().mode() & 0o777;
        Identity::open(&data, None).unwrap();
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        Identity::open(&data, None).unwrap();
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn a_log_without_identity_a_damaged_one_and_a_newer_one_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(log_dir(dir.path())).unwrap();
        assert!(matches!(
            Identity::open(dir.path(), None),
            Err(Error::Orphan)
        ));
        fs::write(dir.path().join(FILE), "{}").unwrap();
        assert!(matches!(
            Identity::open(dir.path(), None),
            Err(Error::Damaged { .. })
        ));
        fs::write(
            dir.path().join(FILE),
            r#"{"format":3,"node_id":1,"cluster_id":5}"#,
        )
        .unwrap();
        assert!(matches!(
            Identity::open(dir.path(), None),
            Err(Error::UpgradeRequired { found: 3 })
        ));
    }

    #[test]
    fn the_format_before_is_read_as_a_founder_s() {
        let dir = tempfile::tempdir().unwrap();
        let old = r#"{"format":1,"node_id":1,"cluster_id":5}"#;
        fs::write(dir.path().join(FILE), old).unwrap();
        let found = Identity::open(dir.path(), None).unwrap();
        assert_eq!((found.node_id, found.cluster_id), (1, 5));
        assert!(found.founded());
    }

    #[test]
    fn a_node_that_joined_remembers_whom_it_met() {
        let dir = tempfile::tempdir().unwrap();
        let met = Member {
            id: 1,
            peer_address: "a:7071".into(),
            client_address: "http://a:7070".into(),
            key: std::array::from_fn(|n| n as u8 * 8),
        };
        let joined = Identity::join(dir.path(), 4, 5, std::slice::from_ref(&met)).unwrap();
        assert!(Identity::exists(dir.path()) && !joined.founded());
        let found = Identity::open(dir.path(), None).unwrap();
        assert_eq!((found.known(), &found), (vec![met], &joined));
    }

    #[test]
    fn a_half_joined_directory_founds_no_cluster() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tls.joining")).unwrap();
        assert!(matches!(
            Identity::open(dir.path(), None),
            Err(Error::HalfJoined)
        ));
    }
}
