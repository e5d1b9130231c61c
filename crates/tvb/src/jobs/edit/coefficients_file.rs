//! The file of coefficients that `tvb fit` and the Python package's `tvb.torch.Coefficients` write and read.

use super::combination::{Block, Combination, Over};
use crate::checkpoint::{Budget, shown};
use crate::checkpoint::{Existing, Inputs, json_cost, read_capped_within, write_whole};
use crate::error::{Error, Result};
use crate::shown::shown_path;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;

const FORMAT: &str = "tvb-coefficients";
const VERSION: u64 = 1;
/// A larger file is not one of ours.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: String,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tasks: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    atoms: Option<Vec<String>>,
    blocks: Option<Vec<BlockRecord>>,
    values: Values,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct BlockRecord {
    name: String,
    tensors: Vec<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Values {
    Row(Vec<f64>),
    Rows(Vec<Vec<f64>>),
}

/// What is read before the rest: another version may look different.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: serde_json::Value,
}

impl Combination {
    /// Reads a file of coefficients.
    ///
    /// # Errors
    /// Rejected: another file or version, names that are there twice, numbers that are not finite or not as many as there are names
    /// and blocks. Failed: the system cannot read it.
    pub fn read(path: &Path, budget: &Budget) -> Result<Combination> {
        let (text, mut charge) = read_capped_within(path, "a file of coefficients", MAX_BYTES, budget)?;
        charge.take(json_cost(&text))?;
        Combination::from_json(&text, path)
    }

    /// Reads the text of such a file; `path` is for messages.
    ///
    /// # Errors
    /// As [`read`](Combination::read).
    pub fn from_json(text: &[u8], path: &Path) -> Result<Combination> {
        let rejected = |what: String| Error::rejected(format!("{}: {what}", shown_path(path)));
        const MADE_BY: &str =
            "`tvb fit` and tvb.torch write files of coefficients: coefficients.json in the folder of a fit";
        let other =
            |error: serde_json::Error| rejected(format!("a file of coefficients expected: {error}")).hint(MADE_BY);
        let head: Head = serde_json::from_slice(text).map_err(other)?;
        if head.format != FORMAT {
            return Err(rejected(format!("format {FORMAT:?} expected, {} found", shown(&head.format))).hint(MADE_BY));
        }
        if head.version != VERSION {
            return Err(
                rejected(format!("version {VERSION} expected, {} found", head.version)).hint("a newer tvb wrote it")
            );
        }
        let record: Record = serde_json::from_slice(text).map_err(other)?;
        let (over, names) = match (record.tasks, record.atoms) {
            (Some(tasks), None) => (Over::Tasks, tasks),
            (None, Some(atoms)) => (Over::Atoms, atoms),
            _ => return Err(rejected("either \"tasks\" or \"atoms\" expected".to_owned())),
        };
        if names.is_empty() {
            return Err(rejected("one name or more expected, none found".to_owned()));
        }
        if let Some(twice) = twice(&names) {
            return Err(rejected(format!("{} is there twice", shown(twice))));
        }
        let blocks: Option<Vec<Block>> = record
            .blocks
            .map(|blocks| blocks.into_iter().map(|BlockRecord { name, tensors }| Block { name, tensors }).collect());
        if let Some(blocks) = &blocks {
            let names: Vec<String> = blocks.iter().map(|block| block.name.clone()).collect();
            let tensors: Vec<String> = blocks.iter().flat_map(|block| block.tensors.iter().cloned()).collect();
            if let Some(twice) = twice(&names).or_else(|| twice(&tensors)) {
                return Err(rejected(format!("{} is there twice among the blocks", shown(twice))));
            }
        }
        let values = match (record.values, &blocks) {
            (Values::Row(row), None) => vec![row],
            (Values::Rows(rows), Some(_)) => rows,
            // What an empty list is depends on nothing.
            (_, None) => {
                return Err(rejected("values: one list of numbers expected, where there are no blocks".to_owned()));
            }
            (_, Some(_)) => return Err(rejected("values: a list of numbers for each block expected".to_owned())),
        };
        let n_rows = blocks.as_ref().map_or(1, Vec::len);
        if values.len() != n_rows || values.iter().any(|row| row.len() != names.len()) {
            let found: Vec<String> = values.iter().take(4).map(|row| row.len().to_string()).collect();
            return Err(rejected(format!(
                "values: {n_rows} x {} numbers expected, {} rows of {} found",
                names.len(),
                values.len(),
                found.join(", ")
            )));
        }
        if n_rows == 0 {
            return Err(rejected("blocks: one or more expected, none found".to_owned()));
        }
        if values.iter().flatten().any(|value| !value.is_finite()) {
            return Err(rejected("values: finite numbers expected".to_owned()));
        }
        Ok(Combination { over, names, blocks, values })
    }

    /// The text of a file of these coefficients.
    ///
    /// # Errors
    /// Failed: numbers that are not finite, which JSON does not have.
    pub fn to_json(&self) -> Result<String> {
        if let Some(bad) = self.values.iter().flatten().find(|value| !value.is_finite()) {
            return Err(Error::failed(format!("coefficients: finite numbers expected, {bad} found")));
        }
        let named = |over: Over| (self.over == over).then(|| self.names.clone());
        let block = |block: &Block| BlockRecord { name: block.name.clone(), tensors: block.tensors.clone() };
        let record = Record {
            format: FORMAT.to_owned(),
            version: VERSION,
            tasks: named(Over::Tasks),
            atoms: named(Over::Atoms),
            blocks: self.blocks.as_ref().map(|blocks| blocks.iter().map(block).collect()),
            values: match (&self.blocks, self.values.as_slice()) {
                (None, [row]) => Values::Row(row.clone()),
                (_, rows) => Values::Rows(rows.to_vec()),
            },
        };
        serde_json::to_string_pretty(&record)
            .map(|text| text + "\n")
            .map_err(|error| Error::failed(format!("coefficients cannot be written as JSON: {error}")))
    }

    /// Writes them to a file, which appears whole or not at all.
    ///
    /// # Errors
    /// As [`to_json`](Combination::to_json). Rejected: a file that is there, unless it is to be replaced, or one of `inputs`. Failed:
    /// the system cannot write.
    pub fn write(&self, path: &Path, existing: Existing, inputs: &Inputs) -> Result<()> {
        write_whole(path, self.to_json()?.as_bytes(), existing, inputs)
    }
}

/// A name that is there twice.
fn twice(names: &[String]) -> Option<&String> {
    let mut seen = HashSet::new();
    names.iter().find(|name| !seen.insert(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Combination> {
        Combination::from_json(text.as_bytes(), Path::new("c.json"))
    }

    /// As `json.dumps(record, indent=1)` of the Python package writes it.
    const FROM_PYTHON: &str = "{\n \"format\": \"tvb-coefficients\",\n \"version\": 1,\n \"tasks\": [\n  \"cars\",\n  \"mnist\"\n ],\n \
        \"blocks\": [\n  {\n   \"name\": \"block0\",\n   \"tensors\": [\n    \"a\"\n   ]\n  },\n  {\n   \"name\": \"block1\",\n   \
        \"tensors\": [\n    \"b\",\n    \"c\"\n   ]\n  }\n ],\n \"values\": [\n  [\n   0.61,\n   -0.08\n  ],\n  [\n   0.55,\n   0.02\n  ]\n ]\n}\n";

    #[test]
    fn what_python_writes_is_read_and_written_again() {
        let found = read(FROM_PYTHON).unwrap();
        assert_eq!((found.over, found.names.as_slice()), (Over::Tasks, &["cars".to_owned(), "mnist".to_owned()][..]));
        assert_eq!(found.values, [[0.61, -0.08], [0.55, 0.02]]);
        assert_eq!(found.blocks.as_ref().unwrap()[1].tensors, ["b", "c"]);
        assert_eq!(read(&found.to_json().unwrap()).unwrap(), found);
        let one = read(r#"{"format":"tvb-coefficients","version":1,"atoms":["atom-00"],"blocks":null,"values":[2]}"#)
            .unwrap();
        assert_eq!((one.over, &one.blocks, one.values.as_slice()), (Over::Atoms, &None, &[vec![2.0]][..]));
        assert_eq!(read(&one.to_json().unwrap()).unwrap(), one);
        let words = r#""values": ["#;
        assert!(one.to_json().unwrap().contains(words), "{}", one.to_json().unwrap());
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let record = |rest: &str| format!(r#"{{"format":"tvb-coefficients","version":1,{rest}}}"#);
        let cases = [
            ("[1]".to_owned(), "expected"),
            (r#"{"format":"other","version":1}"#.to_owned(), "format"),
            (r#"{"format":"tvb-coefficients","version":2,"new":[]}"#.to_owned(), "version 1 expected, 2 found"),
            (record(r#""blocks":null,"values":[1]"#), "either"),
            (record(r#""tasks":["a"],"atoms":["a"],"blocks":null,"values":[1]"#), "either"),
            (record(r#""tasks":[],"blocks":null,"values":[]"#), "one name or more"),
            (record(r#""tasks":["a","a"],"blocks":null,"values":[1,2]"#), "twice"),
            (record(r#""tasks":["a"],"blocks":null,"values":[1,2]"#), "1 x 1 numbers expected"),
            (record(r#""tasks":["a"],"blocks":null,"values":[[1]]"#), "one list"),
            (record(r#""tasks":["a"],"blocks":[],"values":[]"#), "values"),
            (record(r#""tasks":["a"],"blocks":[{"name":"x","tensors":["t","t"]}],"values":[[1]]"#), "twice among"),
            (record(r#""tasks":["a"],"blocks":[{"name":"x","tensors":[]}],"values":[[1],[2]]"#), "1 x 1 numbers"),
            (record(r#""tasks":["a"],"blocks":null,"values":[1e999]"#), "a file of coefficients expected"),
            (record(r#""tasks":["a"],"blocks":null,"values":["1"]"#), "a file of coefficients expected"),
            (record(r#""tasks":["a"],"blocks":null,"values":[1],"more":1"#), "a file of coefficients expected"),
        ];
        for (text, expected) in cases {
            let error = read(&text).unwrap_err();
            assert!(error.message().starts_with("c.json: ") && error.message().contains(expected), "{text}: {error}");
        }
        let not_finite =
            Combination { over: Over::Tasks, names: vec!["a".into()], blocks: None, values: vec![vec![f64::NAN]] };
        assert!(not_finite.to_json().is_err());
    }
}
