//! The shape of one data set: its resolution, frames, batch and size.

use super::entry::Entry;
use super::family;
use super::findings::Findings;
use super::frames;
use super::json::Value;
use super::loader::{Context, Kind, Loader};
use super::model;
use super::note::Note;
use super::off_record::OffRecord;
use super::pixels::{self, Unreadable};
use super::preparation::Preparation;
use super::problem::shown;
use super::sharing::HeldOut;
use super::vocabulary;
use super::workload::{Dataset, Workload};
use crate::recipe::{FrameClass, Recipe};
use crate::resolution::HalfMegapixels;

/// Clips of a video data set that does not say its frames: five seconds.
const DEFAULT_SECONDS: u64 = 5;

impl Context<'_> {
    /// The data set of an entry that is trained on, with its resolution as a screen says it; `None` with a problem
    /// found.
    pub(super) fn dataset(
        &self,
        entry: &Entry<'_>,
        id: &str,
        kind: Kind,
        loader: &mut Loader,
        found: &mut Findings,
    ) -> Option<(Dataset, String)> {
        let position = loader.datasets.len() + 1;
        let repeats = repeats(entry, found);
        let batch_size = self.batch_size(entry, found);
        let resolution = match kind {
            Kind::Audio => Some((HalfMegapixels::MIN, String::new())),
            _ => self.resolution(entry, position, found),
        };
        let frames = match (kind, self.recipe) {
            (Kind::Video, Some(recipe)) if recipe.is_video() => {
                self.frames(recipe, entry, position, found)
            }
            _ => FrameClass::Single,
        };
        self.effects(entry, position, found);
        let (samples, is_maximum) = self.samples(entry, id, found);
        if is_maximum {
            loader.sizes_from_maximum.push(position);
        }
        let padded = repeats == 0
            && self
                .settings
                .flag("allow_dataset_oversubscription", false, found);
        let (resolution, said) = resolution?;
        let batch_size = batch_size?;
        Some((
            Dataset {
                resolution,
                frames,
                batch_size,
                samples,
                repeats,
                padded,
            },
            said,
        ))
    }

    /// What SimpleTuner counts of an entry that is held out; `None` where its size is not known, or with a problem found.
    pub(super) fn held_out(
        &self,
        entry: &Entry<'_>,
        id: &str,
        found: &mut Findings,
    ) -> Option<HeldOut> {
        let (samples, _) = self.samples(entry, id, found);
        Some(HeldOut {
            batch_size: self.batch_size(entry, found)?,
            samples: samples?,
            repeats: repeats(entry, found),
        })
    }

    /// Samples of an entry, and whether they are only the most that may be taken.
    fn samples(&self, entry: &Entry<'_>, id: &str, found: &mut Findings) -> (Option<u64>, bool) {
        let possible = |samples: &u64| Workload::SAMPLES.contains(samples);
        let given = self.samples.get(id).copied().filter(possible);
        let maximum = entry.cut("max_num_samples", 0..=u64::MAX, found);
        let maximum = maximum.filter(possible);
        let samples = match (given, maximum) {
            (Some(given), Some(maximum)) => Some(given.min(maximum)),
            (given, maximum) => given.or(maximum),
        };
        let samples = samples.or_else(|| self.other_samples.filter(possible));
        (samples, given.is_none() && maximum.is_some())
    }

    /// Samples of an entry that are encoded at once, and the default. Of clips only the entry itself says it: a setting for
    /// all is for images. `None` where nothing is encoded from pixels, or with a problem found.
    pub(super) fn encoded_at_once(
        &self,
        entry: &Entry<'_>,
        kind: Kind,
        found: &mut Findings,
    ) -> Option<(u32, u32)> {
        const SETTING: &str = "vae_batch_size";
        let range = 1..=u64::from(Workload::MAX_BATCH);
        let default = match kind {
            Kind::Image => Preparation::IMAGES_AT_ONCE,
            Kind::Video => 1,
            _ => return None,
        };
        let given = match (entry.get(SETTING), kind) {
            (Some(_), _) => entry.whole(SETTING, range, found)?,
            (None, Kind::Image) if self.settings.has(SETTING) => {
                self.settings.whole(SETTING, range, found)?
            }
            (None, _) => u64::from(default),
        };
        Some((u32::try_from(given).ok()?, default))
    }

    fn batch_size(&self, entry: &Entry<'_>, found: &mut Findings) -> Option<u32> {
        let range = 1..=u64::from(Workload::MAX_BATCH);
        let own = entry
            .get("train_batch_size")
            .filter(|value| value.as_str() != Some(""));
        let size = match own {
            Some(_) => entry.whole("train_batch_size", range, found),
            None => self
                .settings
                .whole_or("train_batch_size", (4, "4"), range, found),
        };
        size.and_then(|size| u32::try_from(size).ok())
    }

    fn resolution(
        &self,
        entry: &Entry<'_>,
        position: usize,
        found: &mut Findings,
    ) -> Option<(HalfMegapixels, String)> {
        let own = entry.get("resolution").is_some();
        let resolution = match own {
            true => entry.text("resolution", found)?,
            false => match self.settings.given("resolution") {
                Some(_) => self.settings.text("resolution", found)?.into(),
                None => {
                    found.assumed("resolution", "1024");
                    "1024".into()
                }
            },
        };
        let kind = self.resolution_type(entry, found)?;
        let cropped_to = entry.get("crop_aspect").and_then(Value::as_str);
        let are_squares = entry.flag("crop", found) && cropped_to.unwrap_or("square") == "square";
        match pixels::of_dataset(&resolution, kind, are_squares) {
            Ok(resolution) => {
                let most = self.recipe.and_then(family::most_pixels);
                let bucket = most.map_or(resolution.bucket, |most| resolution.bucket.min(most));
                if let Some(most) = most.filter(|most| resolution.bucket > *most) {
                    found.note(Note::PixelsOfModel {
                        dataset: position,
                        most,
                    });
                    // Only pictures that are squares by themselves are left as large.
                    if !are_squares {
                        found.off_record("resolution", OffRecord::Resolution);
                    }
                } else if kind == "pixel" && !are_squares && Some(bucket) != most {
                    found.note(Note::SquareAssumed { dataset: position });
                    found.off_record("resolution_type", OffRecord::Resolution);
                }
                Some((bucket, resolution.said))
            }
            Err(why) => {
                let (what, hint) = unreadable(why, &shown(&resolution));
                if own {
                    entry.problem("resolution", what, hint, found);
                } else {
                    self.settings.problem("resolution", what, hint, found);
                }
                None
            }
        }
    }

    fn resolution_type(&self, entry: &Entry<'_>, found: &mut Findings) -> Option<&'static str> {
        let Some(own) = entry.text("resolution_type", found) else {
            return Some(
                self.settings
                    .choice("resolution_type")
                    .unwrap_or("pixel_area"),
            );
        };
        let choices = vocabulary::choices("resolution_type").unwrap_or_default();
        let known = choices.iter().copied().find(|choice| *choice == own);
        if known.is_none() {
            let what = format!("{} is no resolution_type", shown(&own));
            entry.problem(
                "resolution_type",
                what,
                format!("write one of {}", choices.join(", ")),
                found,
            );
        }
        known
    }

    fn frames(
        &self,
        recipe: Recipe,
        entry: &Entry<'_>,
        position: usize,
        found: &mut Findings,
    ) -> FrameClass {
        let path = format!("{}.video", entry.path);
        let video = match entry.get("video") {
            Some(Value::Object(keys)) => Some(Entry {
                path: &path,
                keys,
                ..*entry
            }),
            Some(_) => {
                entry.problem(
                    "video",
                    "this is not an object",
                    "write {\"num_frames\": ...}",
                    found,
                );
                None
            }
            None => None,
        };
        let range = 1..=u64::from(u32::MAX);
        let whole = |key, found: &mut Findings| {
            video.and_then(|video| video.whole(key, range.clone(), found))
        };
        let given = whole("num_frames", found);
        let fewest = whole("min_frames", found);
        let varies = video.is_some_and(|video| {
            video.get("bucket_strategy").and_then(Value::as_str) == Some("resolution_frames")
        });
        let longest = if varies {
            whole("max_frames", found)
        } else {
            None
        };
        if varies {
            found.note(Note::FramesVary { dataset: position });
        }
        let Some(at_once) = given.or_else(|| self.frames_by_rate(recipe, &path, found)) else {
            return FrameClass::Single;
        };
        if given.or(longest).is_none() {
            found.note(Note::FramesAssumed {
                dataset: position,
                frames: at_once as u32,
            });
        }
        if let (Some(video), Some(fewest)) = (video, fewest.filter(|fewest| *fewest < at_once)) {
            let what = format!(
                "SimpleTuner does not start with fewer min_frames ({fewest}) than num_frames ({at_once})"
            );
            let hint = "write the same number in both, or remove min_frames";
            video.problem("min_frames", what, hint, found);
        }
        let frames = longest.unwrap_or(at_once);
        let fitted = frames::fitted(recipe, frames);
        if fitted != frames {
            found.note(Note::FramesFitted {
                dataset: position,
                frames: frames as u32,
                fitted: u32::try_from(fitted).unwrap_or(u32::MAX),
            });
        }
        let frames = fitted;
        class(frames, "video", found)
    }

    /// Frames of a data set that does not say them; `None` with a problem found, where SimpleTuner does not start without.
    fn frames_by_rate(&self, recipe: Recipe, path: &str, found: &mut Findings) -> Option<u64> {
        // It takes a given rate for a text, and cannot reckon with it; of one family it overwrites it.
        let is_text = self.settings.has("framerate") && recipe.family().name() != "infinitetalk";
        let framerate = family::framerate(recipe).filter(|_| !is_text);
        if framerate.is_none() {
            let reason = if is_text {
                "where framerate is set"
            } else {
                "with this model"
            };
            let what = format!(
                "num_frames is missing, and SimpleTuner does not start without it {reason}"
            );
            found.problem(self.file, path, what, "write {\"num_frames\": ...}");
        }
        Some(framerate? * DEFAULT_SECONDS)
    }

    /// What in an entry has no place in the records.
    fn effects(&self, entry: &Entry<'_>, position: usize, found: &mut Findings) {
        for key in [
            "vae_cache_ondemand",
            "vae_cache_disable",
            "vae_cache_clear_each_epoch",
        ] {
            if entry.flag(key, found) {
                found.off_record(key, OffRecord::OnDemandCache);
            }
        }
        let is_drawn_anew = entry.get("crop_aspect").and_then(Value::as_str) == Some("random")
            && entry.flag("crop", found)
            && !self
                .settings
                .flag("aspect_bucket_disable_rebuild", false, found);
        if is_drawn_anew || entry.flag("vae_cache_clear_each_epoch", found) {
            found.note(Note::EncodedAgain { dataset: position });
        }
        for key in ["is_regularisation_data", "is_regularization_data"] {
            if entry.flag(key, found) {
                found.off_record(key, OffRecord::Objective);
            }
        }
        let conditioned =
            entry.get("conditioning").is_some() || entry.get("conditioning_data").is_some();
        let expected = self
            .recipe
            .is_some_and(|recipe| recipe.method().is_controlnet() || model::edits(recipe));
        if conditioned && !expected {
            found.off_record("conditioning", OffRecord::Control);
        }
        let later = |key, first| {
            let at = entry.get(key).and_then(|at| match at {
                Value::String(text) => text.trim().parse().ok(),
                other => other.as_u64(),
            });
            at.is_some_and(|at: u64| at > first)
        };
        let ends = entry.get("end_epoch").is_some() || entry.get("end_step").is_some();
        if later("start_epoch", 1) || later("start_step", 1) || ends {
            found.note(Note::Scheduled { dataset: position });
        }
    }
}

/// The class of a clip; one beyond the longest class takes the run off the record.
pub(super) fn class(frames: u64, setting: &'static str, found: &mut Findings) -> FrameClass {
    let class = u32::try_from(frames).ok().and_then(FrameClass::from_frames);
    class.unwrap_or_else(|| {
        found.off_record(setting, OffRecord::Frames);
        FrameClass::UpTo241
    })
}

fn unreadable(why: Unreadable, written: &str) -> (String, &'static str) {
    match why {
        Unreadable::NotANumber => (
            format!("{written} is no resolution"),
            "write an edge in pixels, such as 1024",
        ),
        Unreadable::EdgeOfMegapixels => (
            format!("{written} is an edge in pixels here"),
            "write the edge in pixels, or set resolution_type to area",
        ),
        Unreadable::AreaOfPixels => (
            format!("{written} is an area in megapixels here, and 33 are the most"),
            "write megapixels, or set resolution_type to pixel_area",
        ),
    }
}

/// How often each sample of an entry is seen again in one epoch.
fn repeats(entry: &Entry<'_>, found: &mut Findings) -> u32 {
    let repeats = entry.cut("repeats", 0..=u64::from(Workload::MAX_REPEATS), found);
    repeats.unwrap_or(0) as u32
}
