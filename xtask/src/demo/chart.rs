//! The chart: accuracy of the recovered tasks over the bytes that are kept of them.
//!
//! On a white card, so that it reads the same on a light page and on a dark one. Solid lines are the mean over the tasks,
//! pale ones the worst task.

use super::found::Found;
use super::rows::Family;
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 430.0;
/// The drawn area.
const LEFT: f64 = 62.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 92.0;
const BOTTOM: f64 = HEIGHT - 56.0;
/// The share of the float32 task vectors, from left to right: 1/64 to 1.
const LEAST_SHARE: f64 = 1.0 / 72.0;
const TICKS: [u32; 7] = [64, 32, 16, 8, 4, 2, 1];
/// Percent of the fine-tunes' accuracy.
const LEAST: f64 = 20.0;
const MOST: f64 = 105.0;
/// Labels of points are at least so far apart.
const LABEL_GAP: f64 = 24.0;

/// Points that are joined.
struct Line<'a> {
    name: &'a str,
    color: &'a str,
    rows: Vec<&'a Found>,
}

/// The picture of one scenario.
pub(super) fn svg(n_tasks: usize, rows: &[Found]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#24292f\" \
         role=\"img\" aria-label=\"Accuracy of recovered tasks over bytes\">\n\
         <title>{n_tasks} tasks: accuracy of the recovered tasks over the bytes kept</title>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d0d7de\"/>\n",
        WIDTH - 1.0,
        HEIGHT - 1.0
    );
    let _ = writeln!(
        svg,
        "<text x=\"20\" y=\"30\" font-size=\"16\" font-weight=\"600\">What comes back of {n_tasks} fine-tuned tasks, over the bytes kept of them</text>"
    );
    grid(&mut svg);
    let lines = lines(rows);
    // The worst tasks lie below, and coded tasks above all others.
    for line in lines.iter().rev() {
        line.draw_worst(&mut svg);
    }
    for line in lines.iter().rev() {
        line.draw_mean(&mut svg);
    }
    if let Some(coded) = lines.first() {
        labels(&mut svg, &coded.rows);
    }
    legend(&mut svg, &lines);
    svg + "</svg>\n"
}

/// The series, coded tasks first; of mixtures only those that no smaller one beats.
fn lines(rows: &[Found]) -> Vec<Line<'_>> {
    let of = |family: Family| {
        let mut rows: Vec<&Found> = rows.iter().filter(|row| row.family == family).collect();
        rows.sort_by_key(|row| row.bytes);
        rows
    };
    let mut mixtures: Vec<&Found> = Vec::new();
    for row in of(Family::Mixtures) {
        match mixtures.last() {
            Some(last) if last.individual.mean >= row.individual.mean => {}
            Some(last) if last.bytes == row.bytes => {
                mixtures.pop();
                mixtures.push(row);
            }
            _ => mixtures.push(row),
        }
    }
    vec![
        Line { name: "tvb, coded tasks", color: "#0969da", rows: of(Family::Coded) },
        Line { name: "TVQ", color: "#bc4c00", rows: of(Family::Tvq) },
        Line { name: "BitDelta", color: "#8250df", rows: of(Family::BitDelta) },
        Line { name: "mixtures, the best of each size", color: "#57606a", rows: mixtures },
    ]
}

/// Where a share lies.
fn x(share: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * (1.0 - share.ln() / LEAST_SHARE.ln()).clamp(0.0, 1.0)
}

/// Where a percentage lies.
fn y(percent: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * ((percent - LEAST) / (MOST - LEAST)).clamp(0.0, 1.0)
}

fn grid(svg: &mut String) {
    let _ = writeln!(svg, "<g stroke=\"#d8dee4\">");
    for percent in (20..=100).step_by(20) {
        let y = y(f64::from(percent));
        let _ = writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
    }
    for divisor in TICKS {
        let x = x(1.0 / f64::from(divisor));
        let _ = writeln!(svg, "<path d=\"M{x:.1} {TOP}V{BOTTOM}\"/>");
    }
    let _ = writeln!(svg, "</g>\n<path d=\"M{LEFT} {BOTTOM}H{RIGHT}\" stroke=\"#57606a\"/>\n<g fill=\"#57606a\">");
    for percent in (20..=100).step_by(20) {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{percent} %</text>",
            LEFT - 8.0,
            y(f64::from(percent)) + 4.5
        );
    }
    for divisor in TICKS {
        let name = if divisor == 1 { "all".to_owned() } else { format!("1/{divisor}") };
        let (x, y) = (x(1.0 / f64::from(divisor)), BOTTOM + 20.0);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{name}</text>");
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">bytes kept, of the float32 task vectors</text>\n</g>",
        (LEFT + RIGHT) / 2.0,
        HEIGHT - 14.0
    );
}

impl Line<'_> {
    fn path(&self, value: fn(&Found) -> f64) -> String {
        let places: Vec<String> =
            self.rows.iter().map(|row| format!("{:.1},{:.1}", x(row.share), y(value(row)))).collect();
        places.join(" ")
    }

    fn draw_worst(&self, svg: &mut String) {
        let (color, path) = (self.color, self.path(|row| row.worst.mean));
        let _ = writeln!(
            svg,
            "<g opacity=\"0.45\" stroke=\"{color}\" fill=\"#ffffff\"><polyline points=\"{path}\" fill=\"none\" stroke-width=\"1.5\" stroke-dasharray=\"5 3\"/>"
        );
        for row in &self.rows {
            let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>", x(row.share), y(row.worst.mean));
        }
        let _ = writeln!(svg, "</g>");
    }

    fn draw_mean(&self, svg: &mut String) {
        let (color, path) = (self.color, self.path(|row| row.individual.mean));
        let _ = writeln!(
            svg,
            "<g fill=\"{color}\"><polyline points=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.5\"/>"
        );
        for row in &self.rows {
            let (x, y) = (x(row.share), y(row.individual.mean));
            let tip = format!(
                "{}: 1/{:.1} of float32, mean {:.1} %, worst task {:.1} %",
                row.label,
                1.0 / row.share,
                row.individual.mean,
                row.worst.mean
            );
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{tip}</title></circle>");
        }
        let _ = writeln!(svg, "</g>");
    }
}

/// Bits above the points of coded tasks, where there is room.
fn labels(svg: &mut String, rows: &[&Found]) {
    let mut last = f64::NEG_INFINITY;
    let _ = writeln!(svg, "<g fill=\"#0969da\" font-size=\"12\" text-anchor=\"middle\">");
    for row in rows {
        let x = x(row.share);
        if x - last < LABEL_GAP {
            continue;
        }
        let bits = row.label.split(' ').next().unwrap_or_default();
        let name = if last.is_infinite() { format!("{bits} bit") } else { bits.to_owned() };
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\">{name}</text>", y(row.individual.mean) - 9.0);
        last = x;
    }
    let _ = writeln!(svg, "</g>");
}

fn legend(svg: &mut String, lines: &[Line<'_>]) {
    let mut x = 20.0;
    for line in lines {
        let (y, color, name) = (54.0, line.color, line.name);
        let _ = writeln!(
            svg,
            "<path d=\"M{x} {y}h22\" stroke=\"{color}\" stroke-width=\"2.5\"/><circle cx=\"{}\" cy=\"{y}\" r=\"4\" fill=\"{color}\"/>\
             <text x=\"{}\" y=\"{}\">{name}</text>",
            x + 11.0,
            x + 29.0,
            y + 4.5
        );
        x += 29.0 + 7.0 * name.chars().count() as f64 + 22.0;
    }
    let _ = writeln!(
        svg,
        "<g fill=\"#57606a\"><text x=\"20\" y=\"78\">accuracy, of the fine-tunes’ own: solid the mean over tasks, dashed the worst task</text></g>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::found::example;

    fn row(label: &str, family: Family, divisor: u32, individual: f64) -> Found {
        let originals = example(&[1.0, 1.0], 0.7, 0.2);
        let measured = [example(&[1.0, individual], 0.7, 0.2)];
        let sizes = (u64::from(1_000_000 / divisor), 1.0 / f64::from(divisor), None);
        Found::new((label, family, 2), sizes, &measured, &originals)
    }

    #[test]
    fn mixtures_that_a_smaller_one_beats_are_left_out() {
        let rows = [
            row("a", Family::Mixtures, 2, 0.8),
            row("b", Family::Mixtures, 4, 0.7),
            row("c", Family::Mixtures, 3, 0.6),
            row("d", Family::Mixtures, 4, 0.75),
        ];
        let lines = lines(&rows);
        let labels: Vec<&str> = lines[3].rows.iter().map(|row| row.label.as_str()).collect();
        assert_eq!(labels, ["d", "a"]);
    }

    #[test]
    fn places_are_inside_and_labels_apart() {
        for share in [0.0001, 0.05, 1.0, 3.0] {
            assert!((LEFT..=RIGHT).contains(&x(share)));
        }
        for percent in [-5.0, 60.0, 200.0] {
            assert!((TOP..=BOTTOM).contains(&y(percent)));
        }
        let rows = [24, 23, 14].map(|divisor| row(&format!("{divisor} bits"), Family::Coded, divisor, 0.9));
        let svg = svg(2, &rows);
        assert!(svg.contains(">24 bit<") && svg.contains(">14<") && !svg.contains(">23<"));
        assert!(!svg.contains("NaN") && svg.ends_with("</svg>\n"));
    }
}
