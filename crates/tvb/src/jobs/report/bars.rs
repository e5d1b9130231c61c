//! One bar for each name, longest value last in length: errors, shares.

use super::svg::{Anchor, number, open, rect, shortened, text};

/// Bars past this are left out, and counted.
const MAX_BARS: usize = 200;
const ROW_HEIGHT: f64 = 20.0;
const BAR_WIDTH: f64 = 420.0;

/// A picture of one value for each name, with a longer faint bar behind it where there is a second one. Values are shown
/// against `full`, which is the whole width.
pub(super) fn bars_svg(label: &str, bars: &[(String, f64, Option<f64>)], full: f64) -> String {
    let shown = bars.get(..MAX_BARS).unwrap_or(bars);
    let longest = shown.iter().map(|(name, ..)| name.chars().count().min(40)).max().unwrap_or(0);
    let left = 12.0 + 6.6 * longest as f64;
    let mut svg = open(left + BAR_WIDTH + 80.0, ROW_HEIGHT * shown.len() as f64 + 6.0, label);
    let length = |value: f64| if full > 0.0 { BAR_WIDTH * (value / full).clamp(0.0, 1.0) } else { 0.0 };
    for (index, (name, value, behind)) in shown.iter().enumerate() {
        let y = ROW_HEIGHT * index as f64 + 3.0;
        text(&mut svg, left - 5.0, y + 12.0, Anchor::End, &shortened(name, 40));
        if let Some(behind) = behind {
            let tip = format!("{name}: {}", number(*behind));
            rect(&mut svg, [left, y, length(*behind).max(1.0), ROW_HEIGHT - 5.0], "class=\"behind\"", &tip);
        }
        let tip = format!("{name}: {}", number(*value));
        rect(&mut svg, [left, y, length(*value).max(1.0), ROW_HEIGHT - 5.0], "class=\"bar\"", &tip);
        text(
            &mut svg,
            left + length(behind.unwrap_or(*value).max(*value)) + 6.0,
            y + 12.0,
            Anchor::Start,
            &number(*value),
        );
    }
    svg += "</svg>";
    if bars.len() > shown.len() {
        svg += &format!("<p>… and {} more.</p>", bars.len() - shown.len());
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_bar_and_many_are_counted() {
        let bar = |name: &str, value| (name.to_owned(), value, Some(1.0));
        let svg = bars_svg("errors", &[bar("a", 0.25), bar("b", f64::NAN)], 1.0);
        assert_eq!(svg.matches("class=\"bar\"").count(), 2);
        assert!(svg.contains("width=\"105.0\"") && svg.contains("0.2500") && svg.contains("unknown"));
        assert!(!svg.contains("NaN"));
        let many: Vec<_> = (0..205).map(|i| bar(&i.to_string(), 0.5)).collect();
        assert!(bars_svg("errors", &many, 0.0).contains("and 5 more"));
    }
}
