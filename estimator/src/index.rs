//! The index: every cell of the history in memory, so that an estimate reads no file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use stepcast_records::{
    Cell, Hardware, Key, Recipe, Row, TrainingShape, ValidationShape,
};

/// All cells, by recipe and hardware. Copies are cheap: they share every shelf.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    shelves: HashMap<(Recipe, Hardware), Arc<Shelf>>,
    hardware: HashMap<Recipe, Arc<BTreeSet<Hardware>>>,
    rows: u64,
}

/// The cells of one recipe on one hardware.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf {
    pub(crate) training: BTreeMap<TrainingShape, Cell>,
    pub(crate) validation: BTreeMap<ValidationShape, Cell>,
}

impl Index {
    /// Adds rows.
    pub(crate) fn add<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) {
        for row in rows {
            let shelf = self.shelf_mut(row.key.recipe(), row.key.hardware());
            match row.key {
                Key::Training(key) => shelf.training.entry(key.shape()).or_default().add(row),
                Key::Validation(key) => shelf.validation.entry(key.shape()).or_default().add(row),
            }
            self.rows += 1;
        }
    }

    /// The cells of a recipe on a hardware.
    pub(crate) fn shelf(&self, recipe: Recipe, hardware: Hardware) -> Option<&Shelf> {
        self.shelves.get(&(recipe, hardware)).map(Arc::as_ref)
    }

    /// Every hardware with cells of a recipe.
    pub(crate) fn hardware(&self, recipe: Recipe) -> impl Iterator<Item = Hardware> {
        self.hardware.get(&recipe).into_iter().flat_map(|hardware| hardware.iter().copied())
    }

    /// How many rows were added.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// How many cells there are.
    pub(crate) fn cells(&self) -> usize {
        let cells = |shelf: &Arc<Shelf>| shelf.training.len() + shelf.validation.len();
        self.shelves.values().map(cells).sum()
    }

    fn shelf_mut(&mut self, recipe: Recipe, hardware: Hardware) -> &mut Shelf {
        let shelf = self.shelves.entry((recipe, hardware)).or_insert_with(|| {
            let known = self.hardware.entry(recipe).or_default();
            Arc::make_mut(known).insert(hardware);
            Arc::default()
        });
        Arc::make_mut(shelf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hardware, row, training_key, validation_key};

    #[test]
    fn a_copy_does_not_see_what_is_added_later() {
        let key = training_key("flux.dev/lora", "rtx4090");
        let mut index = Index::default();
        index.add(&[row(key, 14_000, 150)]);
        let before = index.clone();
        index.add(&[row(key, 14_200, 150), row(validation_key("flux.dev/lora", "h100"), 9_000, 9)]);
        let rows = |index: &Index| {
            let shelf = index.shelf(key.recipe, key.hardware).expect("shelf");
            shelf.training[&key.shape()].rows()
        };
        assert_eq!((rows(&before), rows(&index)), (1, 2));
        assert_eq!((before.cells(), index.cells(), index.rows()), (1, 2, 3));
        let known: Vec<Hardware> = index.hardware(key.recipe).collect();
        assert_eq!(known, [hardware("rtx4090"), hardware("h100")]);
        assert!(index.shelf(key.recipe, hardware("h100x2")).is_none());
    }
}
