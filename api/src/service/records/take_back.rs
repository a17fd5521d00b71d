//! What came into the benchmark tables when, and taking back what should not have.

use std::cmp::Reverse;
use std::time::{SystemTime, UNIX_EPOCH};

use stepcast_estimator::{How, Kind, Span, TakenBack, Version};
use stepcast_proto::v1;
use stepcast_scheduler::accounts::{Action, Actor};
use tonic::Status;

use super::Records;
use crate::{convert, status};

/// So many versions are told where nobody says how many.
const VERSIONS: usize = 20;
/// Recipes and hardware are told up to so many: a person looks at a few.
const OF_MAX: usize = 50;

impl Records {
    /// The newest versions of both tables.
    pub(crate) async fn versions(
        &self,
        request: v1::ListVersionsRequest,
    ) -> Result<v1::ListVersionsResponse, Status> {
        let newest = match request.newest {
            0 => VERSIONS,
            newest => newest as usize,
        };
        let mut tables = Vec::new();
        for kind in Kind::ALL {
            let versions = self.0.estimator.versions(kind, newest).await;
            let versions = versions.map_err(|error| status::records(&error))?;
            tables.push(v1::TableVersions {
                name: kind.name().to_owned(),
                versions: versions.into_iter().map(|one| version(kind, one)).collect(),
            });
        }
        Ok(v1::ListVersionsResponse { tables })
    }

    /// Takes back what came with some versions, in somebody's name, or says what that would be.
    pub(crate) async fn take_back(
        &self,
        actor: Option<Actor>,
        request: v1::TakeBackRowsRequest,
    ) -> Result<v1::TakeBackRowsResponse, Status> {
        let spans = match request.since {
            None if request.until.is_some() => {
                let what = "say since when, or leave it out where versions are named";
                return Err(status::bad_field("until", what));
            }
            None => named(&request.ranges)?,
            Some(_) if !request.ranges.is_empty() => {
                return Err(status::bad_field(
                    "since",
                    "versions are named, so there is no time to say",
                ));
            }
            Some(since) => {
                let since = moment("since", since)?;
                let until = request.until.map(|until| moment("until", until));
                self.written(since, until.transpose()?).await?
            }
        };
        let mut told = Vec::new();
        for (kind, span) in spans {
            let tables = &self.0.estimator;
            if !request.dry_run {
                // What is refused, or was taken back before, is not written down.
                let is_left = tables.has_left(kind, span).await;
                if is_left.map_err(|error| status::records(&error))? {
                    let first = span.after.saturating_add(1);
                    let subject = format!("records/{}/{first}-{}", kind.name(), span.to);
                    self.0.note(actor, Action::ChangeRules, &subject).await?;
                }
            }
            let taken = tables.take_back(kind, span, request.dry_run).await;
            let taken = taken.map_err(|error| status::records(&error))?;
            told.push(self::told(kind, taken));
        }
        Ok(v1::TakeBackRowsResponse { tables: told })
    }

    /// What was written in a span of time, of each table into which anything was.
    async fn written(
        &self,
        since: SystemTime,
        until: Option<SystemTime>,
    ) -> Result<Vec<(Kind, Span)>, Status> {
        let mut spans = Vec::new();
        for kind in Kind::ALL {
            let span = self.0.estimator.versions_between(kind, since, until).await;
            let span = span.map_err(|error| status::records(&error))?;
            spans.extend(span.map(|span| (kind, span)));
        }
        Ok(spans)
    }
}

/// The versions that are named.
fn named(ranges: &[v1::VersionRange]) -> Result<Vec<(Kind, Span)>, Status> {
    let mut spans: Vec<(Kind, Span)> = Vec::new();
    for range in ranges {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == range.table);
        let kind =
            kind.ok_or_else(|| status::bad_field("ranges.table", "there is no such table"))?;
        if spans.iter().any(|(other, _)| *other == kind) {
            return Err(status::bad_field(
                "ranges",
                "one range of each table is taken at once",
            ));
        }
        let span = Span {
            after: range.after,
            to: range.to,
        };
        spans.push((kind, span));
    }
    if spans.is_empty() {
        return Err(status::bad_field(
            "ranges",
            "say which versions, or since when",
        ));
    }
    Ok(spans)
}

fn moment(field: &'static str, at: prost_types::Timestamp) -> Result<SystemTime, Status> {
    SystemTime::try_from(at).map_err(|_| status::bad_field(field, "it is no time"))
}

fn range(kind: Kind, span: Span) -> v1::VersionRange {
    v1::VersionRange {
        table: kind.name().to_owned(),
        after: span.after,
        to: span.to,
    }
}

fn version(kind: Kind, version: Version) -> v1::TableVersion {
    let since = version.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut told = v1::TableVersion {
        version: version.number,
        commit_time: Some(convert::timestamp_ms(
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        )),
        rows: version.rows,
        is_taken_back: version.is_taken_back,
        ..v1::TableVersion::default()
    };
    let what = match version.how {
        How::Created => "created",
        How::Stored {
            contributions,
            source,
        } => {
            told.contributions = contributions as u64;
            let what = match source {
                Some(_) => "imported",
                None => "contributed",
            };
            told.source = source.unwrap_or_default();
            what
        }
        How::Moved => "moved",
        How::TakenBack { span, rows } => {
            told.took_back = Some(range(kind, span));
            told.rows_taken_back = rows;
            "taken-back"
        }
        How::Other => "other",
    };
    what.clone_into(&mut told.what);
    told
}

fn told(kind: Kind, taken: TakenBack) -> v1::TakenBack {
    let mut of: Vec<v1::TakenBackOf> = taken
        .of
        .iter()
        .map(|((recipe, hardware), rows)| v1::TakenBackOf {
            recipe: recipe.name().to_owned(),
            hardware: hardware.slug(),
            rows: *rows,
        })
        .collect();
    of.sort_by_key(|of| Reverse(of.rows));
    of.truncate(OF_MAX);
    v1::TakenBack {
        range: Some(range(kind, taken.span)),
        rows: taken.rows,
        rows_before: taken.before,
        rows_missing: taken.missing,
        of,
    }
}
