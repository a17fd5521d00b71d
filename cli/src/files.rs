//! A submission's files: the SimpleTuner configuration that a path names, and the files that it names in turn.

use std::io::Read;
use std::path::{Path, PathBuf};

use stepcast_proto::v1::{FileRole, JobFile};
use stepcast_records::simpletuner::{File, references};

use crate::failure::{Exit, Failure};
use crate::output::money::count;

/// The largest file that a server takes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The most that a server takes in all.
const ALL_BYTES_MAX: u64 = 3 << 20;
/// Folders above the configuration in which a file that it names is looked for: its own, the folder of all
/// configurations, SimpleTuner's root, and one more for roots that lie inside a project.
const FOLDERS_UP: usize = 4;
/// What a configuration may be called, in the order that SimpleTuner looks.
const CONFIG_NAMES: [&str; 3] = ["config.json", "config.toml", "config.env"];

/// What is sent, and what it is called.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Submission {
    /// The configuration and the files that it names.
    pub(crate) files: Vec<JobFile>,
    /// What people may call the job: the folder's name, or the file's.
    pub(crate) title: String,
    /// Files that the configuration names and that are not here, each with where it was looked for.
    pub(crate) missing: Vec<String>,
}

/// Collects what a path names: a folder with a configuration, or the configuration itself.
pub(crate) fn collect(path: &Path) -> Result<Submission, Failure> {
    let config = find_config(path)?;
    let content = read(&config)?;
    let mut submission = Submission {
        title: title(&config),
        files: Vec::new(),
        missing: Vec::new(),
    };
    for (role, named) in named_files(&config, &content) {
        match find_named(&named, &config) {
            Some(found) => submission.files.push(JobFile {
                role: role.into(),
                name: base_name(&found),
                content: read(&found)?,
            }),
            None => submission.missing.push(named),
        }
    }
    submission.files.insert(
        0,
        JobFile {
            role: FileRole::Config.into(),
            name: base_name(&config),
            content,
        },
    );
    let total: u64 = submission
        .files
        .iter()
        .map(|file| file.content.len() as u64)
        .sum();
    check_size(total)?;
    Ok(submission)
}

/// Refuses what is too large as a whole.
fn check_size(total: u64) -> Result<(), Failure> {
    if total <= ALL_BYTES_MAX {
        return Ok(());
    }
    let failure =
        Failure::refused("the configuration and the files that it names are too large together");
    Err(failure.detail(format!(
        "{} bytes; at most {} are sent",
        count(total),
        count(ALL_BYTES_MAX)
    )))
}

fn find_config(path: &Path) -> Result<PathBuf, Failure> {
    let meta = std::fs::metadata(path).map_err(|error| {
        let failure = Failure::new(Exit::NotFound, format!("{} cannot be read", path.display())).detail(error.to_string());
        failure.hint("name a SimpleTuner configuration: its folder, or its config.json, config.toml or config.env")
    })?;
    if !meta.is_dir() {
        return Ok(path.to_owned());
    }
    let folders = [path.to_owned(), path.join("config")];
    let candidates = folders
        .iter()
        .flat_map(|folder| CONFIG_NAMES.iter().map(|name| folder.join(name)));
    candidates
        .into_iter()
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| {
            Failure::new(
                Exit::NotFound,
                format!("{} holds no SimpleTuner configuration", path.display()),
            )
            .detail(format!(
                "looked for {} in it and in its folder `config`",
                CONFIG_NAMES.join(", ")
            ))
        })
}

/// The whole file, if it is of a size that makes sense; a larger one is not read.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong =
        |why: String| Failure::refused(format!("{} cannot be read", path.display())).detail(why);
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let size = file
        .metadata()
        .map_err(|error| wrong(error.to_string()))?
        .len();
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(|error| wrong(error.to_string()))?;
    let size = size.max(content.len() as u64);
    if size > FILE_BYTES_MAX {
        return Err(Failure::refused(format!("{} is too large", path.display()))
            .detail(format!(
                "{:.1} MiB; a configuration has a few KiB, and at most 1 MiB is sent",
                mebibytes(size)
            ))
            .hint("is it the right file? Data sets and weights are never sent"));
    }
    Ok(content)
}

fn mebibytes(size: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let size = size as f64;
    size / f64::from(1 << 20)
}

/// The files that a configuration names. What is wrong with it the server says, with everything else that is wrong;
/// a configuration that cannot be read names nothing.
fn named_files(config: &Path, content: &[u8]) -> Vec<(FileRole, String)> {
    let named = references(&File::new(&base_name(config), content)).unwrap_or_default();
    let roles = [
        (FileRole::DataLoader, named.data_backend),
        (FileRole::Lycoris, named.lycoris),
        (FileRole::Prompts, named.prompt_library),
    ];
    roles
        .into_iter()
        .filter_map(|(role, name)| Some((role, name?)))
        .collect()
}

/// Looks where SimpleTuner would: from here, from the configuration's folder and from those above it; then the same
/// without the leading folders, since examples are written to be copied elsewhere.
fn find_named(named: &str, config: &Path) -> Option<PathBuf> {
    let named = Path::new(named);
    if named.is_absolute() {
        return named.is_file().then(|| named.to_owned());
    }
    let config = std::path::absolute(config).ok()?;
    let mut bases = vec![PathBuf::from(".")];
    bases.extend(
        config
            .ancestors()
            .skip(1)
            .take(FOLDERS_UP)
            .map(Path::to_owned),
    );
    let parts: Vec<_> = named.components().collect();
    let tails = (0..parts.len()).map(|skip| parts[skip..].iter().collect::<PathBuf>());
    let mut candidates = tails.flat_map(|tail| bases.iter().map(move |base| base.join(&tail)));
    candidates.find(|candidate| candidate.is_file())
}

/// The file's own name, in the letters that a server takes; others, which only its messages show, become `_`.
fn base_name(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let taken =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-' | '+');
    let mut name: String = name
        .unwrap_or_default()
        .chars()
        .map(|letter| if taken(letter) { letter } else { '_' })
        .collect();
    // The end says how the file is written, so a name that is too long loses its beginning.
    let extra = name.len().saturating_sub(NAME_LETTERS_MAX);
    name.drain(..extra);
    name
}

/// The longest name of a file on the wire.
const NAME_LETTERS_MAX: usize = 128;

/// Names are at most this long on the wire.
const TITLE_LETTERS_MAX: usize = 64;

fn title(config: &Path) -> String {
    let stem = config
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let folder = std::path::absolute(config).ok();
    let folder = folder
        .as_deref()
        .and_then(Path::parent)
        .and_then(Path::file_name);
    let folder = folder.map(|name| name.to_string_lossy().into_owned());
    let name = if stem == "config" {
        folder.unwrap_or(stem)
    } else {
        stem
    };
    name.chars()
        .filter(|letter| !letter.is_control())
        .take(TITLE_LETTERS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("folder");
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folders");
            std::fs::write(path, text).expect("write");
        }
        dir
    }

    fn names(submission: &Submission) -> Vec<(FileRole, &str)> {
        submission
            .files
            .iter()
            .map(|file| (file.role(), file.name.as_str()))
            .collect()
    }

    #[test]
    fn a_folder_of_simpletuner_is_collected_whole() {
        let dir = tree(&[
            (
                "config/cats/config.json",
                r#"{"--data_backend_config": "config/cats/loader.json", "model_type": "lora", "lora_type": "lycoris", "lycoris_config": "config/l.json"}"#,
            ),
            ("config/cats/loader.json", "[]"),
            ("config/l.json", "{}"),
        ]);
        let submission = collect(&dir.path().join("config/cats")).expect("collected");
        let roles = [
            (FileRole::Config, "config.json"),
            (FileRole::DataLoader, "loader.json"),
            (FileRole::Lycoris, "l.json"),
        ];
        assert_eq!(names(&submission), roles);
        assert_eq!(submission.title, "cats");
        assert!(submission.missing.is_empty());
    }

    #[test]
    fn an_example_finds_its_neighbours_though_it_names_another_folder() {
        let dir = tree(&[
            (
                "examples/flux/config.json",
                r#"{"data_backend_config": "config/examples/loader.json"}"#,
            ),
            ("examples/loader.json", "[]"),
        ]);
        let submission = collect(&dir.path().join("examples/flux/config.json")).expect("collected");
        assert_eq!(names(&submission).len(), 2);
    }

    #[test]
    fn toml_and_env_name_files_too() {
        let toml = b"data_backend_config = \"a.json\"\nuser_prompt_library = \"p.json\"\n";
        let expected = [
            (FileRole::DataLoader, "a.json".to_owned()),
            (FileRole::Prompts, "p.json".to_owned()),
        ];
        assert_eq!(named_files(Path::new("config.toml"), toml), expected);
        let env = b"# a comment\nexport DATALOADER_CONFIG='b.json'\n";
        assert_eq!(
            named_files(Path::new("config.env"), env),
            [(FileRole::DataLoader, "b.json".to_owned())]
        );
    }

    #[test]
    fn what_is_missing_is_said_and_what_cannot_be_read_is_sent_as_it_is() {
        let dir = tree(&[
            ("config.json", r#"{"data_backend_config": "nowhere.json"}"#),
            ("broken/config.json", "{"),
        ]);
        assert_eq!(
            collect(dir.path()).expect("collected").missing,
            ["nowhere.json"]
        );
        assert_eq!(
            collect(&dir.path().join("broken"))
                .expect("collected")
                .files
                .len(),
            1
        );
    }

    #[test]
    fn a_huge_file_is_refused_before_it_is_read() {
        let dir = tree(&[("config.json", "{}")]);
        let path = dir.path().join("config.json");
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("open")
            .set_len(100 << 20)
            .expect("grow");
        let failure = collect(&path).expect_err("refused");
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(
            failure.details,
            ["100.0 MiB; a configuration has a few KiB, and at most 1 MiB is sent"]
        );
    }

    #[test]
    fn names_are_sent_in_letters_that_a_server_takes() {
        assert_eq!(
            base_name(Path::new("a/my video-480p+81f.json")),
            "my_video-480p+81f.json"
        );
        let long = format!("{}.toml", "x".repeat(300));
        assert_eq!(base_name(Path::new(&long)).len(), NAME_LETTERS_MAX);
        assert!(base_name(Path::new(&long)).ends_with(".toml"));
    }

    #[test]
    fn nothing_there_is_not_found() {
        let dir = tree(&[]);
        assert_eq!(collect(dir.path()).expect_err("none").exit, Exit::NotFound);
        assert_eq!(
            collect(Path::new("/no/such")).expect_err("none").exit,
            Exit::NotFound
        );
    }

    #[test]
    fn what_is_a_little_too_large_is_told_as_larger_than_the_bound() {
        let failure = check_size(ALL_BYTES_MAX + 1).expect_err("too large");
        assert_eq!(
            failure.details,
            ["3,145,729 bytes; at most 3,145,728 are sent"]
        );
        assert_eq!(check_size(ALL_BYTES_MAX), Ok(()));
    }
}
