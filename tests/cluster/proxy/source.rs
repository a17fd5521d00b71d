//! Whose process opened a connection: the kernel's table of sockets, and each known process's open files.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Mutex;

use super::Party;

/// Which process everybody is. Whoever is not here and yet connected is this process.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<BTreeMap<u32, Party>>);

impl Sources {
    pub(super) fn insert(&self, party: Party, pid: u32) {
        let mut known = self.0.lock().unwrap();
        known.retain(|_, other| *other != party);
        known.insert(pid, party);
    }

    /// Who has the end `theirs` of a connection to `ours`; nobody if it is gone.
    pub(super) async fn of(&self, theirs: SocketAddr, ours: SocketAddr) -> Option<Party> {
        let mut known: Vec<(u32, Party)> = {
            let known = self.0.lock().unwrap();
            known.iter().map(|(pid, party)| (*pid, *party)).collect()
        };
        known.push((std::process::id(), Party::People));
        let find = move || {
            let inode = inode(theirs, ours)?;
            let link = format!("socket:[{inode}]");
            known
                .into_iter()
                .find(|(pid, _)| holds(*pid, &link))
                .map(|(_, party)| party)
        };
        tokio::task::spawn_blocking(find).await.unwrap()
    }
}

/// The number of the socket with these two ends.
fn inode(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let (local, remote) = (written(local)?, written(remote)?);
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let both = words.next() == Some(&local) && words.next() == Some(&remote);
        let inode = words.nth(6)?.parse().ok()?;
        (both && inode != 0).then_some(inode)
    })
}

/// An address as the table writes it.
fn written(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let ip = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{ip:08X}:{:04X}", address.port()))
}

fn holds(pid: u32, link: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    files
        .flatten()
        .any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == link))
}
