//! Where else a shape was measured: the shelves of its family, closest recipes first. A shelf is looked at only where
//! it may hold something better than what was found already, so that a wide family costs little more than a narrow one.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use stepcast_records::{Cell, Family, Hardware, Recipe};

use super::shape::Shape;
use super::width;
use crate::index::{Index, Shelf};
use crate::table::Kind;

/// Cells looked at before and after the place of the key on its own shelf. In key order the neighbours share
/// resolution and batch, so further ones are worse; the bound keeps a crowded shelf from costing milliseconds.
pub(super) const NEIGHBOURS_OWN: usize = 256;
/// The same on each other shelf of the family.
const NEIGHBOURS_OTHER: usize = 8;
/// Shelves of relatives listed, closest recipes first. A video family has hundreds of recipes, on every hardware.
const RELATIVES_MAX: usize = 512;

/// A cell that may stand in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a, S> {
    pub(super) shape: S,
    pub(super) hardware: Hardware,
    pub(super) cell: &'a Cell,
    pub(super) published: bool,
    /// Of everything but the hardware.
    pub(super) variance: f64,
}

/// The shelves of a shape's family as far as they were listed, for any number of hardwares.
pub(super) struct Relatives<'a, S> {
    sources: [(&'a Index, bool); 2],
    /// Recipes that are not listed yet; `None` before the first is needed.
    recipes: Option<std::slice::Iter<'static, Recipe>>,
    listed: Vec<Listed<'a, S>>,
}

/// A shelf of a relative.
struct Listed<'a, S> {
    shelf: &'a Shelf,
    recipe: Recipe,
    hardware: Hardware,
    published: bool,
    /// Of the recipe.
    variance: f64,
    /// Its best cell, once it was looked at; the shelf may hold none of the kind.
    best: Option<Option<Candidate<'a, S>>>,
}

impl<'a, S: Shape> Relatives<'a, S> {
    /// Nothing is listed yet.
    pub(super) const fn of(sources: [(&'a Index, bool); 2]) -> Self {
        Self {
            sources,
            recipes: None,
            listed: Vec::new(),
        }
    }

    /// The cell that is the least away for a hardware: of equals the one that is listed first.
    pub(super) fn best(&mut self, shape: &S, hardware: Hardware) -> Option<Candidate<'a, S>> {
        // A cell of the same hardware is often the best; with it in hand most shelves need no look.
        let same = self.listed.iter().position(|l| l.hardware == hardware);
        let mut best = same.and_then(|at| self.judged(at, shape, hardware));
        let mut at = 0;
        while at < self.listed.len() || self.list_more(shape) {
            let listed = &self.listed[at];
            let least = listed.variance + width::of_hardware(listed.hardware, hardware);
            let most = best.map_or(f64::INFINITY, |(variance, ..)| variance);
            if listed.variance > most {
                break;
            }
            if least <= most && is_comparable(listed.hardware, hardware) {
                let found = self.judged(at, shape, hardware);
                let is_better = |found: &(f64, usize, _)| {
                    best.is_none_or(|best| (found.0, found.1) < (best.0, best.1))
                };
                best = found.filter(is_better).or(best);
            }
            at += 1;
        }
        best.map(|(_, _, candidate)| candidate)
    }

    /// The best cell of a listed shelf, with all of its variance and its place.
    fn judged(
        &mut self,
        at: usize,
        shape: &S,
        hardware: Hardware,
    ) -> Option<(f64, usize, Candidate<'a, S>)> {
        let listed = &mut self.listed[at];
        let look = || {
            let from = (listed.recipe, listed.hardware, listed.published);
            let nearest = nearest(shape, listed.shelf, from, NEIGHBOURS_OTHER);
            nearest.map(|found| Candidate {
                variance: found.variance + listed.variance,
                ..found
            })
        };
        let candidate = (*listed.best.get_or_insert_with(look))?;
        let variance = candidate.variance + width::of_hardware(candidate.hardware, hardware);
        Some((variance, at, candidate))
    }

    /// Lists the shelves of the next recipe that has some; false when there are no more.
    fn list_more(&mut self, shape: &S) -> bool {
        let before = self.listed.len();
        let recipes = self
            .recipes
            .get_or_insert_with(|| closest_first(shape).iter());
        while before < RELATIVES_MAX
            && self.listed.len() == before
            && let Some(&recipe) = recipes.next()
        {
            let has_some =
                |(index, _): &(&Index, bool)| index.homes(S::KIND, recipe).next().is_some();
            if !self.sources.iter().any(has_some) {
                continue;
            }
            let variance = shape.recipe_variance(recipe);
            for (index, published) in self.sources {
                let shelves = index.homes(S::KIND, recipe).filter_map(|hardware| {
                    Some(Listed {
                        shelf: index.shelf(recipe, hardware)?,
                        recipe,
                        hardware,
                        published,
                        variance,
                        best: None,
                    })
                });
                self.listed.extend(shelves);
            }
        }
        self.listed.len() > before
    }
}

/// Times of the host's processor and of the pretend device say something about themselves only.
fn is_comparable(from: Hardware, to: Hardware) -> bool {
    from.gpu == to.gpu || (from.gpu.is_gpu() && to.gpu.is_gpu())
}

/// The cell of a shelf that is the least away, recipe and hardware apart.
pub(super) fn nearest<'a, S: Shape>(
    shape: &S,
    shelf: &'a Shelf,
    (recipe, hardware, published): (Recipe, Hardware, bool),
    neighbours: usize,
) -> Option<Candidate<'a, S>> {
    let cells = S::cells(shelf);
    let place = shape.of(recipe);
    let mut best: Option<(f64, &S, &Cell)> = None;
    let mut look = |(other, cell): (&'a S, &'a Cell)| {
        let most = best.map_or(f64::INFINITY, |(away, ..)| away);
        let least = shape.resolution_variance(other);
        if least >= most {
            // So are all behind it.
            return None;
        }
        let away = least + shape.variance(other);
        if away < most {
            best = Some((away, other, cell));
        }
        Some(())
    };
    let _ = cells
        .range(place..)
        .take(neighbours)
        .try_for_each(&mut look);
    let _ = cells
        .range(..place)
        .rev()
        .take(neighbours)
        .try_for_each(look);
    let (away, other, cell) = best?;
    let source = if published {
        width::of_published()
    } else {
        0.0
    };
    Some(Candidate {
        shape: *other,
        hardware,
        cell,
        published,
        variance: away + width::within(cell) + source,
    })
}

/// The recipes of a shape's family by how far their times are carried, the closest first. That depends on the registry
/// alone, so it is found once for each recipe that is asked about.
fn closest_first<S: Shape>(shape: &S) -> &'static [Recipe] {
    static STEPS: LazyLock<Orders> = LazyLock::new(orders);
    static IMAGES: LazyLock<Orders> = LazyLock::new(orders);
    let orders = match S::KIND {
        Kind::Training => &*STEPS,
        Kind::Validation => &*IMAGES,
    };
    let recipe = shape.recipe();
    let order = orders.get(&recipe);
    order.map_or(&[], |order| {
        order.get_or_init(|| {
            let mut recipes: Vec<(f64, Recipe)> = family(recipe.family())
                .iter()
                .map(|&other| (shape.recipe_variance(other), other))
                .collect();
            recipes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            recipes.into_iter().map(|(_, recipe)| recipe).collect()
        })
    })
}

/// An order for each recipe, once it is needed.
type Orders = HashMap<Recipe, OnceLock<Box<[Recipe]>>>;

fn orders() -> Orders {
    Recipe::all()
        .map(|recipe| (recipe, OnceLock::new()))
        .collect()
}

/// Every recipe of a family.
fn family(family: Family) -> &'static [Recipe] {
    static RECIPES: LazyLock<HashMap<Family, Vec<Recipe>>> = LazyLock::new(|| {
        let mut recipes: HashMap<Family, Vec<Recipe>> = HashMap::new();
        for recipe in Recipe::all() {
            recipes.entry(recipe.family()).or_default().push(recipe);
        }
        recipes
    });
    RECIPES.get(&family).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;
    use stepcast_records::{BatchSize, HalfMegapixels, Row, TrainingShape};

    use super::*;
    use crate::testing::{hardware, row, training_key};

    const HARDWARE: [&str; 6] = ["h100", "l40s", "rtx4090", "h100x4", "rtx3090", "replay"];

    /// Rows of one family on some hardware.
    fn any_rows() -> impl Strategy<Value = Vec<Row>> {
        let recipes = family(Family::find("wan").expect("family"));
        let key = (
            select(recipes.to_vec()),
            select(HARDWARE.to_vec()),
            select(HalfMegapixels::all().take(6).collect::<Vec<_>>()),
            select(BatchSize::all().take(5).collect::<Vec<_>>()),
            1u32..4,
        );
        let rows = key.prop_map(|(recipe, on, resolution, batch_size, runs)| {
            let mut key = training_key(recipe.name(), on);
            (key.resolution, key.batch_size) = (resolution, batch_size);
            vec![row(key, 900, 100); runs as usize]
        });
        prop::collection::vec(rows, 0..40).prop_map(|rows| rows.concat())
    }

    /// The least variance among the neighbours on every shelf of the family.
    fn least(shape: &TrainingShape, sources: [(&Index, bool); 2], on: Hardware) -> Option<f64> {
        let mut all = Vec::new();
        for &recipe in closest_first(shape) {
            for (index, published) in sources {
                for from in index.homes(Kind::Training, recipe) {
                    let cells = &index.shelf(recipe, from).expect("a shelf").training;
                    let place = shape.of(recipe);
                    let behind = cells.range(..place).rev().take(NEIGHBOURS_OTHER);
                    let around = cells.range(place..).take(NEIGHBOURS_OTHER).chain(behind);
                    let away = |other| shape.resolution_variance(other) + shape.variance(other);
                    let (_, cell, away) = around
                        .map(|(other, cell)| (other, cell, away(other)))
                        .min_by(|a, b| a.2.total_cmp(&b.2))
                        .expect("cells");
                    let source = if published {
                        width::of_published()
                    } else {
                        0.0
                    };
                    let variance = shape.recipe_variance(recipe) + away;
                    let variance = variance + width::within(cell) + source;
                    if is_comparable(from, on) {
                        all.push(variance + width::of_hardware(from, on));
                    }
                }
            }
        }
        all.into_iter().min_by(f64::total_cmp)
    }

    proptest! {
        #[test]
        fn no_look_that_is_left_out_would_have_found_better(
            rows in any_rows(), published in any_rows(), asked in any_rows(), order in Just(HARDWARE.to_vec()).prop_shuffle(),
        ) {
            let (mut records, mut figures) = (Index::default(), Index::default());
            records.add(&rows);
            figures.add(&published);
            let sources = [(&records, false), (&figures, true)];
            let Some(stepcast_records::Key::Training(key)) = asked.first().map(|row| row.key) else {
                return Ok(());
            };
            let shape = key.shape();
            let mut relatives = Relatives::of(sources);
            for name in order {
                let on = hardware(name);
                let found = relatives.best(&shape, on);
                let variance = found.map(|best| best.variance + width::of_hardware(best.hardware, on));
                let wanted = least(&shape, sources, on);
                prop_assert_eq!(found.is_some(), wanted.is_some());
                if let Some((found, wanted)) = variance.zip(wanted) {
                    prop_assert!((found - wanted).abs() < 1e-12, "{} {}", found, wanted);
                }
                // What was asked before changes no answer.
                let alone = Relatives::of(sources).best(&shape, on);
                let place = |best: Option<Candidate<'_, TrainingShape>>| {
                    best.map(|best| (best.shape, best.hardware, best.published))
                };
                prop_assert_eq!(place(found), place(alone));
            }
        }
    }
}
