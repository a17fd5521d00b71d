//! What passes between the leader and an attached worker.

use stepcast_cluster::session::{Assignment, Order, Parting, Phase, Progress, Report, StopReason};
use stepcast_proto::v1;
use stepcast_scheduler::ids::Epoch;
use stepcast_scheduler::model::{FailureReason, Outcome};
use tonic::Status;
use v1::attach_request::Report as Up;
use v1::attach_response::Order as Down;

use super::wishes::trainer;
use super::workload::workload;
use crate::names;
use crate::status::bad_field;

/// Epochs in one renewal: a worker has at most sixteen GPUs, so more are not its own.
const EPOCHS_MAX: usize = 256;

/// Lines in one report; a worker that prints more sends several.
const LINES_MAX: usize = 1_000;

/// An order to the wire.
pub(crate) fn order(order: Order) -> v1::AttachResponse {
    let order = match order {
        Order::Assign(assignment) => Down::Assign(Box::new(self::assignment(&assignment))),
        Order::Stop {
            job: _,
            epoch,
            why,
            grace_ms,
        } => Down::Stop(v1::StopAttempt {
            epoch: epoch.0,
            reason: stop_reason(why).into(),
            grace_ms,
        }),
        Order::Renewed {
            renewal,
            epochs,
            lease_term_ms,
        } => Down::Renewed(v1::Renewed {
            renewal,
            epochs: epochs.into_iter().map(|Epoch(epoch)| epoch).collect(),
            lease_term_ms,
        }),
        Order::Acknowledged { epoch } => Down::Acknowledged(v1::Acknowledged { epoch: epoch.0 }),
        Order::Shutdown(why) => Down::Parting(parting(why).into()),
    };
    v1::AttachResponse { order: Some(order) }
}

/// A report from the wire; `None` for one of a newer worker that this version does not know.
pub(crate) fn report(report: v1::AttachRequest) -> Result<Option<Report>, Status> {
    Ok(Some(match report.report {
        None => return Ok(None),
        Some(Up::Hello(_)) => {
            return Err(bad_field("hello", "a session has one, at its beginning"));
        }
        Some(Up::Renew(renew)) => {
            if renew.epochs.len() > EPOCHS_MAX {
                return Err(bad_field(
                    "renew.epochs",
                    format!("there are at most {EPOCHS_MAX}"),
                ));
            }
            Report::Renew {
                renewal: renew.renewal,
                epochs: renew.epochs.into_iter().map(Epoch).collect(),
            }
        }
        Some(Up::Started(started)) => Report::Started {
            job: names::job("started.job", &started.job)?,
            epoch: Epoch(started.epoch),
            from: started.begun_step,
        },
        Some(Up::Progress(progress)) => Report::Progress {
            epoch: Epoch(progress.epoch),
            progress: read_progress(&progress),
        },
        Some(Up::Checkpointed(checkpoint)) => Report::Checkpointed {
            job: names::job("checkpointed.job", &checkpoint.job)?,
            epoch: Epoch(checkpoint.epoch),
            step: checkpoint.step,
        },
        Some(Up::Ended(ended)) => Report::Ended {
            job: names::job("ended.job", &ended.job)?,
            epoch: Epoch(ended.epoch),
            outcome: match outcome(ended.outcome()) {
                Some(Outcome::Failed(FailureReason::Preempted)) if ended.lease_lost => {
                    Outcome::Failed(FailureReason::LeaseLost)
                }
                Some(Outcome::Failed(FailureReason::Preempted)) if ended.credentials_gone => {
                    Outcome::Failed(FailureReason::CredentialsGone)
                }
                Some(outcome) => outcome,
                None => {
                    let unknown = "this server does not know the outcome";
                    return Err(bad_field("ended.outcome", unknown));
                }
            },
            step: ended.step,
            detail: ended.detail,
        },
        Some(Up::Leaving(_)) => Report::Leaving,
        Some(Up::Log(mut log)) => {
            log.lines.truncate(LINES_MAX);
            Report::LogLines {
                epoch: Epoch(log.epoch),
                lines: log.lines,
            }
        }
    }))
}

/// Lines that a trainer printed.
pub(crate) fn log_lines(epoch: Epoch, lines: impl IntoIterator<Item = String>) -> v1::LogLines {
    v1::LogLines {
        epoch: epoch.0,
        lines: lines.into_iter().collect(),
    }
}

fn assignment(assignment: &Assignment) -> v1::Assignment {
    v1::Assignment {
        job: names::of_job(assignment.job),
        attempt: assignment.attempt.0,
        epoch: assignment.epoch.0,
        gpus: assignment.gpus.iter().map(|gpu| u32::from(*gpu)).collect(),
        trainer: trainer(assignment.spec.trainer).into(),
        workload: Some(workload(&assignment.spec.workload)),
        lease_term_ms: assignment.lease_term_ms,
        max_runtime_ms: assignment.spec.max_runtime_ms,
        resume_step: assignment.resume_step,
        gang: assignment.gang.as_ref().map(|gang| v1::GangPlace {
            rank: gang.rank.into(),
            hosts: gang.hosts.into(),
            main_host: gang.main_host.clone(),
            main_port: gang.main_port.into(),
            resume_step: gang.resume_step,
        }),
    }
}

fn read_progress(progress: &v1::Progress) -> Progress {
    let phase = match progress.phase() {
        v1::Phase::Unspecified | v1::Phase::Starting => Phase::Starting,
        v1::Phase::Caching => Phase::Caching,
        v1::Phase::Loading => Phase::Loading,
        v1::Phase::Training => Phase::Training,
        v1::Phase::Validating => Phase::Validating,
        v1::Phase::Saving => Phase::Saving,
        v1::Phase::Complete => Phase::Complete,
    };
    Progress {
        step: progress.step,
        steps_total: progress.steps_total,
        step_ms: progress.step_ms,
        phase,
    }
}

/// How an attempt ended, as its worker says. That a lease expired is the leader's to say.
fn outcome(outcome: v1::Outcome) -> Option<Outcome> {
    Some(match outcome {
        v1::Outcome::Unspecified => return None,
        v1::Outcome::Succeeded => Outcome::Succeeded,
        v1::Outcome::Cancelled => Outcome::Cancelled,
        v1::Outcome::ConfigInvalid => Outcome::Failed(FailureReason::ConfigInvalid),
        v1::Outcome::OutOfMemory => Outcome::Failed(FailureReason::OutOfMemory),
        v1::Outcome::TrainerError => Outcome::Failed(FailureReason::TrainerError),
        v1::Outcome::Stuck => Outcome::Failed(FailureReason::Stuck),
        v1::Outcome::WorkerRestarted => Outcome::Failed(FailureReason::WorkerRestarted),
        v1::Outcome::MaxRuntime => Outcome::Failed(FailureReason::MaxRuntime),
        v1::Outcome::Preempted => Outcome::Failed(FailureReason::Preempted),
        v1::Outcome::LaunchFailed => Outcome::Failed(FailureReason::LaunchFailed),
        v1::Outcome::StagingMissing => Outcome::Failed(FailureReason::StagingMissing),
        v1::Outcome::BudgetSpent => Outcome::Failed(FailureReason::BudgetSpent),
    })
}

const fn stop_reason(why: StopReason) -> v1::StopReason {
    match why {
        StopReason::Cancelled => v1::StopReason::Cancelled,
        StopReason::Preempted => v1::StopReason::Preempted,
        StopReason::Draining => v1::StopReason::Draining,
        StopReason::MaxRuntime => v1::StopReason::MaxRuntime,
        StopReason::BudgetSpent => v1::StopReason::BudgetSpent,
        StopReason::Revoked => v1::StopReason::Revoked,
        StopReason::LeaseLost => v1::StopReason::LeaseLost,
        StopReason::PartOver => v1::StopReason::PartOver,
    }
}

const fn parting(why: Parting) -> v1::Parting {
    match why {
        Parting::Replaced => v1::Parting::Replaced,
        Parting::NotLeader => v1::Parting::NotLeader,
        Parting::Revoked => v1::Parting::Revoked,
        Parting::TooSlow => v1::Parting::TooSlow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_that_is_not_known_is_no_end() {
        let ended = v1::AttemptEnded {
            job: "jobs/jmnpq".into(),
            outcome: 99,
            ..v1::AttemptEnded::default()
        };
        assert!(
            report(v1::AttachRequest {
                report: Some(Up::Ended(ended))
            })
            .is_err()
        );
    }

    #[test]
    fn lost_leases_and_lost_credentials_are_no_preemptions() {
        let told = |lease_lost, credentials_gone| {
            let ended = v1::AttemptEnded {
                job: "jobs/jmnpq".into(),
                outcome: v1::Outcome::Preempted.into(),
                lease_lost,
                credentials_gone,
                ..v1::AttemptEnded::default()
            };
            let report = Some(Up::Ended(ended));
            match self::report(v1::AttachRequest { report }) {
                Ok(Some(Report::Ended { outcome, .. })) => outcome,
                other => panic!("no end: {other:?}"),
            }
        };
        for (lost, gone, reason) in [
            (true, false, FailureReason::LeaseLost),
            (false, true, FailureReason::CredentialsGone),
            (false, false, FailureReason::Preempted),
        ] {
            assert_eq!(told(lost, gone), Outcome::Failed(reason));
        }
    }

    #[test]
    fn a_second_hello_and_too_many_epochs_are_refused_and_the_unknown_is_not() {
        assert!(
            report(v1::AttachRequest {
                report: Some(Up::Hello(v1::Hello::default()))
            })
            .is_err()
        );
        let renew = v1::Renew {
            renewal: 1,
            epochs: vec![0; EPOCHS_MAX + 1],
        };
        assert!(
            report(v1::AttachRequest {
                report: Some(Up::Renew(renew))
            })
            .is_err()
        );
        assert!(matches!(
            report(v1::AttachRequest { report: None }),
            Ok(None)
        ));
    }
}
