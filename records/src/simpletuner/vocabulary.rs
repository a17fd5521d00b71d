//! The words SimpleTuner knows: its settings, their choices, its variables, and the nearest one to a slip.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

static SETTINGS: LazyLock<HashSet<&str, Words>> =
    LazyLock::new(|| lines(include_str!("../../data/simpletuner-4.10.1-settings.txt")).collect());
static CHOICES: LazyLock<HashMap<&str, Vec<&str>, Words>> = LazyLock::new(|| {
    let rows = lines(include_str!("../../data/simpletuner-4.10.1-choices.txt"));
    let row = |line: &'static str| {
        let (setting, choices) = line.split_once(' ')?;
        Some((setting, choices.split(' ').collect()))
    };
    rows.filter_map(row).collect()
});
static VARIABLES: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    let rows = lines(include_str!(
        "../../data/simpletuner-4.10.1-environment.txt"
    ));
    rows.filter_map(|line| line.split_once(' ')).collect()
});
static DATASET_KEYS: LazyLock<HashSet<&str, Words>> =
    LazyLock::new(|| lines(include_str!("../../data/simpletuner-4.10.1-datasets.txt")).collect());
static WEIGHTS: LazyLock<Vec<(&str, &str, &str)>> = LazyLock::new(|| {
    let rows = lines(include_str!("../../data/simpletuner-4.10.1-weights.txt"));
    let row = |line: &'static str| {
        let mut words = line.split(' ');
        Some((words.next()?, words.next()?, words.next()?))
    };
    rows.filter_map(row).collect()
});

/// Characters of a word beyond which it is no slip of any known one.
const MAX_WORD_CHARS: usize = 64;

/// Hashes words for tables that hold words of these lists and no others. Nobody can fill them with words that collide, so the
/// quickest hash will do.
pub(super) type Words = foldhash::fast::FixedState;

/// The setting of SimpleTuner's that has this name.
pub(super) fn setting(name: &str) -> Option<&'static str> {
    SETTINGS.get(name).copied()
}

/// The setting that was probably meant.
pub(super) fn nearest_setting(name: &str) -> Option<&'static str> {
    nearest(name, SETTINGS.iter().copied())
}

/// The values a setting may have; `None` for a setting with an open range.
pub(super) fn choices(setting: &str) -> Option<&'static [&'static str]> {
    CHOICES.get(setting).map(Vec::as_slice)
}

/// Every setting with a closed list of values.
#[cfg(test)]
pub(super) fn settings_with_choices()
-> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    CHOICES
        .iter()
        .map(|(setting, choices)| (*setting, choices.as_slice()))
}

/// The setting that a variable of `config.env` stands for.
pub(super) fn setting_of_variable(name: &str) -> Option<&'static str> {
    VARIABLES.get(name).copied()
}

/// The variable that was probably meant.
pub(super) fn nearest_variable(name: &str) -> Option<&'static str> {
    nearest(name, VARIABLES.keys().copied())
}

/// Whether SimpleTuner reads this key of a data loader's entry.
pub(super) fn is_dataset_key(name: &str) -> bool {
    DATASET_KEYS.contains(name)
}

/// The key of a data loader's entry that was probably meant.
pub(super) fn nearest_dataset_key(name: &str) -> Option<&'static str> {
    nearest(name, DATASET_KEYS.iter().copied())
}

/// The flavours of a family whose published weights have this name, which is without the name of who published them.
pub(super) fn flavours_of_weights(family: &str, name: &str) -> Vec<&'static str> {
    let wanted =
        |row: &&(&str, &str, &str)| row.0 == family && own_name(row.2).eq_ignore_ascii_case(name);
    WEIGHTS.iter().filter(wanted).map(|row| row.1).collect()
}

fn own_name(weights: &str) -> &str {
    weights
        .rsplit_once('/')
        .map_or(weights, |(_publisher, name)| name)
}

/// The known word that differs from this one by the fewest slips, if that is few enough for a slip.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word
        .chars()
        .take(MAX_WORD_CHARS + 1)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if word.is_empty() || word.len() > MAX_WORD_CHARS {
        return None;
    }
    let allowed = (word.len() / 4).clamp(1, 3);
    // Every slip changes the length by one at most, and known words are plain ASCII.
    let near = known.filter(|known| known.len().abs_diff(word.len()) <= allowed);
    let ranked = near.map(|known| (slips(&word, known), known));
    ranked
        .filter(|(slips, _)| *slips <= allowed)
        .min()
        .map(|(_, known)| known)
}

/// How many characters must be added, dropped, exchanged or swapped with their neighbour, in lower case.
fn slips(word: &[char], known: &str) -> usize {
    let known: Vec<char> = known.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=known.len()).collect();
    for (row, &typed) in word.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, &meant) in known.iter().enumerate() {
            let exchanged = above[column] + usize::from(typed != meant);
            let mut least = exchanged
                .min(above[column + 1] + 1)
                .min(current[column] + 1);
            let swapped =
                row > 0 && column > 0 && typed == known[column - 1] && word[row - 1] == meant;
            if swapped {
                least = least.min(before[column - 1] + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[known.len()]
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Family;

    #[test]
    fn a_slip_finds_the_word_that_was_meant() {
        for (slip, meant) in [
            ("train_batchsize", Some("train_batch_size")),
            ("resoltuion", Some("resolution")),
            ("gradient_checkpointng", Some("gradient_checkpointing")),
            ("Max_Train_Step", Some("max_train_steps")),
            ("no_such_option", None),
            ("", None),
        ] {
            assert_eq!(nearest_setting(slip), meant, "{slip}");
        }
        assert_eq!(nearest_setting(&"x".repeat(100_000)), None);
        assert_eq!(nearest_dataset_key("repeat"), Some("repeats"));
        assert_eq!(nearest_variable("MAX_NUM_STEP"), Some("MAX_NUM_STEPS"));
    }

    #[test]
    fn the_lists_agree_with_each_other_and_with_the_registry() {
        for (setting, _) in settings_with_choices() {
            assert!(super::setting(setting).is_some(), "{setting}");
        }
        for (family, flavour, _) in WEIGHTS.iter() {
            let known = Family::find(family).expect("a family");
            assert!(
                known.flavours().any(|name| name == *flavour),
                "{family} {flavour}"
            );
        }
        assert!(WEIGHTS.len() > 100 && SETTINGS.len() > 500 && DATASET_KEYS.len() > 100);
    }

    #[test]
    fn published_weights_tell_their_flavour() {
        assert_eq!(flavours_of_weights("flux", "FLUX.1-dev"), ["dev"]);
        assert!(flavours_of_weights("sdxl", "FLUX.1-dev").is_empty());
    }

    #[test]
    fn each_flavour_with_published_weights_has_one_line() {
        for (family, flavour, weights) in WEIGHTS.iter() {
            let own = |row: &&(&str, &str, &str)| row.0 == *family && row.1 == *flavour;
            assert_eq!(WEIGHTS.iter().filter(own).count(), 1, "{family} {flavour}");
            let alike = |row: &(&str, &str, &str)| {
                row.0 != *family || row.2 == *weights || own_name(row.2) != own_name(weights)
            };
            assert!(WEIGHTS.iter().all(alike), "{family} {weights}");
        }
        for family in Family::all().filter(|family| family.name() != "bria") {
            for flavour in family.flavours() {
                let named = |row: &(&str, &str, &str)| row.0 == family.name() && row.1 == flavour;
                assert!(WEIGHTS.iter().any(named), "{family} {flavour}");
            }
        }
    }
}
