//! The index: every cell of the history in memory, so that an estimate reads no file.

mod aside;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use stepcast_records::{Cell, Hardware, Key, Recipe, Row, TrainingShape, ValidationShape};

use crate::table::Kind;

/// All cells, by recipe and hardware. Copies are cheap: they share every shelf.
///
/// A row lies under the hardware it names and nowhere else, so the times of the pretend device can be found under
/// the pretend device only.
#[derive(Debug, Clone, Default)]
pub struct Index {
    shelves: ByNumbers<(Recipe, Hardware), Arc<Shelf>>,
    /// Where each recipe was measured, by table.
    homes: [ByNumbers<Recipe, Arc<BTreeSet<Hardware>>>; 2],
    training_rows: u64,
    validation_rows: u64,
}

/// A table by numbers of the registries. Nobody from outside chooses these, so a plain hash is good enough; an estimate
/// looks for some hundreds of recipes that are not there.
type ByNumbers<K, V> = HashMap<K, V, BuildHasherDefault<Numbers>>;

/// The numbers one after the other, mixed.
#[derive(Debug, Clone, Copy, Default)]
struct Numbers(u64);

impl Numbers {
    const fn mix(&mut self, number: u64) {
        self.0 = (self.0 ^ number)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
}

impl Hasher for Numbers {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(u64::from(number));
    }

    fn write_u16(&mut self, number: u16) {
        self.mix(u64::from(number));
    }
}

/// The cells of one recipe on one hardware.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    /// Step times, by shape.
    pub training: BTreeMap<TrainingShape, Cell>,
    /// Times of validation prompts, by shape.
    pub validation: BTreeMap<ValidationShape, Cell>,
    /// Cells that are implausible beside the others, so that no estimate rests on them.
    aside: Aside,
}

#[derive(Debug, Clone, Default)]
struct Aside {
    training: BTreeMap<TrainingShape, Cell>,
    validation: BTreeMap<ValidationShape, Cell>,
}

impl Index {
    /// Adds rows, and looks anew which cells are plausible beside their neighbours.
    pub fn add<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) {
        let mut touched = BTreeSet::new();
        let mut last = None;
        for row in rows {
            self.add_one(row);
            // Rows of a file lie in the order of their keys.
            let shelf = (row.key.recipe(), row.key.hardware());
            if last.replace(shelf) != Some(shelf) {
                touched.insert(shelf);
            }
        }
        for (recipe, hardware) in touched {
            self.shelf_mut(recipe, hardware).judge();
        }
    }

    /// Adds rows without a look at their neighbours; [`Index::judge`] does that when all are there.
    pub(crate) fn gather<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) {
        rows.into_iter().for_each(|row| self.add_one(row));
    }

    /// Looks at every shelf which cells are plausible beside the others.
    pub(crate) fn judge(&mut self) {
        for shelf in self.shelves.values_mut() {
            Arc::make_mut(shelf).judge();
        }
    }

    /// Takes in a cell of a key that has none yet.
    pub(crate) fn put(&mut self, key: Key, cell: Cell) {
        *self.rows_mut(Kind::of(&key)) += u64::from(cell.rows());
        let shelf = self.shelf_of(&key);
        match key {
            Key::Training(key) => drop(shelf.training.insert(key.shape(), cell)),
            Key::Validation(key) => drop(shelf.validation.insert(key.shape(), cell)),
        }
    }

    /// Takes in the cells of one table of another index, in the place of those of this one.
    pub(crate) fn replace(&mut self, kind: Kind, other: Self) {
        self.forget(kind);
        *self.rows_mut(kind) = other.rows(kind);
        for ((recipe, hardware), from) in other.shelves {
            let from = Arc::unwrap_or_clone(from);
            if from.is_without(kind) {
                continue;
            }
            self.settle(kind, recipe, hardware);
            let shelf = self.shelf_mut(recipe, hardware);
            match kind {
                Kind::Training => {
                    (shelf.training, shelf.aside.training) = (from.training, from.aside.training);
                }
                Kind::Validation => {
                    shelf.validation = from.validation;
                    shelf.aside.validation = from.aside.validation;
                }
            }
        }
    }

    /// Every cell of one table, those that were set aside too, in no order.
    pub(crate) fn cells_of(&self, kind: Kind) -> impl Iterator<Item = (Key, &Cell)> {
        self.served(kind).chain(self.aside(kind))
    }

    /// The cells of one table that estimates rest on, in no order.
    pub(crate) fn served(&self, kind: Kind) -> impl Iterator<Item = (Key, &Cell)> {
        self.shelves
            .iter()
            .flat_map(move |(&(_, hardware), shelf)| {
                let (training, validation) = match kind {
                    Kind::Training => (Some(&shelf.training), None),
                    Kind::Validation => (None, Some(&shelf.validation)),
                };
                keyed(hardware, training, validation)
            })
    }

    /// The cells of one table that were set aside, in no order.
    pub fn aside(&self, kind: Kind) -> impl Iterator<Item = (Key, &Cell)> {
        self.shelves
            .iter()
            .flat_map(move |(&(_, hardware), shelf)| {
                let (training, validation) = match kind {
                    Kind::Training => (Some(&shelf.aside.training), None),
                    Kind::Validation => (None, Some(&shelf.aside.validation)),
                };
                keyed(hardware, training, validation)
            })
    }

    /// Forgets the rows of one table, before all of them are added anew.
    pub(crate) fn forget(&mut self, kind: Kind) {
        for shelf in self.shelves.values_mut() {
            let shelf = Arc::make_mut(shelf);
            match kind {
                Kind::Training => {
                    shelf.training.clear();
                    shelf.aside.training.clear();
                }
                Kind::Validation => {
                    shelf.validation.clear();
                    shelf.aside.validation.clear();
                }
            }
        }
        self.shelves.retain(|_, shelf| !shelf.is_empty());
        self.homes[kind as usize].clear();
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
        let [training, _] = &self.homes;
        let is_listed = move |hardware: &Hardware| {
            let listed = training.get(&recipe);
            listed.is_some_and(|listed| listed.contains(hardware))
        };
        let more = self.homes(Kind::Validation, recipe);
        self.homes(Kind::Training, recipe)
            .chain(more.filter(move |hardware| !is_listed(hardware)))
    }

    /// The same for the cells of one table.
    pub(crate) fn homes(&self, kind: Kind, recipe: Recipe) -> impl Iterator<Item = Hardware> {
        let known = self.homes[kind as usize].get(&recipe).into_iter();
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

    /// How many cells estimates rest on.
    #[must_use]
    pub fn cells(&self) -> usize {
        let cells = |shelf: &Arc<Shelf>| shelf.training.len() + shelf.validation.len();
        self.shelves.values().map(cells).sum()
    }

    fn add_one(&mut self, row: &Row) {
        let shelf = self.shelf_of(&row.key);
        shelf.cell_mut(&row.key).add(row);
        *self.rows_mut(Kind::of(&row.key)) += 1;
    }

    fn rows_mut(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Training => &mut self.training_rows,
            Kind::Validation => &mut self.validation_rows,
        }
    }

    fn shelf_mut(&mut self, recipe: Recipe, hardware: Hardware) -> &mut Shelf {
        let shelf = self.shelves.entry((recipe, hardware)).or_default();
        Arc::make_mut(shelf)
    }

    /// The shelf of a key, whose first cell in its table makes the hardware known.
    fn shelf_of(&mut self, key: &Key) -> &mut Shelf {
        let (kind, recipe, hardware) = (Kind::of(key), key.recipe(), key.hardware());
        if self.shelf_mut(recipe, hardware).is_without(kind) {
            self.settle(kind, recipe, hardware);
        }
        self.shelf_mut(recipe, hardware)
    }

    fn settle(&mut self, kind: Kind, recipe: Recipe, hardware: Hardware) {
        let known = self.homes[kind as usize].entry(recipe).or_default();
        Arc::make_mut(known).insert(hardware);
    }
}

impl Shelf {
    /// Whether there is no cell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.training.is_empty() && self.validation.is_empty() && self.aside.is_empty()
    }

    /// Whether there is no cell of one table.
    fn is_without(&self, kind: Kind) -> bool {
        match kind {
            Kind::Training => self.training.is_empty() && self.aside.training.is_empty(),
            Kind::Validation => self.validation.is_empty() && self.aside.validation.is_empty(),
        }
    }

    /// The cell of a key, also when it was set aside.
    fn cell_mut(&mut self, key: &Key) -> &mut Cell {
        match key {
            Key::Training(key) => match self.aside.training.get_mut(&key.shape()) {
                Some(cell) => cell,
                None => self.training.entry(key.shape()).or_default(),
            },
            Key::Validation(key) => match self.aside.validation.get_mut(&key.shape()) {
                Some(cell) => cell,
                None => self.validation.entry(key.shape()).or_default(),
            },
        }
    }

    /// Looks anew which cells are plausible beside the others.
    fn judge(&mut self) {
        aside::judge(&mut self.training, &mut self.aside.training);
        aside::judge(&mut self.validation, &mut self.aside.validation);
    }
}

impl Aside {
    fn is_empty(&self) -> bool {
        self.training.is_empty() && self.validation.is_empty()
    }
}

fn keyed<'a>(
    hardware: Hardware,
    training: Option<&'a BTreeMap<TrainingShape, Cell>>,
    validation: Option<&'a BTreeMap<ValidationShape, Cell>>,
) -> impl Iterator<Item = (Key, &'a Cell)> {
    let training = training.into_iter().flatten();
    let training = training.map(move |(shape, cell)| (Key::Training(shape.on(hardware)), cell));
    let validation = validation.into_iter().flatten();
    training.chain(validation.map(move |(shape, cell)| (Key::Validation(shape.on(hardware)), cell)))
}
