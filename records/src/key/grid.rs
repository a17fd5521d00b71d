//! The closed grids of batch size, accumulation and inference steps.

use serde::{Deserialize, Serialize};

/// The number is not on the grid of its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not on the grid of values that a record may hold")]
pub struct OffGrid;

macro_rules! grid {
    ($(#[$doc:meta])* $name:ident($number:ty) = [$($value:literal),+ $(,)?]) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u32", into = "u32")]
        pub struct $name($number);

        impl $name {
            /// Every value a record may hold, smallest first. A value between them is dropped, never rounded.
            pub const GRID: &'static [$number] = &[$($value),+];

            /// The value, if it is on the grid.
            #[must_use]
            pub fn new(value: impl TryInto<$number>) -> Option<Self> {
                let value = value.try_into().ok()?;
                Self::GRID.contains(&value).then_some(Self(value))
            }

            /// The value of the grid nearest by ratio, the larger one of two equally near: for estimates only,
            /// since a record is never rounded.
            #[must_use]
            pub fn nearest(value: u32) -> Self {
                let wanted = u64::from(value.max(1));
                // The ratio to the wanted value as a fraction of at least 1.
                let ratio = |known: $number| {
                    let known = u64::from(known);
                    (known.max(wanted), known.min(wanted))
                };
                let nearest = Self::GRID.iter().copied().fold(Self::GRID[0], |best, known| {
                    let (best_ratio, known_ratio) = (ratio(best), ratio(known));
                    let closer = known_ratio.0 * best_ratio.1 <= best_ratio.0 * known_ratio.1;
                    if closer { known } else { best }
                });
                Self(nearest)
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> $number {
                self.0
            }

            /// Every value of the grid, smallest first.
            pub fn all() -> impl Iterator<Item = Self> {
                Self::GRID.iter().map(|value| Self(*value))
            }
        }

        impl TryFrom<u32> for $name {
            type Error = OffGrid;

            fn try_from(value: u32) -> Result<Self, OffGrid> {
                Self::new(value).ok_or(OffGrid)
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> Self {
                Self::from(value.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

grid! {
    /// Samples in one micro-batch on one GPU.
    BatchSize(u16) = [1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128]
}

grid! {
    /// Micro-batches in one optimizer step.
    Accumulation(u16) = [1, 2, 3, 4, 6, 8, 16, 32]
}

grid! {
    /// Denoising steps of one validation image.
    InferenceSteps(u8) = [
        1, 2, 4, 6, 8, 10, 12, 15, 16, 18, 20, 24, 25, 28, 30, 32, 35, 40, 45, 50, 60, 75, 100,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_value_is_nearest_by_ratio() {
        for (wanted, nearest) in [
            (0, 1),
            (1, 1),
            (5, 6),
            (7, 8),
            (9, 10),
            (14, 16),
            (40, 48),
            (1_000, 128),
            (u32::MAX, 128),
        ] {
            assert_eq!(BatchSize::nearest(wanted).get(), nearest, "{wanted}");
        }
        assert_eq!(Accumulation::nearest(5).get(), 6);
        assert_eq!(InferenceSteps::nearest(22).get(), 24);
    }
}
