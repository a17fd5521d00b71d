//! How wrong are estimates? One file, a part of it left out in turn:
//! `cargo run --release -p stepcast-estimator --example backtest -- FORMAT FILE [FOLDS [WAYS] | FROM TO ANCHORS
//! [DRAWS] | own SHOWN | recipes | each]`. The command `stepcast backtest` does the same with files of one's own.
#![expect(clippy::print_stdout, reason = "an example prints its table")]

use std::error::Error;

use stepcast_estimator::estimate::backtest::{
    Format, Report, each_recipe, folds, other_hardware, own_hosts,
};

/// Draws of anchors, and ways to fold.
const DRAWS: u64 = 10;
const WAYS: u64 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [format, file, rest @ ..] = args.as_slice() else {
        return Err("give a format and a file".into());
    };
    let format = Format::ALL.into_iter().find(|known| known.name() == format);
    let format = format.ok_or("an unknown format")?;
    let text = std::fs::read_to_string(file)?;
    match rest {
        [from, to, anchors, draws @ ..] if draws.len() <= 1 => {
            let draws = draws.first().map_or(Ok(DRAWS), |draws| draws.parse())?;
            let reports = other_hardware(&text, format, [from, to], anchors.parse()?, 0..draws)?;
            print(&reports.iter().collect::<Vec<_>>());
        }
        [own, shown] if own == "own" => {
            let told = ["nothing", "as somebody's", "as one's own"];
            for seed in 0..WAYS {
                let reports = own_hosts(&text, format, 5, shown.parse()?, seed)?;
                for (told, report) in told.iter().zip(&reports) {
                    println!("{told}: {}", line(report));
                }
            }
        }
        [each] if each == "each" => println!("{}", line(&folds(&text, format, usize::MAX, 0)?)),
        [recipes] if recipes == "recipes" => {
            let reports = each_recipe(&text, format)?;
            for (recipe, report) in &reports {
                println!("{recipe}: {}", line(report));
            }
            let reports: Vec<&Report> = reports.iter().map(|(_, report)| report).collect();
            println!("{} recipes: {}", reports.len(), means(&reports));
        }
        [] => println!(
            "{}",
            serde_json::to_string_pretty(&folds(&text, format, 5, 0)?)?
        ),
        [number] | [number, _] => {
            let ways = rest.get(1).map_or(Ok(WAYS), |ways| ways.parse())?;
            let reports = (0..ways).map(|seed| folds(&text, format, number.parse()?, seed).map_err(Into::into));
            let reports = reports.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
            print(&reports.iter().collect::<Vec<_>>());
        }
        _ => return Err("give a number of folds and of ways to fold, two hardwares and a number of recipes, own and a number of rows, recipes, or each".into()),
    }
    Ok(())
}

/// Each report, and the means of all.
fn print(reports: &[&Report]) {
    for report in reports {
        println!("{}", line(report));
    }
    println!("{}", means(reports));
}

/// Each report counts once, however many rows it has. With the standard error of each mean, as far as the reports are
/// independent of each other.
fn means(reports: &[&Report]) -> String {
    let mean = |of: fn(&Report) -> Option<f64>| {
        let values: Vec<f64> = reports.iter().filter_map(|report| of(report)).collect();
        if values.len() < 2 {
            return "-".to_owned();
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        format!(
            "{mean:.3} +- {:.3}",
            (squares / (count - 1.0) / count).sqrt()
        )
    };
    format!(
        "mean of medians {}, of p90 {}, inside {}, below p90 {}; once each: medians {}",
        mean(|report| report.score.median_ape),
        mean(|report| report.score.p90_ape),
        mean(|report| report.score.inside_p10_p90),
        mean(|report| report.score.below_p90),
        mean(|report| report.once_each.score.median_ape),
    )
}

fn line(report: &Report) -> String {
    let shown = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
    let score = &report.score;
    let once = &report.once_each;
    format!(
        "used {} median {} p75 {} p90 {} inside {} below p90 {} | group median {} rating {} | once each: used {} \
         median {} p75 {} p90 {} inside {} below p90 {} group median {}",
        report.used,
        shown(score.median_ape),
        shown(score.p75_ape),
        shown(score.p90_ape),
        shown(score.inside_p10_p90),
        shown(score.below_p90),
        shown(report.baselines.group_median.median_ape),
        shown(report.baselines.flops_ratio.median_ape),
        once.used,
        shown(once.score.median_ape),
        shown(once.score.p75_ape),
        shown(once.score.p90_ape),
        shown(once.score.inside_p10_p90),
        shown(once.score.below_p90),
        shown(once.group_median.median_ape),
    )
}
