//! The index: every cell of the history in memory, so that an estimate reads no file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use stepcast_records::{Cell, Hardware, Key, Recipe, Row, TrainingShape, ValidationShape};

use crate::table::Kind;

/// All cells, by recipe and hardware. Copies are cheap: they share every shelf.
///
/// A row lies under the hardware it names and nowhere else, so the times of the pretend device can be found under
/// the pretend device only.
#[derive(Debug, Clone, Default)]
pub struct Index {
    shelves: HashMap<(Recipe, Hardware), Arc<Shelf>>,
    hardware: HashMap<Recipe, Arc<BTreeSet<Hardware>>>,
    training_rows: u64,
    validation_rows: u64,
}

/// The cells of one recipe on one hardware.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    /// Step times, by shape.
    pub training: BTreeMap<TrainingShape, Cell>,
    /// Times of validation prompts, by shape.
    pub validation: BTreeMap<ValidationShape, Cell>,
}

impl Index {
    /// Adds rows.
    pub fn add<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) {
        for row in rows {
            match row.key {
                Key::Training(key) => {
                    let shelf = self.shelf_mut(key.recipe, key.hardware);
                    shelf.training.entry(key.shape()).or_default().add(row);
                    self.training_rows += 1;
                }
                Key::Validation(key) => {
                    let shelf = self.shelf_mut(key.recipe, key.hardware);
                    shelf.validation.entry(key.shape()).or_default().add(row);
                    self.validation_rows += 1;
                }
            }
        }
    }

    /// Forgets the rows of one table, before all of them are added anew.
    pub(crate) fn forget(&mut self, kind: Kind) {
        for shelf in self.shelves.values_mut() {
            let shelf = Arc::make_mut(shelf);
            match kind {
                Kind::Training => shelf.training.clear(),
                Kind::Validation => shelf.validation.clear(),
            }
        }
        self.shelves.retain(|_, shelf| !shelf.is_empty());
        self.hardware.clear();
        for &(recipe, hardware) in self.shelves.keys() {
            Arc::make_mut(self.hardware.entry(recipe).or_default()).insert(hardware);
        }
        *self.rows_mut(kind) = 0;
    }

    /// The cells of a recipe on a hardware.
    #[must_use]
    pub fn shelf(&self, recipe: Recipe, hardware: Hardware) -> Option<&Shelf> {
        self.shelves.get(&(recipe, hardware)).map(Arc::as_ref)
    }

    /// The cell of exactly this training key.
    #[must_use]
    pub fn training(&self, shape: &TrainingShape, hardware: Hardware) -> Option<&Cell> {
        self.shelf(shape.recipe, hardware)?.training.get(shape)
    }

    /// The cell of exactly this validation key.
    #[must_use]
    pub fn validation(&self, shape: &ValidationShape, hardware: Hardware) -> Option<&Cell> {
        self.shelf(shape.recipe, hardware)?.validation.get(shape)
    }

    /// Every real hardware with cells of a recipe. The pretend device is left out: nothing may be inferred from it.
    pub fn hardware(&self, recipe: Recipe) -> impl Iterator<Item = Hardware> {
        let known = self.hardware.get(&recipe).into_iter();
        known
            .flat_map(|known| known.iter().copied())
            .filter(|hardware| !hardware.is_replay())
    }

    /// Every shelf, in no order.
    pub fn shelves(&self) -> impl Iterator<Item = (Recipe, Hardware, &Shelf)> {
        self.shelves
            .iter()
            .map(|(&(recipe, hardware), shelf)| (recipe, hardware, shelf.as_ref()))
    }

    /// How many rows were added to one table's part.
    #[must_use]
    pub const fn rows(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Training => self.training_rows,
            Kind::Validation => self.validation_rows,
        }
    }

    /// How many cells there are.
    #[must_use]
    pub fn cells(&self) -> usize {
        let cells = |shelf: &Arc<Shelf>| shelf.training.len() + shelf.validation.len();
        self.shelves.values().map(cells).sum()
    }

    fn rows_mut(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Training => &mut self.training_rows,
            Kind::Validation => &mut self.validation_rows,
        }
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

impl Shelf {
    /// Whether there is no cell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.training.is_empty() && self.validation.is_empty()
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
        index.add(&[
            row(key, 14_200, 150),
            row(validation_key("flux.dev/lora", "h100"), 9_000, 9),
        ]);
        let rows = |index: &Index| {
            index
                .training(&key.shape(), key.hardware)
                .expect("cell")
                .rows()
        };
        assert_eq!((rows(&before), rows(&index)), (1, 2));
        assert_eq!((before.cells(), index.cells()), (1, 2));
        assert_eq!(
            (index.rows(Kind::Training), index.rows(Kind::Validation)),
            (2, 1)
        );
        let known: Vec<Hardware> = index.hardware(key.recipe).collect();
        assert_eq!(known, [hardware("rtx4090"), hardware("h100")]);
        assert!(index.shelf(key.recipe, hardware("h100x2")).is_none());
    }

    #[test]
    fn one_tables_rows_can_be_replaced() {
        let (training, validation) = (
            training_key("flux.dev/lora", "rtx4090"),
            validation_key("flux.dev/lora", "h100"),
        );
        let mut index = Index::default();
        index.add(&[row(training, 14_000, 150), row(validation, 9_000, 9)]);
        index.forget(Kind::Training);
        assert!(
            index
                .training(&training.shape(), training.hardware)
                .is_none()
        );
        assert!(
            index
                .validation(&validation.shape(), validation.hardware)
                .is_some()
        );
        assert_eq!(
            (index.rows(Kind::Training), index.rows(Kind::Validation)),
            (0, 1)
        );
        let known: Vec<Hardware> = index.hardware(training.recipe).collect();
        assert_eq!(
            known,
            [hardware("h100")],
            "a hardware without cells is not known"
        );
    }

    #[test]
    fn the_pretend_device_is_found_only_by_its_own_name() {
        let replay = training_key("flux.dev/lora", "replay");
        let mut index = Index::default();
        index.add(&[row(replay, 14, 150)]);
        assert_eq!(index.hardware(replay.recipe).count(), 0);
        assert!(
            index
                .training(&replay.shape(), hardware("replay"))
                .is_some()
        );
        for real in Hardware::all().filter(|hardware| !hardware.is_replay()) {
            assert!(index.shelf(replay.recipe, real).is_none(), "{real}");
        }
    }
}
