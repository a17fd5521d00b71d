//! What was assumed while a configuration was read, and what it means for the estimate.

use std::fmt;

use super::OffRecord;
use crate::resolution::HalfMegapixels;

/// One assumption or limit of a reading, in words for the person who asked. Data sets are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// A setting that matters is not given, and SimpleTuner has a default.
    Default {
        /// The setting.
        setting: &'static str,
        /// Its default.
        value: &'static str,
    },
    /// No flavour is given; it was told from the name of the published weights.
    FlavourOfWeights(&'static str),
    /// No flavour is given, and the weights are not published ones.
    FlavourAssumed(&'static str),
    /// The weights are not published ones, and those of the family differ in size: another flavour's times may be far off.
    FlavourGuessed(&'static str),
    /// The weights are the published ones of another flavour than the one that is given.
    FlavourOverruled(&'static str),
    /// SimpleTuner drops a text `"false"`: the setting keeps its default, which is on.
    TextFalseIgnored(&'static str),
    /// A setting has no place in the records.
    NotComparable {
        /// The setting.
        setting: &'static str,
        /// Why.
        reason: OffRecord,
    },
    /// Something changes the time of a step and has no place in the records.
    NotRecorded,
    /// Something changes the time of validation alone and has no place in the records.
    ValidationNotRecorded,
    /// The same, where it may also be part of what is measured of a step.
    NothingRecorded,
    /// The number of processes follows from the GPUs a job is placed on.
    ProcessesFromHardware,
    /// The edge alone is fixed, so the pixels depend on the shapes of the pictures.
    SquareAssumed {
        /// Position of the data set.
        dataset: usize,
    },
    /// The model trains on fewer pixels than are asked for.
    PixelsOfModel {
        /// Position of the data set.
        dataset: usize,
        /// The most that it trains on.
        most: HalfMegapixels,
    },
    /// Sounds alone are trained on beside clips, and nothing is known of such steps.
    SoundsAlone {
        /// Position of the data set.
        dataset: usize,
    },
    /// All samples of a data set are encoded again in every epoch, which is counted once.
    EncodedAgain {
        /// Position of the data set.
        dataset: usize,
    },
    /// A video data set does not say how many frames its clips have.
    FramesAssumed {
        /// Position of the data set.
        dataset: usize,
        /// Frames that SimpleTuner takes.
        frames: u32,
    },
    /// SimpleTuner fits the length of clips to the model.
    FramesFitted {
        /// Position of the data set.
        dataset: usize,
        /// Frames that were asked for.
        frames: u32,
        /// Frames that are trained on.
        fitted: u32,
    },
    /// Clips of one data set differ in length.
    FramesVary {
        /// Position of the data set.
        dataset: usize,
    },
    /// The number of samples is not known; the most that may be taken is.
    SamplesFromMaximum {
        /// Position of the data set.
        dataset: usize,
    },
    /// A data set joins later or leaves earlier; it is counted for the whole run, as SimpleTuner does.
    Scheduled {
        /// Position of the data set.
        dataset: usize,
    },
    /// An entry of the data loader has keys that SimpleTuner does not read.
    UnreadKeys {
        /// Position among all entries of the file.
        entry: usize,
    },
    /// Aspect buckets are not known, and each can add a batch to an epoch.
    BucketsUnknown,
    /// Steps are shared among data sets of unknown size as if they held as much as one another.
    SharedEvenly,
    /// The length of sounds is no part of the records.
    SoundLength,
    /// The validation's prompt is an empty text, of which SimpleTuner makes images.
    EmptyPrompt,
    /// Validation takes its inputs from the data sets, as many as the configuration allows.
    ValidationSamples(u32),
    /// The model makes no images of the empty prompt, although it is told to.
    NoEmptyPrompt,
    /// The model sets the denoising steps of validation by itself.
    InferenceStepsOfModel(u32),
    /// The frames of a validation clip are not given and the family's default is not known here.
    ValidationFramesAssumed(u32),
    /// Validation runs in a program of the person's; its time is not part of the estimate.
    ExternalValidation,
    /// Checkpoints by epochs are not counted: how many steps an epoch has depends on the GPUs.
    CheckpointsByEpochs,
    /// A run that goes on from a checkpoint is estimated as if it started afresh.
    Resumes,
    /// A run goes on from a checkpoint where no worker has it.
    ResumesElsewhere,
    /// A run that goes on from the step of a LoRA is estimated as if it started afresh.
    GoesOnFromLora,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { setting, value } => {
                write!(f, "{setting} is not set: SimpleTuner's default {value} is used")
            }
            Self::FlavourOfWeights(flavour) => {
                write!(f, "model_flavour is not set: the weights are those of {flavour}")
            }
            Self::FlavourAssumed(flavour) => {
                write!(f, "model_flavour is not set and the weights are not published ones: estimated as {flavour}")
            }
            Self::FlavourGuessed(flavour) => {
                write!(f, "the weights are not published ones, and models of this family differ in size: the estimate is a guess, by those of {flavour}")
            }
            Self::FlavourOverruled(flavour) => {
                write!(f, "SimpleTuner loads the weights that are named, whatever model_flavour says: estimated as {flavour}")
            }
            Self::TextFalseIgnored(setting) => {
                write!(f, "SimpleTuner ignores the text \"false\": {setting} stays on; write false without quotes to switch it off")
            }
            Self::NotComparable { setting, reason } => {
                write!(f, "{setting} is not comparable with the records: {reason}")
            }
            Self::NotRecorded => f.write_str(
                "the estimate is that of the nearest plain run, and this run's step times are not recorded",
            ),
            Self::ValidationNotRecorded => f.write_str(
                "validation is estimated from the nearest plain run, and its times are not recorded",
            ),
            Self::NothingRecorded => f.write_str(
                "validation is estimated from the nearest plain run, and none of this run's times are recorded",
            ),
            Self::ProcessesFromHardware => f.write_str("num_processes is replaced by the GPUs the job is placed on"),
            Self::SquareAssumed { dataset } => {
                write!(f, "data set {dataset}: resolution_type pixel fixes one edge only; the pictures are taken for squares")
            }
            Self::PixelsOfModel { dataset, most } => {
                write!(f, "data set {dataset}: SimpleTuner trains this model on {most} MP at most, and makes larger pictures smaller")
            }
            Self::SoundsAlone { dataset } => {
                write!(f, "data set {dataset}: the steps of sounds alone are not known; they are taken for those of single pictures of 0.5 MP")
            }
            Self::EncodedAgain { dataset } => {
                write!(f, "data set {dataset}: SimpleTuner encodes all of its samples again at the start of every epoch, which is counted once")
            }
            Self::FramesAssumed { dataset, frames } => {
                write!(f, "data set {dataset}: video.num_frames is not set: {frames} frames are assumed")
            }
            Self::FramesFitted { dataset, frames, fitted } => {
                write!(f, "data set {dataset}: SimpleTuner makes {fitted} frames of {frames} for this model")
            }
            Self::FramesVary { dataset } => {
                write!(f, "data set {dataset}: clips differ in length; all are taken for the longest")
            }
            Self::SamplesFromMaximum { dataset } => {
                write!(f, "data set {dataset}: its size is not known: max_num_samples is taken for it")
            }
            Self::Scheduled { dataset } => {
                write!(f, "data set {dataset}: it is not there for the whole run, and is counted as if it were")
            }
            Self::UnreadKeys { entry } => {
                write!(f, "entry {entry} of the data loader has keys that SimpleTuner does not read")
            }
            Self::BucketsUnknown => {
                f.write_str("aspect buckets are not known: each beyond the first can add a batch to an epoch")
            }
            Self::SharedEvenly => {
                f.write_str("the sizes of the data sets are not known: steps are shared among them as if they were equal")
            }
            Self::SoundLength => f.write_str(
                "the records do not tell long sounds from short ones: the estimate is that of a usual length",
            ),
            Self::EmptyPrompt => {
                f.write_str("validation_prompt is an empty text, and SimpleTuner makes images of it: remove it if none are wanted")
            }
            Self::ValidationSamples(count) => {
                write!(f, "validation takes its inputs from the data sets: {count} are assumed for each pass")
            }
            Self::NoEmptyPrompt => f.write_str(
                "SimpleTuner makes no images of the empty prompt with this model, whatever validation_disable_unconditional says",
            ),
            Self::InferenceStepsOfModel(steps) => {
                write!(f, "validation takes {steps} denoising steps: the model sets them by itself")
            }
            Self::ValidationFramesAssumed(frames) => {
                write!(f, "validation_num_video_frames is not set: {frames} frames are assumed")
            }
            Self::ExternalValidation => {
                f.write_str("validation runs in a script of yours: its time is not part of the estimate")
            }
            Self::CheckpointsByEpochs => {
                f.write_str("checkpoint_epoch_interval: saving by epochs is not part of the estimate")
            }
            Self::Resumes => {
                f.write_str("resume_from_checkpoint names a checkpoint: the run is estimated from its first step")
            }
            Self::ResumesElsewhere => f.write_str(
                "resume_from_checkpoint names a checkpoint that no worker has: a job with it is refused, and the run is \
                 estimated from its first step",
            ),
            Self::GoesOnFromLora => f.write_str(
                "init_lora: SimpleTuner goes on from the step that the file or init_lora_step names, and the run is \
                 estimated from its first step; write init_lora_step 0 to count anew",
            ),
        }
    }
}
