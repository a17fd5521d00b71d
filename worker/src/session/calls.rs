//! The calls beside the stream: a job's files, and samples handed over.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use stepcast_proto::v1;
use stepcast_records::{Key, Sample};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use zeroize::Zeroizing;

use super::ANSWER;
use super::backoff::Backoff;
use super::refusal::Trouble;
use super::servers::Servers;
use crate::agent::{Epoch, Failure};
use crate::host::{Refused, Standing, Wire};
use crate::order::{Assignment, Credential, FileRole, Handed, JobFile};
use crate::state_dir::Contribution;

/// Files of one job at most: a configuration names three others.
const MAX_FILES: usize = 16;

/// For how long a server that cannot hand a job's files over is asked again. The GPUs wait meanwhile and are paid for.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long a job's files are waited for: longer than the server waits for the object store that they lie in (20 s), so that
/// they come from a slow one, and where they do not the server says why.
const FILES_ANSWER: Duration = Duration::from_secs(25);

/// What the library says when a call's own deadline ends it.
const DEADLINE_WORDS: &str = "Timeout expired";

impl Wire for std::sync::Arc<Servers> {
    /// Asks again until there is an answer. Where no server is there the attempt's lease ends the waiting, and where one is and
    /// does not hand them over, [`PATIENCE`].
    fn files<'a>(
        &'a self,
        assignment: &'a Assignment,
    ) -> BoxFuture<'a, Result<Handed, (Failure, String)>> {
        async move {
            let mut backoff = Backoff::default();
            let mut unfit = Unfit::default();
            loop {
                let mut request = tonic::Request::new(v1::GetAssignmentFilesRequest {
                    job: super::wire::job_name(&assignment.job),
                    epoch: assignment.epoch,
                });
                request.set_timeout(FILES_ANSWER);
                match self.client().get_assignment_files(request).await {
                    Ok(answer) => return handed(answer.into_inner()),
                    Err(status) => {
                        let failure = final_answer(&status)
                            .or_else(|| unfit.too_long(&status, Instant::now()));
                        if let Some(failure) = failure {
                            return Err((
                                failure,
                                format!("the job's files cannot be had: {}", status.message()),
                            ));
                        }
                        tracing::debug!(%status, "the job's files are asked for again");
                    }
                }
                tokio::time::sleep(backoff.next()).await;
            }
        }
        .boxed()
    }

    /// By asking for the files: of a job that is over there are none, and others are refused to whom they are not for. All hosts
    /// of an attempt may have them until the last one is done.
    fn stands<'a>(&'a self, job: &'a str, epoch: Epoch) -> BoxFuture<'a, Result<Standing, String>> {
        async move {
            let mut request = tonic::Request::new(v1::GetAssignmentFilesRequest {
                job: super::wire::job_name(job),
                epoch,
            });
            request.set_timeout(ANSWER);
            match self.client().get_assignment_files(request).await {
                Ok(answer) => {
                    // As credentials they are overwritten.
                    drop(handed(answer.into_inner()));
                    Ok(Standing::Live)
                }
                Err(status) => said(&status).ok_or_else(|| status.to_string()),
            }
        }
        .boxed()
    }

    fn contribute<'a>(
        &'a self,
        contribution: &'a Contribution,
    ) -> BoxFuture<'a, Result<(), Refused>> {
        async move {
            let id = crate::random::unhex(&contribution.id)
                .ok_or_else(|| Refused::Never("its id is no id".to_owned()))?;
            let samples = contribution.samples.iter().map(sample).collect();
            let mut request = tonic::Request::new(v1::ContributeSamplesRequest { id, samples });
            request.set_timeout(ANSWER);
            match self.client().contribute_samples(request).await {
                Ok(_kept) => Ok(()),
                Err(status)
                    if matches!(status.code(), Code::InvalidArgument | Code::OutOfRange) =>
                {
                    Err(Refused::Never(status.message().to_owned()))
                }
                Err(status) => Err(Refused::Later(status.to_string())),
            }
        }
        .boxed()
    }
}

/// Since when a server that is there does not hand a job's files over, without a break.
#[derive(Debug, Default)]
struct Unfit {
    since: Option<Instant>,
}

impl Unfit {
    /// What the attempt ends with once that was so for too long. One that is not there, or sends elsewhere, says nothing of the
    /// files; of one that takes the question and is silent the leases are renewed, or the waiting has ended.
    fn too_long(&mut self, status: &Status, now: Instant) -> Option<Failure> {
        let is_elsewhere = matches!(Trouble::from(status.clone()), Trouble::Leader(_));
        let is_away = status.get_details_error_info().is_none() && !is_late(status);
        if is_elsewhere || is_away {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert_with(|| {
            tracing::warn!(%status, "the server does not hand a job's files over; it is asked again");
            now
        });
        (now.duration_since(since) >= PATIENCE).then_some(Failure::LaunchFailed)
    }
}

/// Whether the answer to a question did not come in time.
fn is_late(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded || status.message() == DEADLINE_WORDS
}

/// What a refusal of the files means for the attempt, unless it only means to ask again.
fn final_answer(status: &Status) -> Option<Failure> {
    match (Trouble::from(status.clone()), status.code()) {
        (Trouble::Leader(_), _) => None,
        (_, Code::NotFound) => Some(Failure::StagingMissing),
        (_, Code::FailedPrecondition) if refused_for(status, "CREDENTIALS_GONE") => {
            Some(Failure::CredentialsGone)
        }
        (
            _,
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented,
        ) => Some(Failure::LaunchFailed),
        _ => None,
    }
}

/// Whether the server names this as the reason of a refusal.
fn refused_for(status: &Status, reason: &str) -> bool {
    status
        .get_details_error_info()
        .is_some_and(|info| info.reason == reason)
}

/// How an attempt stands, as a refusal of its files says; nothing where it says something else.
fn said(status: &Status) -> Option<Standing> {
    let reason = status.get_details_error_info()?.reason;
    match (status.code(), reason.as_str()) {
        (Code::NotFound, "NO_SUCH_JOB") => Some(Standing::JobOver),
        (Code::FailedPrecondition, "STALE_EPOCH") => Some(Standing::AttemptOver),
        // Only who may have them is told so.
        (Code::NotFound, "STAGING_MISSING") => Some(Standing::Live),
        _ => None,
    }
}

fn handed(answer: v1::GetAssignmentFilesResponse) -> Result<Handed, (Failure, String)> {
    // Moved, not copied: the value that is overwritten in the end is the one that came.
    let credentials = answer.credentials.into_iter().map(|one| Credential {
        name: one.name,
        value: Zeroizing::new(one.value),
    });
    let credentials = credentials.collect();
    let files = answer.files;
    if files.len() > MAX_FILES {
        return Err((
            Failure::LaunchFailed,
            format!("the server sends more than {MAX_FILES} files"),
        ));
    }
    let files = files.into_iter().filter_map(|file| {
        let role = match file.role() {
            v1::FileRole::Config => FileRole::Config,
            v1::FileRole::DataLoader => FileRole::DataLoader,
            v1::FileRole::Lycoris => FileRole::Lycoris,
            v1::FileRole::Prompts => FileRole::Prompts,
            // A newer server's role: what this version cannot use it does not need.
            v1::FileRole::Unspecified => return None,
        };
        Some(JobFile {
            role,
            name: file.name,
            bytes: file.content,
        })
    });
    Ok(Handed {
        files: files.collect(),
        credentials,
    })
}

fn sample(sample: &Sample) -> v1::Sample {
    let key = match &sample.key {
        Key::Training(key) => v1::sample::Key::Training(v1::TrainingKey {
            recipe: key.recipe.name().to_owned(),
            hardware: key.hardware.slug(),
            half_megapixels: key.resolution.get().into(),
            batch_size: key.batch_size.get().into(),
            gradient_accumulation_steps: key.accumulation.get().into(),
            precision: key.precision.name().to_owned(),
            quantization: key.quantization.name().to_owned(),
        }),
        Key::Validation(key) => v1::sample::Key::Validation(v1::ValidationKey {
            recipe: key.recipe.name().to_owned(),
            hardware: key.hardware.slug(),
            half_megapixels: key.resolution.get().into(),
            inference_steps: key.inference_steps.get().into(),
            precision: key.precision.name().to_owned(),
            quantization: key.quantization.name().to_owned(),
        }),
    };
    v1::Sample {
        key: Some(key),
        histogram_v2: sample.histogram.to_v2_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, "stepcast", HashMap::new());
        Status::with_error_details(code, "refused", details)
    }

    #[test]
    fn credentials_that_are_gone_are_no_failure_of_the_host() {
        let means = |code, reason| final_answer(&status(code, reason));
        let refused = Code::FailedPrecondition;
        assert_eq!(
            means(refused, "CREDENTIALS_GONE"),
            Some(Failure::CredentialsGone)
        );
        assert_eq!(means(refused, "STALE_EPOCH"), Some(Failure::LaunchFailed));
        assert_eq!(means(Code::Unavailable, "BUSY"), None);
    }

    #[test]
    fn only_what_the_leader_calls_over_is_over() {
        let refused = |code: Code, reason: &str| said(&status(code, reason));
        for (code, reason, standing) in [
            (Code::NotFound, "NO_SUCH_JOB", Standing::JobOver),
            (
                Code::FailedPrecondition,
                "STALE_EPOCH",
                Standing::AttemptOver,
            ),
            (Code::NotFound, "STAGING_MISSING", Standing::Live),
        ] {
            assert_eq!(refused(code, reason), Some(standing));
        }
        assert_eq!(refused(Code::NotFound, "NO_SUCH_WORKER"), None);
        assert_eq!(refused(Code::Unavailable, "NOT_LEADER"), None);
        assert_eq!(said(&Status::not_found("a proxy says so")), None);
    }

    #[test]
    fn a_server_that_cannot_hand_files_over_is_not_asked_for_ever() {
        let refused = |code: Code, reason: &str| {
            let details = ErrorDetails::with_error_info(reason, "stepcast", HashMap::new());
            Status::with_error_details(code, "refused", details)
        };
        let unusable = refused(Code::Internal, "STAGING_UNUSABLE");
        let begun = Instant::now();
        let mut unfit = Unfit::default();
        // A store that is waited for for longer than the worker waits.
        let silent = [
            Status::deadline_exceeded(""),
            Status::cancelled(DEADLINE_WORDS),
        ];
        for cannot in [&unusable, &silent[0], &silent[1]] {
            let mut unfit = Unfit::default();
            assert_eq!(unfit.too_long(cannot, begun), None);
            let nearly = begun + PATIENCE - Duration::from_secs(1);
            assert_eq!(unfit.too_long(&unusable, nearly), None);
            let over = unfit.too_long(cannot, begun + PATIENCE);
            assert_eq!(over, Some(Failure::LaunchFailed));
        }
        // Whether the next leader can is not known yet.
        for away in [
            Status::unavailable("no connection"),
            refused(Code::FailedPrecondition, "NOT_LEADER"),
        ] {
            assert_eq!(unfit.too_long(&away, begun + PATIENCE * 2), None);
            assert_eq!(unfit.too_long(&unusable, begun + PATIENCE * 2), None);
        }
    }
}
