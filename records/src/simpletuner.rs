//! SimpleTuner's configurations, read by whitelist into a workload: what a run asks for, and nothing of whose it is.
//!
//! The reader is pure: [`references`] says which files a configuration names, somebody else fetches them, and
//! [`read`] makes a [`Workload`] of their bytes. What matters and is not said becomes a [`Note`], what cannot be
//! understood a [`Problem`]; nothing is guessed in silence.

mod adapter;
mod dataset;
mod effects;
mod entry;
mod family;
mod files;
mod findings;
mod folder;
mod form;
mod frames;
mod generation;
mod json;
mod loader;
mod model;
mod note;
mod off_record;
mod pixels;
mod plan;
mod preparation;
mod problem;
mod reader;
mod refusals;
mod settings;
mod sharing;
mod source;
mod title;
mod vocabulary;
mod weights;
mod workload;

pub use files::{File, Files, References};
pub use folder::{FOLDER_KEY, NoFolder, dataset_title, is_local, sample_folder};
pub use form::{unwrapped, without_mark};
pub use note::Note;
pub use off_record::OffRecord;
pub use plan::{Images, Missing, Plan};
pub use preparation::Preparation;
pub use problem::{Problem, Problems};
pub use reader::{Options, Reading, is_in_bucket, read, references};
pub use sharing::{HeldOut, Sampling, Share, Sharing};
pub use workload::{Dataset, Length, OutOfBounds, Validation, Workload};
