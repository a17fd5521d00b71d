//! A sorted table in pages that are shared with views of it, and copied one at a time when they are changed.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries of one page: few enough that copying one is quick, and many enough that a view of a million entries is a few
/// thousand pointers.
const PAGE: usize = 128;

/// A map whose copies are cheap: a copy shares every page until either side changes it.
///
/// It is made for keys that grow: whatever comes last is put at the end of the last page.
#[derive(Debug, Clone)]
pub(crate) struct Pages<K, V> {
    /// By a bound that no key in the page is below of. No page is empty.
    pages: BTreeMap<K, Arc<Vec<(K, V)>>>,
    len: usize,
}

impl<K, V> Default for Pages<K, V> {
    fn default() -> Self {
        Self {
            pages: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<K: Ord + Copy, V: Clone> Pages<K, V> {
    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let (_, page) = self.pages.range(..=key).next_back()?;
        let at = place(page, key).ok()?;
        page.get(at).map(|(_, value)| value)
    }

    /// The value of a key, to be changed: its page is from here on this table's own.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (_, page) = self.pages.range_mut(..=key).next_back()?;
        let at = place(page, key).ok()?;
        Arc::make_mut(page).get_mut(at).map(|(_, value)| value)
    }

    /// Puts a value under a key, in the place of the one that was there.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let Some((_, page)) = self.pages.range_mut(..=key).next_back() else {
            self.len += 1;
            self.pages.insert(key, Arc::new(vec![(key, value)]));
            return;
        };
        match place(page, &key) {
            Ok(at) => Arc::make_mut(page)[at].1 = value,
            Err(at) => {
                self.len += 1;
                if page.len() < PAGE {
                    Arc::make_mut(page).insert(at, (key, value));
                } else if at == page.len() {
                    self.pages.insert(key, Arc::new(vec![(key, value)]));
                } else {
                    self.split(at, key, value);
                }
            }
        }
    }

    /// Puts a value into the middle of a full page, which becomes two.
    fn split(&mut self, at: usize, key: K, value: V) {
        let Some((_, page)) = self.pages.range_mut(..=key).next_back() else {
            return;
        };
        let page = Arc::make_mut(page);
        page.insert(at, (key, value));
        let upper = page.split_off(page.len() / 2);
        if let Some((bound, _)) = upper.first() {
            self.pages.insert(*bound, Arc::new(upper));
        }
    }

    /// Takes a key out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (bound, page) = self.pages.range_mut(..=key).next_back()?;
        let at = place(page, key).ok()?;
        self.len -= 1;
        if page.len() == 1 {
            let bound = *bound;
            let page = self.pages.remove(&bound)?;
            return page.first().map(|(_, value)| value.clone());
        }
        let page = Arc::make_mut(page);
        let (_, value) = page.remove(at);
        // What is left of an old page must not hold the room of a full one.
        if page.len() <= page.capacity() / 4 {
            page.shrink_to_fit();
        }
        Some(value)
    }

    /// Every entry, in the order of the keys.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (K, &V)> {
        let pages = self.pages.values();
        pages.flat_map(|page| page.iter().map(|(key, value)| (*key, value)))
    }

    /// The entries behind a key.
    pub(crate) fn after(&self, key: K) -> impl Iterator<Item = (K, &V)> {
        // The page that the key would be in begins at or before it.
        let from = self.pages.range(..=key).next_back();
        let first = from.map_or(key, |(bound, _)| *bound);
        let pages = self.pages.range(first..).flat_map(|(_, page)| page.iter());
        pages
            .skip_while(move |(other, _)| *other <= key)
            .map(|(key, value)| (*key, value))
    }

    /// The entries before a key, the greatest first.
    pub(crate) fn before(&self, key: K) -> impl Iterator<Item = (K, &V)> {
        let pages = self.pages.range(..=key).rev();
        pages
            .flat_map(|(_, page)| page.iter().rev())
            .skip_while(move |(other, _)| *other >= key)
            .map(|(key, value)| (*key, value))
    }

    /// The entry with the least key.
    pub(crate) fn first(&self) -> Option<(K, &V)> {
        self.iter().next()
    }

    /// The entry with the greatest key.
    pub(crate) fn last(&self) -> Option<(K, &V)> {
        self.iter().next_back()
    }
}

impl<K: Ord + Copy, V: Clone + PartialEq> PartialEq for Pages<K, V> {
    /// Where the pages end is nobody's business.
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

/// Where a key is in a page, or would be.
fn place<K: Ord, V>(page: &[(K, V)], key: &K) -> Result<usize, usize> {
    // What grows is looked for at its end.
    match page.last() {
        Some((last, _)) if last < key => Err(page.len()),
        _ => page.binary_search_by(|(other, _)| other.cmp(key)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What one step does to the table and to a plain map beside it.
    #[derive(Debug, Clone)]
    enum Step {
        Push(u16),
        Put(u16, u8),
        Change(u16, u8),
        Remove(u16),
        View,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..3_u16).prop_map(Step::Push),
            2 => (0..900_u16, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
            2 => (0..900_u16, any::<u8>()).prop_map(|(key, value)| Step::Change(key, value)),
            3 => (0..900_u16).prop_map(Step::Remove),
            1 => Just(Step::View),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_does_what_a_plain_map_does_and_a_view_stays_what_it_was(steps in prop::collection::vec(step(), 0..900)) {
            let (mut table, mut plain) = (Pages::default(), BTreeMap::new());
            let mut views = Vec::new();
            for step in steps {
                match step {
                    Step::Push(by) => {
                        let key = plain.last_key_value().map_or(0, |(key, _)| *key) + by;
                        table.insert(key, 0);
                        plain.insert(key, 0);
                    }
                    Step::Put(key, value) => {
                        table.insert(key, value);
                        plain.insert(key, value);
                    }
                    Step::Change(key, by) => {
                        let (here, there) = (table.get_mut(&key), plain.get_mut(&key));
                        prop_assert_eq!(here.is_some(), there.is_some());
                        if let (Some(here), Some(there)) = (here, there) {
                            *here = by;
                            *there = by;
                        }
                    }
                    Step::Remove(key) => prop_assert_eq!(table.remove(&key), plain.remove(&key)),
                    Step::View => views.push((table.clone(), plain.clone())),
                }
            }
            views.push((table, plain));
            for (table, plain) in &views {
                prop_assert_eq!(table.len(), plain.len());
                prop_assert!(table.iter().eq(plain.iter().map(|(key, value)| (*key, value))));
                prop_assert!(table.iter().rev().eq(plain.iter().rev().map(|(key, value)| (*key, value))));
                prop_assert_eq!(table.first(), plain.first_key_value().map(|(key, value)| (*key, value)));
                for key in (0..1_000).step_by(37) {
                    prop_assert_eq!(table.get(&key), plain.get(&key));
                    let after: Vec<_> = table.after(key).map(|(key, _)| key).collect();
                    prop_assert!(after.iter().eq(plain.range(key + 1..).map(|(key, _)| key)));
                    let before: Vec<_> = table.before(key).map(|(key, _)| key).collect();
                    prop_assert!(before.iter().eq(plain.range(..key).rev().map(|(key, _)| key)));
                }
                prop_assert!(table.pages.values().all(|page| (1..=PAGE).contains(&page.len())));
            }
        }
    }
}
