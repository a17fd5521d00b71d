//! From the resolutions that people write to the buckets of the records.

use crate::resolution::HalfMegapixels;

/// A resolution with the words for a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolution {
    pub(super) bucket: HalfMegapixels,
    /// Such as `1024px` or `1.0 MP`.
    pub(super) said: String,
}

/// Why a resolution has no bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is not a positive number.
    NotANumber,
    /// An edge of so few pixels that megapixels were meant.
    EdgeOfMegapixels,
    /// An area of so many megapixels that an edge was meant.
    AreaOfPixels,
}

/// An edge in pixels at most: its square is the largest bucket.
const MAX_EDGE: f64 = 5_766.0;
/// An edge in pixels at least. SimpleTuner's tiny test models train at 16.
const MIN_EDGE: f64 = 8.0;

/// The resolution of a data set from `resolution` and `resolution_type`, whose pictures are cropped to squares or not.
pub(super) fn of_dataset(
    resolution: &str,
    resolution_type: &str,
    are_squares: bool,
) -> Result<Resolution, Unreadable> {
    if resolution_type == "area" {
        let number: f64 = resolution.parse().map_err(|_| Unreadable::NotANumber)?;
        if !number.is_finite() || number <= 0.0 {
            return Err(Unreadable::NotANumber);
        }
        let written =
            HalfMegapixels::from_megapixels_decimal(resolution).ok_or(Unreadable::AreaOfPixels)?;
        let said = format!("{written} MP");
        let bucket = of_squares(number * 1e6).filter(|_| are_squares);
        let bucket = bucket.unwrap_or(written);
        return Ok(Resolution { bucket, said });
    }
    let edge: f64 = resolution.parse().map_err(|_| Unreadable::NotANumber)?;
    if !edge.is_finite() || edge <= 0.0 || edge > MAX_EDGE {
        return Err(Unreadable::NotANumber);
    }
    if edge < MIN_EDGE {
        return Err(Unreadable::EdgeOfMegapixels);
    }
    let edge = edge.round() as u32;
    let written = HalfMegapixels::from_pixels(edge, edge).ok_or(Unreadable::NotANumber)?;
    let bucket =
        of_squares(f64::from(edge * edge)).filter(|_| are_squares && resolution_type != "pixel");
    Ok(Resolution {
        bucket: bucket.unwrap_or(written),
        said: format!("{edge}px"),
    })
}

/// The bucket of squares of so many pixels, where SimpleTuner 4.10.1 makes others of them (`_set_resolution` in
/// `training_sample.py`): of a few round areas the nearest usual edge, of which only one is in another bucket.
fn of_squares(pixels: f64) -> Option<HalfMegapixels> {
    let is_round = (pixels - 2e6).abs() < 50_000.0;
    is_round
        .then(|| HalfMegapixels::from_pixels(1_536, 1_536))
        .flatten()
}

/// The buckets of `validation_resolution`: an edge, `WIDTHxHEIGHT`, or several of them with commas; `Err` with the
/// part that is none.
pub(super) fn of_validation(text: &str) -> Result<Vec<HalfMegapixels>, String> {
    let mut parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let megapixels = match parts.as_slice() {
        [one] => from_megapixels(one),
        _ => None,
    };
    if let Some(edge) = &megapixels {
        parts = vec![edge];
    }
    parts
        .into_iter()
        .map(|part| one(part).ok_or_else(|| part.to_owned()))
        .collect()
}

/// SimpleTuner's own conversion of a single number below 128, which it takes for megapixels: whole ones only, 1
/// is an edge of 1024, and any other number is an edge of so many thousand pixels.
fn from_megapixels(text: &str) -> Option<String> {
    let number: f64 = text.parse().ok()?;
    if !(0.0..128.0).contains(&number) {
        return None;
    }
    let edge = match number as u32 {
        1 => 1_024,
        whole => whole * 1_000 / 8 * 8,
    };
    Some(edge.to_string())
}

fn one(text: &str) -> Option<HalfMegapixels> {
    let text = text.to_ascii_lowercase();
    let (width, height) = text.split_once('x').unwrap_or((&text, &text));
    let edge = |part: &str| {
        let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| part.parse::<u32>().ok()).flatten()
    };
    HalfMegapixels::from_pixels(edge(width)?, edge(height)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolutions_of_data_sets() {
        for (resolution, kind, said) in [
            ("1024", "pixel_area", Ok(("1.0", "1024px"))),
            ("1024", "pixel", Ok(("1.0", "1024px"))),
            ("512.0", "pixel", Ok(("0.5", "512px"))),
            ("1.048576", "area", Ok(("1.0", "1.0 MP"))),
            ("1.25", "area", Ok(("1.5", "1.5 MP"))),
            ("1024", "area", Err(Unreadable::AreaOfPixels)),
            ("1", "pixel_area", Err(Unreadable::EdgeOfMegapixels)),
            ("-1", "area", Err(Unreadable::NotANumber)),
            ("NaN", "pixel", Err(Unreadable::NotANumber)),
            ("1e300", "pixel", Err(Unreadable::NotANumber)),
            ("big", "area", Err(Unreadable::NotANumber)),
        ] {
            let found = of_dataset(resolution, kind, false)
                .map(|found| (found.bucket.to_string(), found.said));
            let expected = said.map(|(bucket, said)| (bucket.to_owned(), said.to_owned()));
            assert_eq!(found, expected, "{resolution} {kind}");
        }
    }

    #[test]
    fn squares_of_two_megapixels_are_larger() {
        for (resolution, kind, bucket) in [
            ("2.0", "area", "2.5"),
            ("1.96", "area", "2.5"),
            ("1.94", "area", "2.0"),
            ("1.0", "area", "1.0"),
            ("1.05", "area", "1.0"),
            ("4", "area", "4.0"),
            ("1424", "pixel_area", "2.5"),
            ("1440", "pixel_area", "2.0"),
            ("1424", "pixel", "2.0"),
        ] {
            let squares = of_dataset(resolution, kind, true).map(|found| found.bucket.to_string());
            assert_eq!(squares, Ok(bucket.to_owned()), "{resolution} {kind}");
        }
    }

    #[test]
    fn resolutions_of_validation() {
        let buckets = |text: &str| {
            let found = of_validation(text);
            found.map(|list| {
                list.into_iter()
                    .map(HalfMegapixels::get)
                    .collect::<Vec<_>>()
            })
        };
        for (text, expected) in [
            ("1024", Ok(vec![2])),
            ("1024x1024", Ok(vec![2])),
            ("832X480", Ok(vec![1])),
            ("512x512, 1024x1024,2048", Ok(vec![1, 2, 8])),
            ("64x64", Ok(vec![1])),
            ("1", Ok(vec![2])),
            ("1.5", Ok(vec![2])),
            ("2", Ok(vec![8])),
            ("0.5", Err("0".to_owned())),
            ("64", Err("64000".to_owned())),
            ("10x", Err("10x".to_owned())),
            ("1024x1024x3", Err("1024x1024x3".to_owned())),
            ("1024,", Err(String::new())),
            ("99999999999x1", Err("99999999999x1".to_owned())),
        ] {
            assert_eq!(buckets(text), expected, "{text}");
        }
    }
}
