//! Texts that begin alike, sorted so that a place in a line costs about the same however many there are.
//!
//! A library holds hundreds of thousands of prompts that all begin with the same words, and each line is looked through while
//! leases are to be renewed.

use super::private::Known;

/// Of texts that begin with each other so many are tried, the longest first.
const TRIED: usize = 16;

/// Sorted texts, each with the place of the longest other one that it begins with.
#[derive(Clone, Default)]
pub(super) struct Bucket {
    texts: Vec<(Known, Option<usize>)>,
}

impl Bucket {
    /// Takes the next text; they come in order.
    pub(super) fn push(&mut self, known: Known) {
        let mut place = self.texts.len().checked_sub(1);
        while let Some(at) = place
            && !known.text.starts_with(self.texts[at].0.text.as_str())
        {
            place = self.texts[at].1;
        }
        self.texts.push((known, place));
    }

    /// The texts that this begins with, the longest first, a few at most.
    pub(super) fn whole(&self, rest: &str) -> impl Iterator<Item = &Known> {
        let last = self.behind(rest).checked_sub(1);
        // Whatever else begins this is a beginning of that one.
        let same = last.map_or(0, |last| alike(&self.texts[last].0.text, rest));
        let places = std::iter::successors(last, |at| self.texts[*at].1);
        let known = places.map(|at| &self.texts[at].0);
        known
            .filter(move |known| known.text.len() <= same)
            .take(TRIED)
    }

    /// How many bytes this has in common with the beginning of the text that is most like it.
    pub(super) fn alike(&self, rest: &str) -> usize {
        let behind = self.behind(rest);
        let places = behind.saturating_sub(1)..self.texts.len().min(behind + 1);
        let common = places.map(|at| alike(&self.texts[at].0.text, rest));
        common.max().unwrap_or_default()
    }

    fn behind(&self, rest: &str) -> usize {
        self.texts
            .partition_point(|(known, _)| known.text.as_str() <= rest)
    }
}

/// How many bytes two texts begin with alike.
fn alike(text: &str, rest: &str) -> usize {
    const CHUNK: usize = 64;
    let (one, other) = (text.as_bytes(), rest.as_bytes());
    let chunks = one.chunks(CHUNK).zip(other.chunks(CHUNK));
    let from = CHUNK * chunks.take_while(|(a, b)| a == b).count();
    let from = from.min(one.len()).min(other.len());
    let bytes = one[from..].iter().zip(&other[from..]);
    let same = from + bytes.take_while(|(a, b)| a == b).count();
    text.floor_char_boundary(same)
}
