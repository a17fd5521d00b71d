//! Between the wire's words and the worker's own: orders that come in, reports that go out.

use stepcast_proto::v1;
use v1::attach_request::Report as Up;
use v1::attach_response::Order as Down;

use super::workload;
use crate::agent::{Epoch, Failure, Outcome, Phase, Progress, Why};
use crate::capture::cut;
use crate::order::{Assignment, Ended, Gang, Order, Report, TrainerKind, is_job_id};

/// Longest lease or grace that is believed, in milliseconds: a day. More is a server's mistake, and time is added to it.
const MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// Longest running time that is believed, in milliseconds: a hundred years.
const MAX_RUNTIME_MS: u64 = 100 * 365 * 24 * 60 * 60 * 1000;

/// Devices in one assignment at most: placements are of up to eight.
const MAX_DEVICES: usize = 64;

/// Hosts of one job at most: the server has sixteen.
const MAX_HOSTS: u8 = 16;

/// Bytes of a failure's detail that go up: the verdict and the trainer's last words.
const DETAIL_BYTES: usize = 16 * 1024;

/// What the server said.
pub(super) enum Said {
    /// An order for the loop.
    Order(Order),
    /// The session ends.
    Parting(v1::Parting),
    /// An assignment that this version cannot run, and what is reported of it.
    Unusable(Ended),
    /// Nothing that this version knows.
    Unknown,
}

/// The job's name on the wire.
pub(super) fn job_name(id: &str) -> String {
    format!("jobs/{id}")
}

pub(super) fn hello(hello: v1::Hello) -> v1::AttachRequest {
    v1::AttachRequest {
        report: Some(Up::Hello(hello)),
    }
}

pub(super) fn said(response: v1::AttachResponse) -> Said {
    let order = match response.order {
        Some(Down::Assign(assignment)) => {
            let (epoch, job) = (assignment.epoch, assignment.job.clone());
            return match self::assignment(*assignment) {
                Ok(assignment) => Said::Order(Order::Assign(Box::new(assignment))),
                Err(why) => Said::Unusable(unusable(epoch, &job, &why)),
            };
        }
        Some(Down::Stop(stop)) => {
            let why = self::why(stop.reason());
            Order::Stop {
                epoch: stop.epoch,
                why,
                grace_ms: stop.grace_ms.min(MAX_MS),
            }
        }
        Some(Down::Renewed(v1::Renewed {
            renewal,
            epochs,
            lease_term_ms,
        })) => Order::Renewed {
            renewal,
            epochs,
            term_ms: lease_term_ms.min(MAX_MS),
        },
        Some(Down::Acknowledged(v1::Acknowledged { epoch })) => Order::Acknowledged(epoch),
        Some(Down::Drain(v1::Drain { grace_ms })) => Order::Drain {
            grace_ms: grace_ms.min(MAX_MS),
        },
        Some(Down::Parting(parting)) => {
            return Said::Parting(v1::Parting::try_from(parting).unwrap_or_default());
        }
        None => return Said::Unknown,
    };
    Said::Order(order)
}

pub(super) fn report(report: Report) -> v1::AttachRequest {
    let report = match report {
        Report::Renew { renewal, epochs } => Up::Renew(v1::Renew { renewal, epochs }),
        Report::Started { epoch, job, from } => Up::Started(v1::AttemptStarted {
            job: job_name(&job),
            epoch,
            begun_step: Some(from),
        }),
        Report::Progress(epoch, progress) => Up::Progress(self::progress(epoch, progress)),
        Report::Checkpointed { epoch, job, step } => Up::Checkpointed(v1::AttemptCheckpointed {
            job: job_name(&job),
            epoch,
            step,
        }),
        Report::Ended(ended) => Up::Ended(self::ended(ended)),
        Report::Leaving => Up::Leaving(v1::Leaving {}),
        Report::Logs(epoch, lines) => Up::Log(v1::LogLines { epoch, lines }),
    };
    v1::AttachRequest {
        report: Some(report),
    }
}

fn assignment(assignment: v1::Assignment) -> Result<Assignment, String> {
    let trainer = match assignment.trainer() {
        v1::Trainer::Unspecified | v1::Trainer::Simpletuner => TrainerKind::SimpleTuner,
        v1::Trainer::Replay => TrainerKind::Replay,
    };
    let devices: Result<Vec<u8>, _> = assignment
        .gpus
        .iter()
        .map(|position| u8::try_from(*position))
        .collect();
    let mut devices = devices.map_err(|_large| "a device has an impossible number".to_owned())?;
    devices.sort_unstable();
    devices.dedup();
    if devices.is_empty() || devices.len() != assignment.gpus.len() || devices.len() > MAX_DEVICES {
        return Err("the devices are none, too many, or named twice".to_owned());
    }
    let workload = assignment
        .workload
        .ok_or_else(|| "it says nothing of its work".to_owned())?;
    Ok(Assignment {
        epoch: assignment.epoch,
        job: job_id(&assignment.job)
            .ok_or_else(|| "its job has an impossible name".to_owned())?
            .to_owned(),
        devices,
        trainer,
        workload: workload::read(workload).map_err(|error| error.to_string())?,
        lease_term_ms: assignment.lease_term_ms.min(MAX_MS),
        max_runtime_ms: assignment
            .max_runtime_ms
            .map(|limit| limit.min(MAX_RUNTIME_MS)),
        resume_step: assignment.resume_step,
        gang: assignment.gang.map(gang).transpose()?,
    })
}

/// The place among several hosts. The address becomes a word of a command line, so it is looked at closely.
fn gang(gang: v1::GangPlace) -> Result<Gang, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let is_host = (1..=64).contains(&gang.main_host.len())
        && !gang.main_host.starts_with('-')
        && gang.main_host.bytes().all(plain);
    let place = || {
        Some(Gang {
            rank: u8::try_from(gang.rank).ok()?,
            hosts: u8::try_from(gang.hosts).ok()?,
            main_host: gang.main_host.clone(),
            main_port: u16::try_from(gang.main_port)
                .ok()
                .filter(|port| *port > 0)?,
            resume_step: gang.resume_step,
        })
    };
    let known = |place: &Gang| (2..=MAX_HOSTS).contains(&place.hosts) && place.rank < place.hosts;
    place()
        .filter(|place| is_host && known(place))
        .ok_or_else(|| "its place among several hosts is impossible".to_owned())
}

/// The id in `jobs/{job}`.
fn job_id(name: &str) -> Option<&str> {
    name.strip_prefix("jobs/").filter(|id| is_job_id(id))
}

fn unusable(epoch: Epoch, job: &str, why: &str) -> Ended {
    Ended {
        epoch,
        job: job.strip_prefix("jobs/").unwrap_or(job).to_owned(),
        outcome: Outcome::Failed(Failure::LaunchFailed),
        detail: format!(
            "this worker cannot read the assignment ({why}); is it older than the server?"
        ),
        step: 0,
    }
}

fn why(reason: v1::StopReason) -> Why {
    match reason {
        v1::StopReason::Cancelled => Why::Cancelled,
        v1::StopReason::Unspecified | v1::StopReason::Preempted => Why::Preempted,
        v1::StopReason::Draining => Why::Draining,
        v1::StopReason::MaxRuntime => Why::MaxRuntime,
        v1::StopReason::BudgetSpent => Why::BudgetSpent,
        // Whoever may no longer take part holds no lease.
        v1::StopReason::LeaseLost | v1::StopReason::Revoked => Why::LeaseLost,
        v1::StopReason::PartOver => Why::PartOver,
    }
}

fn progress(epoch: Epoch, progress: Progress) -> v1::Progress {
    let phase = match progress.phase {
        Phase::Starting => v1::Phase::Starting,
        Phase::Caching => v1::Phase::Caching,
        Phase::Loading => v1::Phase::Loading,
        Phase::Training => v1::Phase::Training,
        Phase::Validating => v1::Phase::Validating,
        Phase::Saving => v1::Phase::Saving,
        Phase::Complete => v1::Phase::Complete,
    };
    let Progress {
        step,
        total,
        step_ms,
        ..
    } = progress;
    v1::Progress {
        epoch,
        step,
        steps_total: total,
        step_ms,
        phase: phase.into(),
        remaining_time: None,
    }
}

fn ended(mut ended: Ended) -> v1::AttemptEnded {
    cut(&mut ended.detail, DETAIL_BYTES);
    v1::AttemptEnded {
        job: job_name(&ended.job),
        epoch: ended.epoch,
        outcome: outcome(ended.outcome).into(),
        step: ended.step,
        detail: ended.detail,
        lease_lost: ended.outcome == Outcome::LeaseExpired,
        credentials_gone: ended.outcome == Outcome::Failed(Failure::CredentialsGone),
    }
}

fn outcome(outcome: Outcome) -> v1::Outcome {
    match outcome {
        Outcome::Succeeded => v1::Outcome::Succeeded,
        Outcome::Cancelled => v1::Outcome::Cancelled,
        // The wire leaves it to the leader to say that a lease has run out. If it has not there, the job has merely lost
        // its place, and may have another at once; a field of its own says why.
        Outcome::LeaseExpired => v1::Outcome::Preempted,
        Outcome::Failed(failure) => match failure {
            Failure::ConfigInvalid => v1::Outcome::ConfigInvalid,
            Failure::OutOfMemory => v1::Outcome::OutOfMemory,
            Failure::TrainerError => v1::Outcome::TrainerError,
            Failure::Stuck => v1::Outcome::Stuck,
            Failure::WorkerRestarted => v1::Outcome::WorkerRestarted,
            Failure::MaxRuntime => v1::Outcome::MaxRuntime,
            Failure::BudgetSpent => v1::Outcome::BudgetSpent,
            // What has lost its place through no fault of its own, to servers that do not know the field that says why.
            Failure::Preempted | Failure::CredentialsGone => v1::Outcome::Preempted,
            Failure::LaunchFailed => v1::Outcome::LaunchFailed,
            Failure::StagingMissing => v1::Outcome::StagingMissing,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_s_name_cannot_leave_the_outputs_folder() {
        assert_eq!(job_id("jobs/jbcdf2"), Some("jbcdf2"));
        for name in [
            "jbcdf2", "jobs/", "jobs/..", "jobs/a/b", "jobs/A", "jobs/a.b",
        ] {
            assert_eq!(job_id(name), None, "{name}");
        }
        assert_eq!(job_id(&format!("jobs/{}", "a".repeat(65))), None);
    }

    #[test]
    fn why_an_attempt_has_lost_its_place_is_said_beside_the_outcome() {
        let told = |outcome| {
            let told = ended(Ended {
                job: "jb".to_owned(),
                epoch: 7,
                outcome,
                step: 0,
                detail: String::new(),
            });
            (told.outcome(), told.lease_lost, told.credentials_gone)
        };
        let preempted = v1::Outcome::Preempted;
        for (outcome, said) in [
            (Outcome::LeaseExpired, (preempted, true, false)),
            (
                Outcome::Failed(Failure::CredentialsGone),
                (preempted, false, true),
            ),
            (
                Outcome::Failed(Failure::Preempted),
                (preempted, false, false),
            ),
        ] {
            assert_eq!(told(outcome), said);
        }
    }

    #[test]
    fn an_assignment_that_cannot_be_read_is_refused_with_its_epoch() {
        let assignment = v1::Assignment {
            job: "jobs/jb".to_owned(),
            epoch: 7,
            gpus: vec![0],
            ..Default::default()
        };
        let response = v1::AttachResponse {
            order: Some(Down::Assign(Box::new(assignment))),
        };
        let Said::Unusable(ended) = said(response) else {
            panic!("it was not refused")
        };
        assert_eq!((ended.epoch, ended.job.as_str()), (7, "jb"));
        assert_eq!(ended.outcome, Outcome::Failed(Failure::LaunchFailed));
        assert!(
            ended.detail.contains("nothing of its work"),
            "{}",
            ended.detail
        );
    }

    #[test]
    fn a_place_among_several_hosts_is_looked_at_closely() {
        let place = |rank, hosts, main_host: &str, main_port| {
            let main_host = main_host.to_owned();
            super::gang(v1::GangPlace {
                rank,
                hosts,
                main_host,
                main_port,
                resume_step: 0,
            })
        };
        assert!(place(1, 2, "10.0.0.5", 29_501).is_ok_and(|gang| gang.rank == 1));
        for (rank, hosts, host, port) in [
            (2, 2, "10.0.0.5", 29_501),
            (0, 1, "10.0.0.5", 29_501),
            (0, 17, "10.0.0.5", 29_501),
            (0, 2, "--help", 29_501),
            (0, 2, "a b", 29_501),
            (0, 2, "", 29_501),
            (0, 2, "a", 0),
            (0, 2, "a", 70_000),
        ] {
            assert!(place(rank, hosts, host, port).is_err(), "{host} {rank}");
        }
    }

    #[test]
    fn times_from_the_server_are_bounded() {
        let stop = v1::StopAttempt {
            epoch: 1,
            reason: 0,
            grace_ms: u64::MAX,
        };
        let Said::Order(Order::Stop { why, grace_ms, .. }) = said(v1::AttachResponse {
            order: Some(Down::Stop(stop)),
        }) else {
            panic!("no stop")
        };
        assert_eq!((why, grace_ms), (Why::Preempted, MAX_MS));
    }
}
