//! As many connections as files may be open: the soft limit is raised as far as is needed, and what is left leaves room for
//! the log and the tables.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Connections;

/// So many files stay for what is no connection, or where there are few, half of them: the log, the tables, statements, and
/// the ways to stores and other nodes.
const OTHERS: usize = 3_072;

/// Where they are few, one address has no more than one in so many of them.
const ADDRESSES: usize = 4;

/// So many connections as this process has room for.
pub(super) fn room_for(bounds: Connections) -> Connections {
    let wanted = bounds.at_once.saturating_add(OTHERS);
    let wanted_files = u64::try_from(wanted).unwrap_or(u64::MAX);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted_files) {
        let raised = limit
            .maximum
            .map_or(wanted_files, |most| most.min(wanted_files));
        let raised = Rlimit {
            current: Some(raised),
            ..limit
        };
        // Where it may not be raised, it holds as it is.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    let files = getrlimit(Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    });
    let within = within(bounds, files);
    if within != bounds {
        tracing::warn!(
            files,
            connections = within.at_once,
            "few files may be open, so there is room for few connections: raise the hard limit (LimitNOFILE of a unit)"
        );
    }
    within
}

/// The bounds where so many files may be open.
fn within(bounds: Connections, files: usize) -> Connections {
    let room = files.saturating_sub(OTHERS).max(files / 2);
    if bounds.at_once <= room {
        return bounds;
    }
    Connections {
        at_once: room.max(1),
        of_address: bounds.of_address.min(room / ADDRESSES).max(1),
        ..bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_few_files_may_be_open_connections_leave_as_many_to_others() {
        let bounds = Connections::default();
        assert_eq!(within(bounds, usize::MAX), bounds);
        assert_eq!(within(bounds, bounds.at_once + OTHERS), bounds);
        let few = within(bounds, 1_024);
        assert_eq!((few.at_once, few.of_address), (512, 128));
        let of_few = Connections {
            of_address: 100,
            ..bounds
        };
        assert_eq!(within(of_few, 1_024).of_address, 100);
        assert_eq!(within(bounds, 0).of_address, 1);
    }
}
