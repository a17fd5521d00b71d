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
