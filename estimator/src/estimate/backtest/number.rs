//! Numbers in cells: what may stand there, and which cells say the same.

/// A kind of number: what can be, and why a row without it is left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    least: f64,
    most: f64,
    none: &'static str,
}

pub(super) const GPUS: Kind = Kind::of(1.0, 1e5, "no possible number of GPUs");
pub(super) const BATCH: Kind = Kind::of(1e-3, 1e5, "no possible batch");
pub(super) const ACCUMULATED: Kind = Kind::of(1.0, 1e4, "no possible accumulation");
pub(super) const FRAMES: Kind = Kind::of(1.0, 1e4, "no possible number of frames");
pub(super) const STEPS: Kind = Kind::of(1.0, 1e4, "no possible number of steps");
/// Eight by eight pixels to more than any image has that is made by a model.
pub(super) const MEGAPIXELS: Kind = Kind::of(64e-6, 1e3, "no possible resolution");

impl Kind {
    const fn of(least: f64, most: f64, none: &'static str) -> Self {
        Self { least, most, none }
    }

    /// What a cell says.
    ///
    /// # Errors
    /// Why the row is left out, where there is nothing or no such number.
    pub(super) fn needed(self, cell: &str) -> Result<f64, &'static str> {
        let number = cell.trim().parse().ok();
        number.filter(|number| self.holds(*number)).ok_or(self.none)
    }

    /// What a cell says, or what is usual where it says nothing.
    ///
    /// # Errors
    /// Why the row is left out, where the cell says something else than such a number.
    pub(super) fn or(self, usual: f64, cell: &str) -> Result<f64, &'static str> {
        if cell.trim().is_empty() {
            Ok(usual)
        } else {
            self.needed(cell)
        }
    }

    fn holds(self, number: f64) -> bool {
        (self.least..=self.most).contains(&number)
    }
}

/// Megapixels of what a cell calls a resolution, such as `1024x768`, whatever stands behind a space; `None` where it is
/// none. One number alone is the side of a square.
pub(super) fn of_resolution(cell: &str) -> Option<f64> {
    let first = cell.split_whitespace().next()?;
    let (width, height) = first.split_once(['x', 'X', '×']).unwrap_or((first, first));
    let side = |text: &str| text.parse::<f64>().ok().filter(|side| *side > 0.0);
    let megapixels = side(width)? * side(height)? / 1e6;
    MEGAPIXELS.holds(megapixels).then_some(megapixels)
}

/// A cell as it is told apart from others: `1`, `1.0` and `1.` say the same.
pub(super) fn plain(cell: &str) -> String {
    match cell.trim().parse::<f64>() {
        Ok(number) => number.to_string(),
        Err(_) => cell.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_says_a_number_or_nothing_or_is_left_out() {
        assert_eq!(BATCH.or(1.0, " "), Ok(1.0));
        assert_eq!(BATCH.or(1.0, "4.0"), Ok(4.0));
        for wrong in ["-4", "0", "NaN", "inf", "1e308", "four", "4 (2x2)"] {
            assert_eq!(BATCH.or(1.0, wrong), Err("no possible batch"), "{wrong}");
        }
        assert_eq!(GPUS.needed(""), Err("no possible number of GPUs"));
    }

    #[test]
    fn resolutions() {
        for (cell, megapixels) in [
            ("1000x500", Some(0.5)),
            ("1000x500 (variable shape)", Some(0.5)),
            ("1000", Some(1.0)),
            ("480p", None),
            ("mixed 256/512", None),
            ("1e100x1e100", None),
            ("-512x-512", None),
            ("", None),
        ] {
            let found = of_resolution(cell);
            assert_eq!(found.is_some(), megapixels.is_some(), "{cell}");
            assert!(
                (found.unwrap_or(0.0) - megapixels.unwrap_or(0.0)).abs() < 1e-9,
                "{cell}"
            );
        }
    }

    #[test]
    fn cells_that_say_the_same_are_the_same() {
        assert_eq!(plain("1.0"), plain("1"));
        assert_eq!(plain(" 24 "), "24");
        assert_ne!(plain("1"), plain(""));
        assert_eq!(plain("bf16"), "bf16");
    }
}
