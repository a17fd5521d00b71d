//! What servers have said while they were asked in turn, and what of it a person is told in the end.

use stepcast_worker::servers::whole;

use super::servers::distrust_hint;
use crate::failure::{Exit, Failure};

/// What to do where it is not known whether a change was made.
const DOUBT: &str = "it may have been done all the same: look before you ask for it again";

/// The same where it is not there when it was asked once more to remove it.
const GONE: &str =
    "it was asked for more than once, as an answer was lost: the first time may have removed it";

/// What one call has met so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The newest that a server has said, unless it was who leads and that one was asked.
    told: Option<Failure>,
    /// Whom another server has called the leader, and who was asked for that.
    leader: Option<String>,
    /// That this one was silent.
    leader_is_silent: Option<Failure>,
    /// Whether what was asked for may have been done. It stays in doubt until there is an answer.
    in_doubt: bool,
}

impl Heard {
    /// What came of asking this server. `does` says whether it was sent something that changes something.
    pub(super) fn of(&mut self, failure: &Failure, address: &str, does: bool) {
        let silent = is_silent(failure);
        self.in_doubt |= failure.exit == Exit::Unknown || (silent && does);
        if !silent {
            self.told = Some(failure.clone());
        } else if self.leader.as_deref() == Some(address) {
            let silent = failure.clone();
            self.leader_is_silent = Some(silent.detail("another server says that it leads"));
        }
    }

    /// Who is asked next, after this. What the leader makes of it is the news then, and not that another server does not lead.
    pub(super) fn next_is(&mut self, failure: &Failure, address: &str) {
        if let Some(leader) = leader(failure)
            && whole(leader, address) == address
        {
            self.leader = Some(address.to_owned());
            self.told = None;
        }
    }

    /// What a person is told when nothing is asked any more, this being the last that came of it. What a server has said tells
    /// more than that another one is silent. `removes` says whether it was to remove something.
    pub(super) fn in_the_end(self, last: Failure, removes: bool) -> Failure {
        let mut failure = match (self.told, self.leader_is_silent) {
            (Some(mut told), _) if is_silent(&last) => {
                told.details.extend(last.details);
                told.hint = told.hint.or_else(|| distrust_hint(&told.details));
                told
            }
            (None, Some(leader_is_silent)) => leader_is_silent,
            _ => last,
        };
        if self.in_doubt && failure.exit == Exit::Unreachable {
            failure.exit = Exit::Unknown;
            failure.hint.get_or_insert_with(|| DOUBT.to_owned());
        } else if self.in_doubt && removes && failure.exit == Exit::NotFound {
            failure.exit = Exit::Unknown;
            failure.hint = Some(GONE.to_owned());
        }
        failure
    }
}

fn is_silent(failure: &Failure) -> bool {
    failure.exit == Exit::Unreachable && failure.reason.is_empty()
}

/// Who leads, as a server says that does not.
fn leader(failure: &Failure) -> Option<&str> {
    let again = failure.again.as_ref();
    let leader = again.and_then(|again| again.leader.as_deref());
    leader.filter(|_| failure.reason == "NOT_LEADER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_after_a_lost_answer_may_be_what_was_removed() {
        let lost = Failure::new(Exit::Unknown, "the leader changed");
        let nobody = Failure::new(Exit::NotFound, "there is no such user");
        let came = |first: Option<&Failure>, removes| {
            let mut heard = Heard::default();
            for failure in first.into_iter().chain([&nobody]) {
                heard.of(failure, "http://a", true);
            }
            heard.in_the_end(nobody.clone(), removes)
        };
        let doubt = came(Some(&lost), true);
        assert_eq!(doubt.exit, Exit::Unknown);
        assert_eq!(doubt.hint.as_deref(), Some(GONE));
        assert_eq!(came(None, true), nobody);
        assert_eq!(came(Some(&lost), false), nobody);
    }
}
