//! A chart of lines: accuracy over what is given or what has arrived. On a white card, so that it reads the same on a light page and on
//! a dark one.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 430.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = WIDTH - 24.0;
const BOTTOM: f64 = HEIGHT - 54.0;
/// Of one line of the legend.
const LEGEND_HEIGHT: f64 = 20.0;

/// Points that are joined.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) color: &'static str,
    pub(super) is_dashed: bool,
    /// x, and y in percent.
    pub(super) points: Vec<(f64, f64)>,
}

/// What is around them.
pub(super) struct Frame<'a> {
    pub(super) title: &'a str,
    pub(super) x_label: &'a str,
    pub(super) ticks: &'a [f64],
    /// Percent, from below to above.
    pub(super) range: (f64, f64),
}

impl Frame<'_> {
    fn x(&self, value: f64) -> f64 {
        let (first, last) = (self.ticks.first().copied().unwrap_or(0.0), self.ticks.last().copied().unwrap_or(1.0));
        LEFT + 16.0 + (RIGHT - LEFT - 32.0) * ((value - first) / (last - first).max(1e-9)).clamp(0.0, 1.0)
    }

    fn y(&self, percent: f64, top: f64) -> f64 {
        let (least, most) = self.range;
        BOTTOM - (BOTTOM - top) * ((percent - least) / (most - least)).clamp(0.0, 1.0)
    }

    /// The picture.
    pub(super) fn svg(&self, lines: &[Line]) -> String {
        // The legend: as many names side by side as there is room for.
        let mut places = Vec::new();
        let (mut at, mut row) = (20.0, 0.0);
        for line in lines {
            let width = 29.0 + 6.9 * line.name.chars().count() as f64 + 20.0;
            if at + width > RIGHT && at > 20.0 {
                (at, row) = (20.0, row + 1.0);
            }
            places.push((at, 56.0 + LEGEND_HEIGHT * row));
            at += width;
        }
        let top = 56.0 + LEGEND_HEIGHT * (row + 1.0) + 4.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#24292f\" \
             role=\"img\" aria-label=\"{0}\">\n<title>{0}</title>\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{1}\" height=\"{2}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d0d7de\"/>\n\
             <text x=\"20\" y=\"30\" font-size=\"16\" font-weight=\"600\">{0}</text>\n",
            self.title,
            WIDTH - 1.0,
            HEIGHT - 1.0
        );
        let (least, most) = self.range;
        let _ = writeln!(svg, "<g stroke=\"#d8dee4\" fill=\"#57606a\">");
        let mut percent = least;
        while percent <= most {
            let y = self.y(percent, top);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{RIGHT}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" stroke=\"none\">{percent} %</text>",
                LEFT - 8.0,
                y + 4.5
            );
            percent += 10.0;
        }
        for tick in self.ticks {
            let x = self.x(*tick);
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" stroke=\"none\">{tick}</text>",
                BOTTOM + 20.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" stroke=\"none\">{}</text>\n</g>",
            (LEFT + RIGHT) / 2.0,
            HEIGHT - 14.0,
            self.x_label
        );
        for (line, (x, y)) in lines.iter().zip(places) {
            let color = line.color;
            let dash = if line.is_dashed { " stroke-dasharray=\"5 3\"" } else { "" };
            let points: Vec<String> =
                line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", self.x(*x), self.y(*y, top))).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"{dash}/>",
                points.join(" ")
            );
            let _ = writeln!(
                svg,
                "<path d=\"M{x} {y}h22\" stroke=\"{color}\" stroke-width=\"2\"{dash}/><text x=\"{}\" y=\"{}\">{}</text>",
                x + 29.0,
                y + 4.5,
                line.name
            );
        }
        svg + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_inside_and_every_line_is_named() {
        let frame = Frame { title: "t", x_label: "x", ticks: &[4.0, 8.0, 16.0], range: (20.0, 100.0) };
        let line = |name: &str, y: f64| Line {
            name: name.repeat(12),
            color: "#000000",
            is_dashed: false,
            points: vec![(4.0, y), (99.0, -50.0)],
        };
        let svg = frame.svg(&[line("abc", 50.0), line("def", 300.0), line("ghi", 20.0)]);
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
        for name in ["abc", "def", "ghi"] {
            assert!(svg.contains(&name.repeat(12)));
        }
        assert!((LEFT..=RIGHT).contains(&frame.x(-1e9)) && frame.x(8.0) > frame.x(4.0));
    }
}
