//! The files of a submission as they come in: bounded in number and size, each with its role and a plain name.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use stepcast_proto::v1;
use stepcast_records::simpletuner::{
    FOLDER_KEY, File, NoFolder, Note, Problem, Problems, dataset_title, sample_folder, unwrapped,
    without_mark,
};
use stepcast_scheduler::RequestId;
use stepcast_scheduler::ids::StagingId;
use stepcast_scheduler::model::TrainerKind;
use tonic::{Code, Status};
use zeroize::Zeroize;

use crate::status::{self, Refusal, bad_field};

/// Bytes of one file. Real configurations have some kilobytes; a prompt library of thousands of lines fits.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;

/// Bytes of all files of one submission.
pub(crate) const FILES_BYTES_MAX: usize = 3 << 20;

/// Bytes of a file's name, so that it stays a name on every file system with what is put before it.
const NAME_BYTES_MAX: usize = 128;

/// What a file is for. The numbers stand in the staging area, and mean the same for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Config = 0,
    DataLoader = 1,
    Lycoris = 2,
    Prompts = 3,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StagedFile {
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
}

/// The files of one submission: a configuration, and at most one file of every other role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Submission(Vec<StagedFile>);

impl Role {
    pub(crate) const ALL: [Self; 4] =
        [Self::Config, Self::DataLoader, Self::Lycoris, Self::Prompts];

    /// What its files are called by in the staging area.
    pub(crate) const fn slug(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::DataLoader => "data_loader",
            Self::Lycoris => "lycoris",
            Self::Prompts => "prompts",
        }
    }

    fn read(role: v1::FileRole) -> Option<Self> {
        match role {
            v1::FileRole::Unspecified => None,
            v1::FileRole::Config => Some(Self::Config),
            v1::FileRole::DataLoader => Some(Self::DataLoader),
            v1::FileRole::Lycoris => Some(Self::Lycoris),
            v1::FileRole::Prompts => Some(Self::Prompts),
        }
    }

    const fn write(self) -> v1::FileRole {
        match self {
            Self::Config => v1::FileRole::Config,
            Self::DataLoader => v1::FileRole::DataLoader,
            Self::Lycoris => v1::FileRole::Lycoris,
            Self::Prompts => v1::FileRole::Prompts,
        }
    }
}

impl Submission {
    /// Takes what came in, if it is within the bounds.
    pub(crate) fn read(files: Vec<v1::JobFile>) -> Result<Self, Status> {
        let mut taken: Vec<StagedFile> = Vec::with_capacity(Role::ALL.len());
        let mut bytes = 0;
        for (index, file) in files.into_iter().enumerate() {
            let field = |name: &str| format!("files[{index}].{name}");
            let Some(role) = Role::read(file.role()) else {
                return Err(bad_field(&field("role"), "say what the file is for"));
            };
            if taken.iter().any(|other| other.role == role) {
                return Err(bad_field(&field("role"), "there is one file of each role"));
            }
            if !is_plain(&file.name) {
                let what = format!(
                    "a file's name has 1 to {NAME_BYTES_MAX} letters, digits or `. _ -`, and no folder"
                );
                return Err(bad_field(&field("name"), what));
            }
            bytes += file.content.len();
            if file.content.len() > FILE_BYTES_MAX || bytes > FILES_BYTES_MAX {
                return Err(too_large(&file.name, file.content.len()));
            }
            // What cannot be read cannot be looked through for secrets.
            if std::str::from_utf8(&file.content).is_err() {
                let what = format!("{} is not UTF-8 text; save it as UTF-8", file.name);
                return Err(bad_field(&field("content"), what));
            }
            taken.push(StagedFile {
                role,
                content: plain(role, &file.name, file.content),
                name: file.name,
            });
        }
        if !taken.iter().any(|file| file.role == Role::Config) {
            return Err(bad_field(
                "files",
                "a configuration is needed (FILE_ROLE_CONFIG)",
            ));
        }
        taken.sort_by_key(|file| file.role);
        Ok(Self(taken))
    }

    /// Refuses a configuration that a worker cannot write anew for its host, as SimpleTuner needs it to be: variables for a
    /// shell, a checkpoint to go on from that is on another machine, and data sets of which nobody says where they are on its
    /// host. A replay reads none.
    pub(crate) fn check_form(&self, trainer: TrainerKind, notes: &[Note]) -> Result<(), Status> {
        let is_env = |file: &StagedFile| {
            let extension = file.name.rsplit_once('.').map(|(_, extension)| extension);
            extension.is_some_and(|extension| extension.eq_ignore_ascii_case("env"))
        };
        match trainer {
            TrainerKind::SimpleTuner if self.file(Role::Config).is_some_and(is_env) => {
                Err(bad_field(
                    "files",
                    "a worker cannot rewrite config.env for its host: write the settings as config.json, and submit that",
                ))
            }
            TrainerKind::SimpleTuner if notes.contains(&Note::ResumesElsewhere) => Err(bad_field(
                "files",
                "resume_from_checkpoint names a checkpoint that no worker has: name one in a bucket, such as \
                     s3://BUCKET/checkpoint-500, or remove the setting to train from the start",
            )),
            TrainerKind::SimpleTuner => self.check_folders(),
            TrainerKind::Replay => Ok(()),
        }
    }

    /// Refuses data sets of which no worker could know where their samples are on its host.
    fn check_folders(&self) -> Result<(), Status> {
        let Some(file) = self.file(Role::DataLoader) else {
            return Ok(());
        };
        let Ok(entries) = serde_json::from_slice::<Vec<Map<String, Value>>>(&file.content) else {
            return Ok(());
        };
        let problem = |(index, entry): (usize, &Map<String, Value>)| {
            let why = sample_folder(entry).err()?;
            Some(Problem {
                file: file.name.clone(),
                path: format!("$[{index}].{FOLDER_KEY}"),
                what: format!("{} {why}", dataset_title(entry, index)),
                hint: NoFolder::HINT.to_owned(),
            })
        };
        let problems: Vec<Problem> = entries.iter().enumerate().filter_map(problem).collect();
        match problems.is_empty() {
            true => Ok(()),
            false => Err(status::problems(&Problems(problems))),
        }
    }

    /// The file of a role.
    pub(crate) fn file(&self, role: Role) -> Option<&StagedFile> {
        self.0.iter().find(|file| file.role == role)
    }

    /// All files, to be written anew.
    pub(crate) fn files_mut(&mut self) -> &mut [StagedFile] {
        &mut self.0
    }

    /// All files, the configuration first.
    pub(crate) fn files(&self) -> &[StagedFile] {
        &self.0
    }

    /// Where these files wait for this request. The same request has the same place, so that sending it twice leaves one
    /// folder; other files under the same request id never overwrite the first ones.
    pub(crate) fn staging(&self, request: RequestId) -> StagingId {
        let mut digest = Sha256::new();
        digest.update(b"stepcast staging 1");
        digest.update(request.0);
        for file in &self.0 {
            for part in [
                file.role.slug().as_bytes(),
                file.name.as_bytes(),
                &file.content,
            ] {
                digest.update((part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        }
        let mut id = [0; 16];
        id.copy_from_slice(&digest.finalize()[..16]);
        StagingId(id)
    }
}

impl From<StagedFile> for v1::JobFile {
    fn from(file: StagedFile) -> Self {
        Self {
            role: file.role.write().into(),
            name: file.name,
            content: file.content,
        }
    }
}

/// A file as everybody after this sees it: the reader of configurations takes more forms than what screens them for secrets,
/// and than a worker does.
fn plain(role: Role, name: &str, mut content: Vec<u8>) -> Vec<u8> {
    let mark = content.len() - without_mark(&content).len();
    if mark > 0 {
        // It leaves as much of itself behind the text, which is cleared.
        content.copy_within(mark.., 0);
        let length = content.len() - mark;
        content[length..].zeroize();
        content.truncate(length);
    }
    let settings = (role == Role::Config).then(|| unwrapped(&File::new(name, &content)));
    if let Some(settings) = settings.flatten() {
        std::mem::replace(&mut content, settings).zeroize();
    }
    content
}

fn is_plain(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

fn too_large(name: &str, bytes: usize) -> Status {
    let message =
        format!("{name} has {bytes} bytes: a file may have 1 MiB, and all files together 3 MiB");
    Refusal::new(Code::InvalidArgument, "FILES_TOO_LARGE", message)
        .hint("send the configuration and the settings it names, and no data")
        .into()
}

/// The files of so many tasks of one sweep have too many bytes together.
pub(crate) fn too_large_together(tasks: usize) -> Status {
    let message = format!(
        "the files of the {tasks} tasks are too large: those of all tasks together may have 3 MiB"
    );
    Refusal::new(Code::InvalidArgument, "FILES_TOO_LARGE", message)
        .hint("submit it in parts, each with some of the tasks")
        .into()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn file(role: v1::FileRole, name: &str, bytes: usize) -> v1::JobFile {
        v1::JobFile {
            role: role.into(),
            name: name.to_owned(),
            content: vec![b' '; bytes],
        }
    }

    fn refused(files: Vec<v1::JobFile>) -> String {
        Submission::read(files).unwrap_err().message().to_owned()
    }

    #[test]
    fn files_are_few_small_and_plainly_named() {
        use v1::FileRole::{Config, DataLoader, Lycoris, Prompts, Unspecified};
        assert!(
            Submission::read(vec![
                file(DataLoader, "data.json", 9),
                file(Config, "config.json", 9)
            ])
            .is_ok()
        );
        assert!(refused(vec![]).contains("a configuration is needed"));
        assert!(refused(vec![file(Unspecified, "a", 1)]).starts_with("files[0].role"));
        assert!(
            refused(vec![file(Config, "a", 1), file(Config, "b", 1)]).starts_with("files[1].role")
        );
        for name in ["", "../a", "a/b", ".hidden", "a\0b", &"a".repeat(129)] {
            assert!(
                refused(vec![file(Config, name, 1)]).starts_with("files[0].name"),
                "{name:?}"
            );
        }
        assert!(refused(vec![file(Config, "a", FILE_BYTES_MAX + 1)]).contains("1 MiB"));
        let utf_16 = v1::JobFile {
            content: vec![0xff, 0xfe, b'{', 0],
            ..file(Config, "a", 0)
        };
        assert!(refused(vec![utf_16]).starts_with("files[0].content: a is not UTF-8"));
        let full = |role, name| file(role, name, FILE_BYTES_MAX);
        let four = vec![
            full(Config, "a"),
            full(DataLoader, "b"),
            full(Lycoris, "c"),
            file(Prompts, "d", 1),
        ];
        assert!(refused(four).contains("3 MiB"));
    }

    #[test]
    fn the_mark_of_an_editor_and_the_wrapper_of_a_page_are_taken_off() {
        let read = |role, text: &str| {
            let content = text.as_bytes().to_vec();
            let mut files = vec![file(v1::FileRole::Config, "config.json", 9)];
            if role == v1::FileRole::Config {
                files.clear();
            }
            files.push(v1::JobFile {
                content,
                ..file(role, "file.json", 0)
            });
            let read = Submission::read(files).unwrap();
            let role = Role::read(role).unwrap();
            String::from_utf8(read.file(role).unwrap().content.clone()).unwrap()
        };
        use v1::FileRole::{Config, DataLoader, Lycoris, Prompts};
        for role in [Config, DataLoader, Lycoris, Prompts] {
            assert_eq!(read(role, "\u{feff}[1]"), "[1]");
        }
        let page = r#"{"config": {"seed": 1}}"#;
        assert_eq!(read(Config, page), r#"{"seed":1}"#);
        assert_eq!(read(Config, &format!("\u{feff}{page}")), r#"{"seed":1}"#);
        assert_eq!(read(Prompts, page), page);
    }

    #[test]
    fn the_same_request_has_the_same_place_and_other_files_another() {
        let read = |bytes| {
            Submission::read(vec![file(v1::FileRole::Config, "config.json", bytes)]).unwrap()
        };
        let (one, two) = (RequestId([1; 16]), RequestId([2; 16]));
        assert_eq!(read(5).staging(one), read(5).staging(one));
        assert_ne!(read(5).staging(one), read(5).staging(two));
        assert_ne!(read(5).staging(one), read(6).staging(one));
    }
}
