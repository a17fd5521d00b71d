//! What this host knows of an account.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{User, geteuid, getgrouplist};

use super::{Account, Error, Ids};

/// The account of this name.
///
/// # Errors
/// When there is none, or it would keep nothing from a trainer.
pub(super) fn account(name: &str) -> Result<Account, Error> {
    let fails = |why: String| Error::LookUp {
        name: name.to_owned(),
        why,
    };
    let found = User::from_name(name).map_err(|error| fails(error.to_string()))?;
    let user = found.ok_or_else(|| Error::Unknown(name.to_owned()))?;
    if user.uid.is_root() {
        return Err(Error::Root(name.to_owned()));
    }
    if user.uid == geteuid() {
        return Err(Error::Own(name.to_owned()));
    }
    let as_c = CString::new(user.name.clone()).map_err(|error| fails(error.to_string()))?;
    let groups = getgrouplist(&as_c, user.gid).map_err(|error| fails(error.to_string()))?;
    let uid = user.uid.as_raw();
    // Accounts of a system's own often name `/`, or a folder that nobody has made.
    let is_own = user
        .dir
        .metadata()
        .is_ok_and(|data| data.is_dir() && data.uid() == uid);
    Ok(Account {
        ids: Ids {
            name: user.name,
            uid,
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        },
        home: is_own.then_some(user.dir),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_that_keep_nothing_are_refused() {
        assert!(matches!(account("root"), Err(Error::Root(name)) if name == "root"));
        let unknown = account("no-such-account-here");
        assert!(matches!(unknown, Err(Error::Unknown(name)) if name == "no-such-account-here"));
    }
}
