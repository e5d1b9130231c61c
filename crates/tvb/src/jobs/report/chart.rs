//! A chart of lines over two axes, with its legend beside it. Dots say their values when pointed at, text follows the
//! page's theme, and a chart that stands in a file of its own is drawn on white.

use super::svg::{Anchor, circle, number, open, polyline, rect, shortened, text};

/// The drawn area inside the axes.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 340.0;
const TOP: f64 = 50.0;
/// Characters of a name in the legend, and of a title.
const NAME_LENGTH: usize = 40;
const TITLE_LENGTH: usize = 80;
/// A logarithmic axis of a smaller range has more ticks than the powers of ten.
const NARROW: f64 = 500.0;
/// More ticks than this are never asked for; rounding cannot make an axis loop.
const MAX_TICKS: usize = 16;

/// Colours of lines, legible on white and on black.
pub(super) const COLORS: [&str; 10] =
    ["#3b82c4", "#e07b39", "#3fa45b", "#d04f5a", "#8e6bbf", "#2fa9b8", "#d56fae", "#a39a2c", "#9c7654", "#7f8790"];

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Look {
    /// Solid, with a dot at each point.
    Solid,
    /// Pale, without dots.
    Faint,
    /// Dashed, without dots.
    Dashed,
    /// A ring around each point, and no line.
    Rings,
    /// A pale dot at each point, and no line.
    Dots,
}

impl Look {
    fn has_line(self) -> bool {
        !matches!(self, Look::Rings | Look::Dots)
    }
}

/// Points that belong together.
pub(super) struct Line<'a> {
    /// What the legend says; lines without a name are not in it.
    pub name: &'a str,
    pub color: &'a str,
    pub look: Look,
    /// (x, y) in the order they are joined. Points that are not numbers are left out.
    pub points: Vec<(f64, f64)>,
}

/// What runs along one side.
pub(super) struct Axis<'a> {
    pub label: &'a str,
    pub from: f64,
    pub to: f64,
    /// Whether equal steps are equal ratios; `from` is above zero then.
    pub is_log: bool,
}

impl Axis<'_> {
    /// Where a value lies: 0 at the start of the axis, 1 at its end. Values past an end lie at it.
    fn place(&self, value: f64) -> f64 {
        let place = match self.is_log {
            true => (value / self.from).ln() / (self.to / self.from).ln(),
            // Halves, whose differences cannot overflow.
            false => (value / 2.0 - self.from / 2.0) / (self.to / 2.0 - self.from / 2.0),
        };
        if place.is_nan() { 0.0 } else { place.clamp(0.0, 1.0) }
    }

    /// Values to mark, and what to call them.
    fn ticks(&self) -> Vec<(f64, String)> {
        let in_axis = |value: &f64| (self.from..=self.to).contains(value);
        if self.is_log && self.to / self.from < NARROW {
            let decades = (self.from.log10().floor() as i32..).take(MAX_TICKS).map(|power| 10f64.powi(power));
            let values = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * decade));
            return values.filter(in_axis).map(|value| (value, format!("{}", (value * 1e6).round() / 1e6))).collect();
        }
        if self.is_log {
            let first = self.from.log10().round() as i32;
            let powers = (first..).take(MAX_TICKS).map(|power| 10f64.powi(power)).filter(in_axis);
            return powers.map(|value| (value, format!("{value:.0e}"))).collect();
        }
        let rough = (self.to - self.from) / 6.0;
        let power = rough.log10().floor();
        let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * 10f64.powf(power)).into_iter().find(|step| *step >= rough);
        let Some(step) = step.filter(|step| step.is_finite() && *step > 0.0) else { return Vec::new() };
        let largest = self.from.abs().max(self.to.abs());
        let n_decimals = (-step.log10().floor()).max(0.0) as usize;
        let n_digits = (largest.log10().floor() - step.log10().floor()).clamp(0.0, 9.0) as usize;
        let name = |value: f64| match n_decimals <= 4 && largest < 1e7 {
            true => format!("{value:.n_decimals$}"),
            false => format!("{value:.n_digits$e}"),
        };
        let first = (self.from / step).ceil();
        let values = (0..MAX_TICKS).map(|i| (first + i as f64) * step).filter(in_axis);
        values.map(|value| (value, name(value))).collect()
    }
}

/// Lines over two axes.
pub(super) struct Chart<'a> {
    pub title: &'a str,
    pub x: Axis<'a>,
    pub y: Axis<'a>,
    pub lines: Vec<Line<'a>>,
}

/// Charts below each other, as one picture.
pub(super) fn stacked(label: &str, charts: &[Chart<'_>]) -> String {
    let drawn: Vec<_> = charts.iter().map(Chart::drawn).collect();
    let width = drawn.iter().fold(0.0, |most: f64, (_, [width, _])| most.max(*width));
    let mut svg = open(width, drawn.iter().map(|(_, [_, height])| height).sum(), label);
    let mut top = 0.0;
    for (picture, [_, height]) in drawn {
        svg += &format!("<g transform=\"translate(0 {top:.1})\">{picture}</g>");
        top += height;
    }
    svg + "</svg>"
}

impl Chart<'_> {
    /// The picture.
    pub(super) fn svg(&self) -> String {
        self.drawn().0
    }

    /// The picture, with its width and height.
    fn drawn(&self) -> (String, [f64; 2]) {
        let (x_ticks, y_ticks) = (self.x.ticks(), self.y.ticks());
        let left = 24.0 + 6.6 * y_ticks.iter().map(|(_, name)| name.len()).max().unwrap_or(0) as f64;
        let named = || self.lines.iter().filter(|line| !line.name.is_empty());
        let longest = named().map(|line| line.name.chars().count().min(NAME_LENGTH)).max().unwrap_or(0);
        let legend = left + WIDTH + 18.0;
        let (right, bottom) = (legend + 34.0 + 6.6 * longest as f64, TOP + HEIGHT + 44.0);
        let x = |value: f64| left + WIDTH * self.x.place(value);
        let y = |value: f64| TOP + HEIGHT * (1.0 - self.y.place(value));

        let mut svg = open(right, bottom, self.title);
        rect(&mut svg, [0.0, 0.0, right, bottom], "class=\"paper\" fill=\"#fff\"", "");
        svg += "<g font-size=\"15\">";
        text(&mut svg, left, 18.0, Anchor::Start, &shortened(self.title, TITLE_LENGTH));
        svg += "</g>";
        text(&mut svg, left, TOP - 10.0, Anchor::Start, &shortened(self.y.label, TITLE_LENGTH));
        text(&mut svg, left + WIDTH / 2.0, bottom - 8.0, Anchor::Middle, &shortened(self.x.label, TITLE_LENGTH));
        let grid = "stroke=\"currentColor\" stroke-opacity=\"0.15\"";
        for (value, name) in &x_ticks {
            polyline(&mut svg, &[(x(*value), TOP), (x(*value), TOP + HEIGHT)], grid);
            text(&mut svg, x(*value), TOP + HEIGHT + 16.0, Anchor::Middle, name);
        }
        for (value, name) in &y_ticks {
            polyline(&mut svg, &[(left, y(*value)), (left + WIDTH, y(*value))], grid);
            text(&mut svg, left - 6.0, y(*value) + 4.0, Anchor::End, name);
        }
        let corner = [(left, TOP), (left, TOP + HEIGHT), (left + WIDTH, TOP + HEIGHT)];
        polyline(&mut svg, &corner, "stroke=\"currentColor\" stroke-opacity=\"0.6\"");

        for line in &self.lines {
            let values = line.points.iter().filter(|at| !at.0.is_nan() && !at.1.is_nan());
            let tip = |at: &(f64, f64)| format!("{}: {}, {}", line.name, number(at.0), number(at.1));
            let points: Vec<_> = values.map(|at| ((x(at.0), y(at.1)), tip(at))).collect();
            line.draw(&mut svg, &points);
        }
        for (index, line) in named().enumerate() {
            let y = TOP + 8.0 + 18.0 * index as f64;
            let sample = match line.look {
                look if !look.has_line() => vec![((legend + 9.0, y), String::new())],
                _ => [0.0, 18.0].map(|x| ((legend + x, y), String::new())).to_vec(),
            };
            line.draw(&mut svg, &sample);
            text(&mut svg, legend + 26.0, y + 4.0, Anchor::Start, &shortened(line.name, NAME_LENGTH));
        }
        (svg + "</svg>", [right, bottom])
    }
}

impl Line<'_> {
    /// Places in the picture and what is said there.
    fn draw(&self, svg: &mut String, points: &[((f64, f64), String)]) {
        let color = self.color;
        let style = match self.look {
            Look::Solid => "stroke-width=\"2\"",
            Look::Faint => "stroke-opacity=\"0.4\"",
            Look::Dashed => "stroke-dasharray=\"4 4\"",
            Look::Rings => "stroke-width=\"2\" fill=\"none\" pointer-events=\"all\"",
            Look::Dots => "",
        };
        let style = format!("stroke=\"{color}\" {style}");
        if self.look.has_line() {
            polyline(svg, &points.iter().map(|(at, _)| *at).collect::<Vec<_>>(), &style);
        }
        for (at, tip) in points {
            match self.look {
                Look::Solid => circle(svg, *at, 3.0, &format!("fill=\"{color}\""), tip),
                Look::Rings => circle(svg, *at, 7.0, &style, tip),
                Look::Dots => circle(svg, *at, 2.5, &format!("fill=\"{color}\" fill-opacity=\"0.45\""), tip),
                Look::Faint | Look::Dashed => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(from: f64, to: f64, is_log: bool) -> Axis<'static> {
        Axis { label: "a<b", from, to, is_log }
    }

    fn names(axis: Axis<'_>) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn ticks_are_round_numbers_inside_the_axis() {
        assert_eq!(names(axis(0.0, 1.02, false)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(names(axis(-0.3, 11.0, false)), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(names(axis(3.9, 103.0, true)), ["5", "10", "20", "50", "100"]);
        assert_eq!(names(axis(0.15, 3.0, true)), ["0.2", "0.5", "1", "2"]);
        assert_eq!(names(axis(1e-3, 1.5, true)), ["1e-3", "1e-2", "1e-1", "1e0"]);
        assert!(names(axis(1e300, 1.001e300, false)).iter().all(|name| name.len() <= 12));
        for (from, to) in [(0.0, 0.0), (f64::MIN, f64::MAX), (f64::NEG_INFINITY, f64::INFINITY), (f64::NAN, 1.0)] {
            assert_eq!(names(axis(from, to, false)).len(), 0, "{from} {to}");
        }
    }

    #[test]
    fn values_past_an_end_lie_at_it() {
        let log = axis(1e-4, 1.0, true);
        assert!((log.place(1e-2) - 0.5).abs() < 1e-12);
        assert_eq!([log.place(0.0), log.place(5.0), log.place(f64::NAN)], [0.0, 1.0, 0.0]);
        assert_eq!(axis(f64::MIN, f64::MAX, false).place(0.0), 0.5);
    }

    #[test]
    fn dots_say_their_values_and_hostile_names_stay_text() {
        let points = vec![(0.0, 0.5), (f64::NAN, 1.0), (1.0, f64::NAN), (9.0, -9.0)];
        let line = |look| Line { name: "<i>", color: COLORS[0], look, points: points.clone() };
        let lines = [Look::Solid, Look::Faint, Look::Dashed, Look::Rings].map(line).into();
        let svg = Chart { title: "c<d", x: axis(0.0, 1.0, false), y: axis(0.0, 1.0, false), lines }.svg();
        assert!(svg.contains("<title>&lt;i&gt;: 9.0000, -9.0000</title>"));
        for hostile in ["<i>", "a<b", "c<d", "NaN", "inf"] {
            assert!(!svg.contains(hostile), "{hostile}");
        }
        // Two dots of the solid line, two rings, and the legend's two dots and one ring.
        assert_eq!(svg.matches("<circle").count(), 7);
    }
}
