//! Who an account is, and how that is told from one process to the next.

use std::fmt;
use std::str::FromStr;

/// Whom a process becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// What the account is called.
    pub name: String,
    /// Its number, never that of root.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
    /// All of its groups.
    pub groups: Vec<u32>,
}

impl fmt::Display for Ids {
    /// `NAME:UID:GID:GROUP,GROUP`, as [`step_down`] is told it.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
        write!(
            to,
            "{}:{}:{}:{}",
            self.name,
            self.uid,
            self.gid,
            groups.join(",")
        )
    }
}

impl FromStr for Ids {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|error| format!("`{text}`: {error}"))
        };
        let parts: Vec<&str> = text.split(':').collect();
        let [name, uid, gid, groups] = parts[..] else {
            return Err("an account is NAME:UID:GID:GROUP,GROUP".to_owned());
        };
        let uid = number(uid)?;
        if uid == 0 || uid == u32::MAX {
            return Err("nothing is kept from root".to_owned());
        }
        let groups = groups.split(',').filter(|group| !group.is_empty());
        Ok(Self {
            name: name.to_owned(),
            uid,
            gid: number(gid)?,
            groups: groups.map(number).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_becomes_is_read_as_it_is_said_and_never_root() {
        for groups in [vec![], vec![7], vec![7, 44]] {
            let name = "trainer-1".to_owned();
            let (uid, gid) = (998, 7);
            let ids = Ids {
                name,
                uid,
                gid,
                groups,
            };
            assert_eq!(ids.to_string().parse(), Ok(ids));
        }
        for other in [
            "",
            "a:0:1:",
            "a:-1:1:",
            "a:4294967295:1:",
            "a:1:1",
            "a:1:1:x",
            "a:1:1:1:1",
        ] {
            assert!(other.parse::<Ids>().is_err(), "{other}");
        }
    }
}
