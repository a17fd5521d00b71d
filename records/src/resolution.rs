//! The resolution bucket: pixels rounded to the nearest half megapixel, in integers only.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A resolution in half megapixels, 1 to 66 (0.5 to 33.0 megapixels of a million pixels each).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct HalfMegapixels(u8);

/// The number is not a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a resolution bucket is 1 to 66 half megapixels")]
pub struct Error;

/// Pixels of half a megapixel.
const BUCKET: u64 = 500_000;
/// Digits after the point that reach down to one pixel of a megapixel.
const DECIMALS: usize = 6;

impl HalfMegapixels {
    /// The smallest bucket; everything smaller falls into it, since a bucket of nothing says nothing.
    pub const MIN: Self = Self(1);
    /// The largest bucket.
    pub const MAX: Self = Self(66);

    /// The bucket of so many half megapixels, or `None` outside 1 to 66.
    #[must_use]
    pub const fn new(half_megapixels: u8) -> Option<Self> {
        if half_megapixels < Self::MIN.0 || half_megapixels > Self::MAX.0 {
            return None;
        }
        Some(Self(half_megapixels))
    }

    /// The bucket of a picture; `None` when a side is 0 or the picture is above the largest bucket.
    #[must_use]
    pub fn from_pixels(width: u32, height: u32) -> Option<Self> {
        Self::from_pixel_count(u64::from(width) * u64::from(height))
    }

    /// The bucket of so many pixels: the nearest, ties go up; `None` for 0 or above the largest bucket.
    #[must_use]
    pub fn from_pixel_count(pixels: u64) -> Option<Self> {
        if pixels == 0 {
            return None;
        }
        let nearest = pixels.checked_add(BUCKET / 2)? / BUCKET;
        let nearest = u8::try_from(nearest).ok()?;
        Self::new(nearest.max(Self::MIN.0))
    }

    /// The bucket of a plain decimal number of megapixels such as `1.25`; `None` for any other text, for 0
    /// and above the largest bucket.
    ///
    /// The text never becomes a float, so that `1.25` is exactly between two buckets and goes up. Digits below
    /// one pixel cannot change which bucket is nearest and are dropped.
    #[must_use]
    pub fn from_megapixels_decimal(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let megapixels: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        let fraction = &fraction[..fraction.len().min(DECIMALS)];
        let pixels: u64 = format!("{fraction:0<DECIMALS$}").parse().ok()?;
        let below_one_pixel =
            megapixels == 0 && pixels == 0 && text.contains(|c| ('1'..='9').contains(&c));
        if below_one_pixel {
            return Some(Self::MIN);
        }
        Self::from_pixel_count(megapixels.checked_mul(1_000_000)?.checked_add(pixels)?)
    }

    /// The number of half megapixels.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The number of megapixels; halves are exact in a float.
    #[must_use]
    pub fn megapixels(self) -> f64 {
        f64::from(self.0) / 2.0
    }

    /// Every bucket, smallest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (Self::MIN.0..=Self::MAX.0).map(Self)
    }
}

impl fmt::Display for HalfMegapixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let half = if self.0.is_multiple_of(2) { 0 } else { 5 };
        f.pad(&format!("{}.{half}", self.0 / 2))
    }
}

impl TryFrom<u8> for HalfMegapixels {
    type Error = Error;

    fn try_from(half_megapixels: u8) -> Result<Self, Error> {
        Self::new(half_megapixels).ok_or(Error)
    }
}

impl From<HalfMegapixels> for u8 {
    fn from(bucket: HalfMegapixels) -> Self {
        bucket.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn examples_of_the_rounding_rule() {
        for (width, height, bucket) in [
            (256, 256, "0.5"),
            (384, 384, "0.5"),
            (500, 499, "0.5"),
            (500, 500, "0.5"),
            (512, 512, "0.5"),
            (768, 768, "0.5"),
            (866, 866, "0.5"),
            (1000, 750, "1.0"),
            (896, 896, "1.0"),
            (1024, 1024, "1.0"),
            (1216, 832, "1.0"),
            (1000, 1249, "1.0"),
            (1000, 1250, "1.5"),
            (1280, 1024, "1.5"),
            (1536, 1024, "1.5"),
            (1000, 1750, "2.0"),
            (1920, 1080, "2.0"),
            (1536, 1536, "2.5"),
            (2048, 2048, "4.0"),
            (3840, 2160, "8.5"),
        ] {
            let found = HalfMegapixels::from_pixels(width, height).map(|b| b.to_string());
            assert_eq!(found.as_deref(), Some(bucket), "{width} x {height}");
        }
    }

    #[test]
    fn outside_the_buckets_there_is_none() {
        assert_eq!(HalfMegapixels::from_pixels(0, 1024), None);
        assert_eq!(
            HalfMegapixels::from_pixel_count(33_249_999),
            Some(HalfMegapixels::MAX)
        );
        assert_eq!(HalfMegapixels::from_pixel_count(33_250_000), None);
        assert_eq!(HalfMegapixels::from_pixel_count(u64::MAX), None);
        assert_eq!(HalfMegapixels::from_pixels(u32::MAX, u32::MAX), None);
    }

    #[test]
    fn decimal_megapixels_tie_exactly() {
        for (text, half_megapixels) in [
            ("1.25", Some(3)),
            ("1.2499999999", Some(2)),
            ("1.250", Some(3)),
            ("2.25", Some(5)),
            ("0.25", Some(1)),
            ("0.0000001", Some(1)),
            (".75", Some(2)),
            ("1.", Some(2)),
            ("1", Some(2)),
            ("0.1", Some(1)),
            ("33.0", Some(66)),
            ("33.25", None),
            ("0", None),
            ("0.0", None),
            ("", None),
            (".", None),
            ("-1", None),
            ("+1", None),
            ("1e0", None),
            ("1.2.3", None),
            (" 1", None),
            ("1\u{663}", None),
            ("99999999999999999999", None),
        ] {
            let found = HalfMegapixels::from_megapixels_decimal(text).map(HalfMegapixels::get);
            assert_eq!(found, half_megapixels, "{text:?}");
        }
    }

    #[test]
    fn serde_refuses_what_is_no_bucket() {
        assert!(serde_json::from_str::<HalfMegapixels>("0").is_err());
        assert!(serde_json::from_str::<HalfMegapixels>("67").is_err());
        let bucket: HalfMegapixels = serde_json::from_str("3").expect("a bucket");
        assert_eq!(serde_json::to_string(&bucket).expect("json"), "3");
    }

    proptest! {
        #[test]
        fn the_bucket_is_the_nearest(pixels in 250_000u64..33_250_000) {
            let bucket = HalfMegapixels::from_pixel_count(pixels).expect("inside the buckets");
            let middle = u64::from(bucket.get()) * BUCKET;
            prop_assert!(middle.abs_diff(pixels) <= BUCKET / 2);
            if middle.abs_diff(pixels) == BUCKET / 2 {
                prop_assert!(pixels < middle, "ties go up");
            }
        }

        #[test]
        fn decimal_text_means_the_same_as_its_pixels(pixels in 1u64..40_000_000) {
            let text = format!("{}.{:06}", pixels / 1_000_000, pixels % 1_000_000);
            prop_assert_eq!(
                HalfMegapixels::from_megapixels_decimal(&text),
                HalfMegapixels::from_pixel_count(pixels)
            );
        }
    }
}
