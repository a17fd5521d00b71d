//! Who held which GPU when, as a drawing: a line for every GPU, a bar for every attempt.

use std::collections::BTreeMap;
use std::fmt::Write;

use stepcast_scheduler::simulate::{Group, Outcome};

/// Widths and heights in pixels.
const LEFT: f64 = 110.0;
const WIDTH: f64 = 1_200.0;
const LINE: f64 = 9.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 30.0;

/// Lines at most: of larger clusters the first GPUs are drawn.
const LINES_MAX: usize = 512;

/// Steps of the time axis.
const STEPS: u32 = 8;

/// The drawing of a simulation, as SVG.
pub(super) fn draw(outcome: &Outcome, cluster: &[Group]) -> String {
    let mut lines: BTreeMap<(usize, &str, u8), usize> = BTreeMap::new();
    let order = |gpu| {
        cluster
            .iter()
            .position(|group| group.gpu == gpu)
            .unwrap_or(usize::MAX)
    };
    for span in &outcome.spans {
        for gpu in &span.gpus {
            lines.insert((order(span.gpu), &span.host, *gpu), 0);
        }
    }
    for (line, place) in lines.values_mut().enumerate() {
        *place = line;
    }
    let end_s = outcome
        .spans
        .iter()
        .map(|span| span.to_s)
        .fold(1.0, f64::max);
    let shown = lines.len().min(LINES_MAX);
    let height = TOP + shown as f64 * LINE + BOTTOM;
    let mut svg = String::new();
    // Writing into a text cannot fail.
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{:.0}" height="{height:.0}" font-family="sans-serif" font-size="9">"#,
        LEFT + WIDTH + 20.0
    );
    let _ = writeln!(
        svg,
        r##"<rect width="100%" height="100%" fill="#ffffff"/>"##
    );
    for ((_, host, gpu), line) in lines.iter().filter(|(_, line)| **line < LINES_MAX) {
        let y = TOP + *line as f64 * LINE;
        if *gpu == 0 {
            let _ = writeln!(
                svg,
                r#"<text x="4" y="{:.1}">{host}</text>"#,
                y + LINE - 2.0
            );
        }
    }
    for span in outcome.spans.iter().filter(|span| span.to_s > span.from_s) {
        let x = LEFT + span.from_s / end_s * WIDTH;
        let width = ((span.to_s - span.from_s) / end_s * WIDTH).max(0.3);
        let hue = span.row * 137 % 360;
        for gpu in &span.gpus {
            let line = lines[&(order(span.gpu), span.host.as_str(), *gpu)];
            if line >= LINES_MAX {
                continue;
            }
            let y = TOP + line as f64 * LINE;
            let _ = writeln!(
                svg,
                r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{:.1}" fill="hsl({hue} 60% 60%)"><title>row {}: {:.2} h to {:.2} h</title></rect>"#,
                LINE - 1.0,
                span.row + 1,
                span.from_s / 3_600.0,
                span.to_s / 3_600.0
            );
        }
    }
    for step in 0..=STEPS {
        let part = f64::from(step) / f64::from(STEPS);
        let _ = writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{:.1} h</text>"#,
            LEFT + part * WIDTH,
            height - 10.0,
            part * end_s / 3_600.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}
