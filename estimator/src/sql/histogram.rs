//! Functions that put the rows of a group together to one histogram and read it: how many steps took how long.
//!
//! A row says that so many steps took so long on average, in three significant digits. So there are few different
//! times, each is kept once with the number of its steps, and a group of any size is read exactly in little memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, Schema};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF, Volatility, create_udaf};
use datafusion::physical_plan::ColumnarValue;

/// What one different time costs in memory: its key and its count in a tree whose nodes are half full.
const TIME_BYTES: usize = 40;

/// Both functions.
pub(super) fn functions() -> [Arc<AggregateUDF>; 2] {
    [
        function("histogram_quantile", |share| {
            if (0.0..=1.0).contains(&share) {
                Ok(Asked::Quantile(share))
            } else {
                plan_err!("the share that histogram_quantile is asked for lies between 0 and 1")
            }
        }),
        function("histogram_share", |limit_ms| {
            if limit_ms >= 0.0 {
                Ok(Asked::Share { limit_ms })
            } else {
                plan_err!("the time that histogram_share is asked for is a number of milliseconds")
            }
        }),
    ]
}

/// What is wanted of the histogram.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Quantile(f64),
    Share { limit_ms: f64 },
}

/// How many steps took how long.
#[derive(Debug)]
struct Histogram {
    asked: Asked,
    /// By the bits of the time, which are ordered as times are, since no time is negative.
    steps: BTreeMap<u64, u64>,
}

fn function(name: &str, asked: fn(f64) -> Result<Asked>) -> Arc<AggregateUDF> {
    let new = move |args: AccumulatorArgs<'_>| {
        let asked = asked(constant(&args)?)?;
        let steps = BTreeMap::new();
        Ok(Box::new(Histogram { asked, steps }) as Box<dyn Accumulator>)
    };
    Arc::new(create_udaf(
        name,
        vec![DataType::Float64, DataType::Int64, DataType::Float64],
        Arc::new(DataType::Float64),
        Volatility::Immutable,
        Arc::new(new),
        Arc::new(vec![DataType::Binary]),
    ))
}

/// The last argument, which is the same for all rows.
fn constant(args: &AccumulatorArgs<'_>) -> Result<f64> {
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    let last = args.exprs.last().map(|last| last.evaluate(&nothing));
    let Some(Ok(ColumnarValue::Scalar(value))) = last else {
        return plan_err!(
            "the last argument of {} is a number and no column",
            args.name
        );
    };
    match value.cast_to(&DataType::Float64)? {
        ScalarValue::Float64(Some(number)) => Ok(number),
        _ => plan_err!("the last argument of {} is a number", args.name),
    }
}

/// An empty histogram that is asked for a quantile.
#[cfg(test)]
pub(super) fn quantile(share: f64) -> Box<dyn Accumulator> {
    Box::new(Histogram {
        asked: Asked::Quantile(share),
        steps: BTreeMap::new(),
    })
}

impl Histogram {
    fn count(&mut self, time: u64, steps: u64) -> Result<()> {
        let known = self.steps.entry(time).or_default();
        let Some(all) = known.checked_add(steps) else {
            return exec_err!(
                "the numbers of steps of a histogram add up to more than can be counted"
            );
        };
        *known = all;
        Ok(())
    }
}

impl Accumulator for Histogram {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let times = values[0].as_primitive::<Float64Type>();
        let steps = values[1].as_primitive::<Int64Type>();
        for (time, steps) in times.iter().zip(steps) {
            let (Some(time), Some(steps)) = (time, steps) else {
                continue;
            };
            let (true, Ok(steps)) = (time >= 0.0, u64::try_from(steps)) else {
                return exec_err!(
                    "a histogram holds times and numbers of steps, none of them negative"
                );
            };
            // Adding nothing makes of -0.0 what it is equal to.
            self.count((time + 0.0).to_bits(), steps)?;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for state in states[0].as_binary::<i32>().iter().flatten() {
            let (pairs, _) = state.as_chunks::<16>();
            for pair in pairs {
                let [time, steps] = [0, 8].map(|at| {
                    let mut number = [0; 8];
                    number.copy_from_slice(&pair[at..at + 8]);
                    u64::from_le_bytes(number)
                });
                self.count(time, steps)?;
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let pairs = self.steps.iter();
        let bytes = pairs.flat_map(|(time, steps)| [time.to_le_bytes(), steps.to_le_bytes()]);
        Ok(vec![ScalarValue::Binary(Some(bytes.flatten().collect()))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let all: f64 = self.steps.values().map(|steps| *steps as f64).sum();
        if all == 0.0 {
            return Ok(ScalarValue::Float64(None));
        }
        let mut counted = 0.0;
        let each = self.steps.iter().map(|(time, steps)| {
            counted += *steps as f64;
            (f64::from_bits(*time), counted)
        });
        let answer = match self.asked {
            Asked::Quantile(share) => {
                let mut each = each.filter(|(_, counted)| *counted > 0.0);
                // The share as it is written: 0.07 * 100 is a little more than 7.
                let found = each.find(|(_, counted)| *counted / all >= share);
                found.map(|(time, _)| time)
            }
            Asked::Share { limit_ms } => {
                let below = each.take_while(|(time, _)| *time <= limit_ms).last();
                Some(below.map_or(0.0, |(_, counted)| counted / all))
            }
        };
        Ok(ScalarValue::Float64(answer))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.steps.len() * TIME_BYTES
    }
}
