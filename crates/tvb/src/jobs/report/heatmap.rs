//! A matrix as coloured cells with names at its sides.

use super::svg::{Anchor, diverging, number, open, rect, shortened, text};

/// Rows or columns past this are not drawn: nobody could read them.
pub(super) const MAX_SIDE: usize = 128;
/// Characters of a name at a side.
const NAME_LENGTH: usize = 28;

/// A matrix and what its sides are called.
pub(super) struct Heatmap<'a> {
    /// What it shows.
    pub label: &'a str,
    /// Names of the rows.
    pub rows: &'a [String],
    /// Names of the columns.
    pub columns: &'a [String],
    /// The value at a row and a column.
    pub value: &'a dyn Fn(usize, usize) -> f64,
    /// The value shown in full colour; smaller ones are fainter.
    pub full: f64,
    /// Cells that are framed: what is estimated.
    pub framed: &'a dyn Fn(usize, usize) -> bool,
}

/// Frames no cell.
pub(super) fn no_frame(_: usize, _: usize) -> bool {
    false
}

impl Heatmap<'_> {
    /// The picture; a sentence in its place where there are too many rows or columns.
    pub(super) fn svg(&self) -> String {
        let (n_rows, n_columns) = (self.rows.len(), self.columns.len());
        if n_rows > MAX_SIDE || n_columns > MAX_SIDE {
            return format!("<p>{n_rows} × {n_columns} cells are too many to draw.</p>");
        }
        let side = (640.0 / n_rows.max(n_columns).max(1) as f64).clamp(7.0, 26.0);
        let longest =
            |names: &[String]| names.iter().map(|name| name.chars().count().min(NAME_LENGTH)).max().unwrap_or(0);
        let left = 12.0 + 6.6 * longest(self.rows) as f64;
        let top = 14.0 + 5.8 * longest(self.columns) as f64;
        let right = 30.0 + 3.4 * longest(self.columns) as f64;
        let (width, height) = (left + side * n_columns as f64 + right, top + side * n_rows as f64 + 4.0);
        let mut svg = open(width, height, self.label);
        for (i, row) in self.rows.iter().enumerate() {
            let y = top + side * i as f64;
            text(&mut svg, left - 5.0, y + side / 2.0 + 4.0, Anchor::End, &shortened(row, NAME_LENGTH));
            for (j, column) in self.columns.iter().enumerate() {
                let value = (self.value)(i, j);
                let is_framed = (self.framed)(i, j);
                let style = format!("fill=\"{}\"", diverging(value / self.full));
                let tip = format!("{row}, {column}: {}{}", number(value), if is_framed { " (estimated)" } else { "" });
                let x = left + side * j as f64;
                rect(&mut svg, [x, y, side - 0.6, side - 0.6], &style, &tip);
                if is_framed {
                    // Inside the cell, so that neighbours keep theirs.
                    let frame = [x + 1.0, y + 1.0, side - 2.6, side - 2.6];
                    rect(&mut svg, frame, "fill=\"none\" stroke=\"#57606a\" stroke-dasharray=\"2 2\"", "");
                }
            }
        }
        for (j, column) in self.columns.iter().enumerate() {
            let x = left + side * j as f64 + side / 2.0 + 3.0;
            text(&mut svg, x, top - 5.0, Anchor::Upwards, &shortened(column, NAME_LENGTH));
        }
        svg + "</svg>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_says_its_value_and_hostile_names_stay_text() {
        let rows = ["a<b".to_owned(), "c".to_owned()];
        let map = Heatmap {
            label: "x",
            rows: &rows,
            columns: &rows,
            value: &|i, j| (i as f64) - (j as f64),
            full: 1.0,
            framed: &no_frame,
        };
        let svg = map.svg();
        assert_eq!(svg.matches("<rect").count(), 4);
        assert!(svg.contains("<title>c, a&lt;b: 1.0000</title>") && !svg.contains("a<b"));
        let framed = Heatmap { framed: &|i, j| i != j, ..map }.svg();
        assert_eq!((framed.matches("<rect").count(), framed.matches("(estimated)").count()), (6, 2));
        let many: Vec<String> = (0..=MAX_SIDE).map(|i| i.to_string()).collect();
        assert!(Heatmap { rows: &many, ..map }.svg().contains("too many"));
    }
}
