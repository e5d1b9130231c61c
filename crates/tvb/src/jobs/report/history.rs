//! How a basis came to be what it is: its size and the faithfulness of its sum, event by event.

use super::svg::{Anchor, circle, escape, number, open, polyline, rect, shortened, text};
use crate::basis::history::{Event, Happened};
use crate::units;
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = WIDTH - 70.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = HEIGHT - 46.0;
/// Names of tasks that a line of the table lists.
const NAMES_SHOWN: usize = 12;
const NAME_CHARS: usize = 28;

/// Bars of the bytes, and a line of what the sum of all tasks loses: 1 − cosine, the square of the part that points elsewhere.
pub(super) fn history_svg(history: &[Event]) -> String {
    let mut svg = open(WIDTH, HEIGHT, "size and sum of the basis over its history");
    let most_bytes = history.iter().map(|event| event.bytes).max().unwrap_or(1).max(1) as f64;
    let lost = |event: &Event| event.addition.map(|of| (1.0 - of.projected.cosine).max(0.0));
    let most_lost = history.iter().filter_map(lost).fold(0.0, f64::max).max(1e-6);
    let step = (RIGHT - LEFT) / history.len().max(1) as f64;
    let x = |index: usize| LEFT + step * (index as f64 + 0.5);
    let mut points = Vec::new();
    for (index, event) in history.iter().enumerate() {
        let height = (BOTTOM - TOP) * event.bytes as f64 / most_bytes;
        let width = (0.6 * step).min(40.0);
        let tip = format!(
            "{} {}: {} tasks, {}",
            event.event.word(),
            event.tasks.join(", "),
            event.n_tasks,
            units::bytes(event.bytes)
        );
        rect(&mut svg, [x(index) - width / 2.0, BOTTOM - height, width, height], "class=\"behind\"", &tip);
        if let Some(lost) = lost(event) {
            points.push((x(index), BOTTOM - (BOTTOM - TOP) * lost / most_lost, lost));
        }
        let sign = match event.event {
            Happened::Made => "",
            Happened::Extended => "+",
            Happened::Dropped => "−",
        };
        if history.len() <= 40 || index % history.len().div_ceil(40) == 0 {
            text(&mut svg, x(index), BOTTOM + 16.0, Anchor::Middle, &format!("{sign}{}", event.tasks.len()));
        }
    }
    let line: Vec<(f64, f64)> = points.iter().map(|(x, y, _)| (*x, *y)).collect();
    polyline(&mut svg, &line, "stroke=\"var(--bar,#2f6fb5)\" stroke-width=\"2\"");
    for (x, y, lost) in points {
        circle(&mut svg, (x, y), 3.0, "class=\"bar\"", &format!("cosine of the sum {}", number(1.0 - lost)));
    }
    text(&mut svg, LEFT - 8.0, TOP + 4.0, Anchor::End, &units::bytes(most_bytes as u64));
    text(&mut svg, LEFT - 8.0, BOTTOM + 4.0, Anchor::End, "0");
    text(&mut svg, RIGHT + 8.0, TOP + 4.0, Anchor::Start, &number(1.0 - most_lost));
    text(&mut svg, RIGHT + 8.0, BOTTOM + 4.0, Anchor::Start, "1");
    text(&mut svg, (LEFT + RIGHT) / 2.0, HEIGHT - 8.0, Anchor::Middle, "tasks that came or went, event by event");
    svg + "</svg>"
}

/// The events, a row each.
pub(super) fn history_table(history: &[Event]) -> String {
    let mut html = "<table>\n<tr><th>event</th><th>tasks</th><th>T</th><th>atoms</th><th>size</th><th>cosine of the sum</th><th>mean error</th><th>estimated pairs</th><th>by</th></tr>\n".to_owned();
    for event in history {
        let names: Vec<String> = event.tasks.iter().take(NAMES_SHOWN).map(|name| shortened(name, NAME_CHARS)).collect();
        let more = if event.tasks.len() > names.len() { ", …" } else { "" };
        let shown = |value: Option<f64>| value.map_or("unknown".to_owned(), number);
        let notes: String = event.notes.iter().map(|note| format!("<br>{}", escape(note))).collect();
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}{more}{notes}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            event.event.word(),
            escape(&names.join(", ")),
            event.n_tasks,
            event.n_atoms,
            units::bytes(event.bytes),
            shown(event.addition.map(|of| of.projected.cosine)),
            shown(event.mean_error),
            event.n_estimated,
            escape(&event.tool),
        );
    }
    html + "</table>\n"
}
