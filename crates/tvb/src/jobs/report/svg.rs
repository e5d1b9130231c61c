//! The shapes, text and colours of every picture. By hand, because cells, bars and dots say their values when pointed at
//! and text follows the page's theme, neither of which plotting libraries offer.

use crate::shown::escaped;
use std::fmt::Write as _;

/// Text inside HTML or SVG; names come from files and may hold anything.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escaped(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// At most `n` characters, the middle left out: names of tensors begin alike, and names of runs end alike.
pub(super) fn shortened(text: &str, n: usize) -> String {
    let n_chars = text.chars().count();
    if n_chars <= n {
        return text.to_owned();
    }
    let n_front = (n - 1) / 2;
    let n_back = n - 1 - n_front;
    text.chars().take(n_front).chain(['…']).chain(text.chars().skip(n_chars - n_back)).collect()
}

/// A number as people read it.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "unknown".to_owned(),
        x if x == 0.0 || (1e-3..1e5).contains(&x) => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    }
}

/// A colour for −1..1: blue below zero, white at zero, red above.
pub(super) fn diverging(value: f64) -> String {
    let strength = value.abs().clamp(0.0, 1.0).sqrt();
    let fade = |full: f64| (255.0 + (full - 255.0) * strength) as u8;
    match value >= 0.0 {
        true => format!("#{:02x}{:02x}{:02x}", fade(190.0), fade(30.0), fade(45.0)),
        false => format!("#{:02x}{:02x}{:02x}", fade(25.0), fade(80.0), fade(180.0)),
    }
}

/// What is said when a shape is pointed at; nothing for an empty tip.
fn title(tip: &str) -> String {
    if tip.is_empty() { String::new() } else { format!("<title>{}</title>", escape(tip)) }
}

/// A rectangle with a tip.
pub(super) fn rect(svg: &mut String, [x, y, width, height]: [f64; 4], style: &str, tip: &str) {
    let _ = write!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" {style}>{}</rect>",
        title(tip)
    );
}

/// A circle around (x, y) with a tip.
pub(super) fn circle(svg: &mut String, (x, y): (f64, f64), radius: f64, style: &str, tip: &str) {
    let _ = write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" {style}>{}</circle>", title(tip));
}

/// Points joined by lines.
pub(super) fn polyline(svg: &mut String, points: &[(f64, f64)], style: &str) {
    let places: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(svg, "<polyline points=\"{}\" fill=\"none\" {style}/>", places.join(" "));
}

/// Which end of a text lies at its place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
    /// Turned to read upwards from its place.
    Upwards,
}

/// A label.
pub(super) fn text(svg: &mut String, x: f64, y: f64, anchor: Anchor, label: &str) {
    let how = match anchor {
        Anchor::Start => String::new(),
        Anchor::Middle => " text-anchor=\"middle\"".to_owned(),
        Anchor::End => " text-anchor=\"end\"".to_owned(),
        Anchor::Upwards => format!(" transform=\"rotate(-60 {x:.1} {y:.1})\""),
    };
    let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\"{how}>{}</text>", escape(label));
}

/// The opening of a picture of this size, complete enough to stand in a file of its own.
pub(super) fn open(width: f64, height: f64, label: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"system-ui,sans-serif\" font-size=\"11\" role=\"img\" aria-label=\"{}\">",
        escape(label)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_text() {
        assert_eq!(escape("<script>&\"'\u{7}"), "&lt;script&gt;&amp;&quot;&#39;\\u{7}");
        assert_eq!(shortened("größere", 5), "gr…re");
        assert_eq!(shortened("ab", 4), "ab");
    }

    #[test]
    fn colours_and_numbers_are_well_formed() {
        assert_eq!(diverging(0.0), "#ffffff");
        for value in [-2.0, -0.5, 0.3, 1.0, f64::NAN] {
            assert_eq!(diverging(value).len(), 7);
        }
        assert_eq!(
            [number(0.5), number(0.0), number(1e-9), number(f64::NAN)],
            ["0.5000", "0.0000", "1.00e-9", "unknown"]
        );
    }
}
