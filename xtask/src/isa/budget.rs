//! The budgets of shaders/isa.md: a table whose lines say how large the variants of a name may become.

use super::radv::{Compiled, Stats};
use crate::process::Result;
use std::path::Path;

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// A variant's name; `*` stands for anything.
    pattern: String,
    pub(crate) instructions: u64,
    pub(crate) branches: u64,
    pub(crate) vgprs: u64,
}

/// The whole file.
pub(crate) struct Budgets {
    /// What stands before the table's lines.
    head: String,
    lines: Vec<Budget>,
}

/// How the line begins that says whose figures these are.
const MEASURED: &str = "Measured with ";

impl Budgets {
    pub(crate) fn read(path: &Path) -> Result<Budgets> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Budgets::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str) -> Result<Budgets> {
        let is_rule = |line: &str| line.starts_with("| ---");
        let at = text.lines().position(is_rule).ok_or("expected a table, found none")? + 1;
        let head = text.lines().take(at).flat_map(|line| [line, "\n"]).collect();
        let lines = text.lines().skip(at).filter(|line| line.starts_with('|')).map(Budget::parse);
        Ok(Budgets { head, lines: lines.collect::<Result<_>>()? })
    }

    /// The first line that a variant's name fits.
    pub(crate) fn of(&self, variant: &str) -> Option<&Budget> {
        self.lines.iter().find(|line| fits(&line.pattern, variant))
    }

    /// Of each line and family, the variant with the most instructions.
    pub(crate) fn largest<'a>(&self, all: &'a [Compiled]) -> Vec<&'a Compiled> {
        let mut largest: Vec<(Option<&Budget>, &Compiled)> = Vec::new();
        for compiled in all {
            let line = self.of(&compiled.variant);
            let same = largest
                .iter_mut()
                .find(|(other, found)| line.is_some() && *other == line && found.family == compiled.family);
            match same {
                Some((_, found)) if found.stats.instructions >= compiled.stats.instructions => {}
                Some((_, found)) => *found = compiled,
                None => largest.push((line, compiled)),
            }
        }
        largest.into_iter().map(|(_, compiled)| compiled).collect()
    }

    /// The file with the figures that were found, and a quarter to spare: other versions of the compiler make somewhat more. A
    /// number that leaves a tenth to a half stays.
    pub(crate) fn refreshed(&self, all: &[Compiled], driver: &str) -> Result<String> {
        let mut text = String::new();
        for line in self.head.lines() {
            match line.starts_with(MEASURED) {
                true => {
                    text += &format!("{MEASURED}{}.", driver.split_once(", ").map_or(driver, |(_, version)| version))
                }
                false => text += line,
            }
            text.push('\n');
        }
        for line in &self.lines {
            let of_line = |compiled: &&Compiled| self.of(&compiled.variant) == Some(line);
            let stats: Vec<Stats> = all.iter().filter(of_line).map(|compiled| compiled.stats).collect();
            let most = |of: fn(&Stats) -> u64| stats.iter().map(of).max().ok_or("no variant of that name");
            let most = |of| most(of).map_err(|error| format!("{}: {error}", line.pattern));
            let roomy = |old: u64, found: u64, step: u64| match old >= found + found / 10 && old <= found + found / 2 {
                true => old,
                false => (found + found / 4).next_multiple_of(step),
            };
            let budget = Budget {
                pattern: line.pattern.clone(),
                instructions: roomy(line.instructions, most(|stats| stats.instructions)?, 10),
                branches: roomy(line.branches, most(|stats| stats.branches)?, 2),
                vgprs: roomy(line.vgprs, most(|stats| stats.vgprs)?, 8),
            };
            text += &format!("{}\n", budget.written());
        }
        Ok(text)
    }
}

impl Budget {
    fn parse(line: &str) -> Result<Budget> {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let number = |at: usize| cells.get(at).and_then(|cell| cell.parse().ok());
        match (cells.first(), number(1), number(2), number(3)) {
            (Some(pattern), Some(instructions), Some(branches), Some(vgprs)) => {
                let pattern = pattern.trim_matches('`').to_owned();
                Ok(Budget { pattern, instructions, branches, vgprs })
            }
            _ => Err(format!("expected a name and three numbers, found {line:?}")),
        }
    }

    fn written(&self) -> String {
        format!("| `{}` | {} | {} | {} |", self.pattern, self.instructions, self.branches, self.vgprs)
    }
}

/// Whether a name is what a pattern says.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let cases = [
            ("eigh", "eigh", true),
            ("eigh", "eigh2", false),
            ("gram-*", "gram-FORMAT0-TILE8", true),
            ("gram-*", "gram_fold", false),
            ("gram-*-TILE8-*", "gram-FORMAT0-TILE8-BLOCK8", true),
            ("gram-*-TILE8-*", "gram-FORMAT0-TILE16-BLOCK8", false),
            ("*8", "gram-TILE8", true),
            ("*8", "gram-TILE8-BLOCK4", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn budgets_are_read_checked_and_refreshed() {
        let text = "# Title\n\nMeasured with nothing.\n\n| a | b | c | d |\n| --- | ---: | ---: | ---: |\n\
                    | `gram-1*` | 10 | 2 | 8 |\n| `gram*` | 60 | 4 | 8 |\n";
        let budgets = Budgets::parse(text).expect("a table");
        assert_eq!(budgets.of("gram-12").map(|line| line.instructions), Some(10));
        assert_eq!(budgets.of("gram-2").map(|line| line.instructions), Some(60));
        assert_eq!(budgets.of("eigh"), None);
        let compiled = |variant: &str, instructions| Compiled {
            variant: variant.to_owned(),
            family: "navi21".to_owned(),
            stats: Stats { instructions, branches: 3, vgprs: 32, ..Stats::default() },
        };
        let all = [compiled("gram-1", 100), compiled("gram-11", 200), compiled("gram-2", 50)];
        let shown: Vec<&str> = budgets.largest(&all).iter().map(|found| found.variant.as_str()).collect();
        assert_eq!(shown, ["gram-11", "gram-2"]);
        let refreshed = budgets.refreshed(&all, "Null hardware, Mesa 1.2").expect("variants of both");
        assert!(refreshed.starts_with("# Title\n\nMeasured with Mesa 1.2.\n\n| a |"), "{refreshed}");
        assert!(refreshed.ends_with("| `gram-1*` | 250 | 4 | 40 |\n| `gram*` | 60 | 4 | 40 |\n"), "{refreshed}");
        assert!(budgets.refreshed(&all[..2], "Mesa").is_err(), "a line without a variant");
    }

    #[test]
    fn broken_tables_are_refused() {
        for text in ["# nothing\n", "| a |\n| --- |\n| gram | ten | 2 | 3 |\n", "| a |\n| --- |\n| gram | 1 | 2 |\n"] {
            assert!(Budgets::parse(text).is_err(), "{text}");
        }
    }
}
