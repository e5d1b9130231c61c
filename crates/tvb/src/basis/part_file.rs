//! The record of a part of a job: what it is a part of, and the sums and digests that the join needs.
//!
//! One safetensors file, sealed like the Gram file: tables of sums f64 [n, n_values] and of digests u8 [n, n_columns, 16], and in
//! `__metadata__` the keys `format` = `tvb-part`, `version`, `checksum` and `record`, a JSON object ([`PartRecord`]). Which rows of
//! which tensors a table is about is known from the plan and the part's number ([`crate::pass::part`]), so the join says how long
//! each has to be. A part of a Gram pass is this file alone; one with data is a folder that holds it as [`RECORD`].

use super::matrix_file::MatrixFile;
use super::seal;
use crate::checkpoint::{Budget, Dtype, SafetensorsLayout, TensorSpec, names};
use crate::columns::record::PlanRecord;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::pass::Part;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the metadata's `format` must say.
pub const FORMAT: &str = "tvb-part";
const VERSION: &str = "1";
/// The record's name in the folder of a part that has data.
pub const RECORD: &str = names::PART;
/// Larger files are not ours.
const MAX_BYTES: u64 = 16 << 30;

/// What a part is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    /// The Gram matrices.
    Gram,
    /// Codes of tasks or mixtures.
    Codes,
    /// Atoms as floats.
    Atoms,
    /// Inner products with generated columns.
    Products,
    /// Adapters that are kept as their factors: part 1 holds all of it.
    Undivided,
}

impl PartKind {
    /// In words, for messages: "a Gram pass".
    pub fn in_words(self) -> &'static str {
        match self {
            PartKind::Gram => "a Gram pass",
            PartKind::Codes => "a basis of codes",
            PartKind::Atoms => "a basis of atoms",
            PartKind::Products => "a basis of generated atoms",
            PartKind::Undivided => "a basis of adapters",
        }
    }
}

/// The record of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRecord {
    /// The program that made it.
    pub tool: String,
    /// What it is a part of.
    pub kind: PartKind,
    /// Which part.
    pub part: Part,
    /// The kind of device that made it.
    pub device: String,
    /// The inputs.
    pub plan: PlanRecord,
    /// The tensors that no rows were read of for their Gram matrices, in order.
    pub factored: Vec<usize>,
    /// What decides the bytes beside the inputs; the same in all parts of a job.
    pub job: Value,
    /// What only this part says.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub own: Value,
}

/// A table beside the record.
#[derive(Clone, Copy, Debug)]
pub enum Table<'a> {
    /// [n, n_values]
    Sums(&'a [f64], usize),
    /// [n, n_columns]
    Digests(&'a [Digest], usize),
}

impl Table<'_> {
    fn spec(&self, name: &str) -> TensorSpec {
        let (dtype, shape) = match *self {
            Table::Sums(sums, n_values) => (Dtype::F64, vec![sums.len() / n_values.max(1), n_values]),
            Table::Digests(digests, n) => (Dtype::U8, vec![digests.len() / n.max(1), n, 16]),
        };
        TensorSpec { name: name.to_owned(), dtype, shape }
    }

    fn write(&self, out: &mut [u8]) {
        match self {
            Table::Sums(sums, _) => {
                let values = out.as_chunks_mut::<8>().0.iter_mut().zip(*sums);
                values.for_each(|(out, value)| *out = value.to_le_bytes());
            }
            Table::Digests(digests, _) => {
                let values = out.as_chunks_mut::<16>().0.iter_mut().zip(*digests);
                values.for_each(|(out, digest)| *out = digest.0.to_le_bytes());
            }
        }
    }
}

/// The sealed bytes of a part's record and its tables, each under its name.
///
/// # Errors
/// Failed: a header too large to be written.
pub fn to_bytes(record: &PartRecord, tables: &[(&str, Table<'_>)]) -> Result<Vec<u8>> {
    let failed = |error: &dyn std::fmt::Display| Error::failed(format!("a part's record: {error}"));
    let specs: Vec<TensorSpec> = tables.iter().map(|(name, table)| table.spec(name)).collect();
    let metadata = BTreeMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("version".to_owned(), VERSION.to_owned()),
        ("checksum".to_owned(), seal::UNSEALED.to_string()),
        ("record".to_owned(), serde_json::to_string(record).map_err(|error| failed(&error))?),
    ]);
    let layout = SafetensorsLayout::new(&specs, &metadata)?;
    let mut bytes = vec![0; layout.file_bytes() as usize];
    let header = layout.header();
    bytes.get_mut(..header.len()).ok_or_else(|| failed(&"its header does not fit"))?.copy_from_slice(header);
    for (at, ((_, table), spec)) in tables.iter().zip(&specs).enumerate() {
        let begin = layout.offset(at) as usize;
        let own = bytes.get_mut(begin..).and_then(|rest| rest.get_mut(..spec.n_bytes().ok()? as usize));
        table.write(own.ok_or_else(|| failed(&"its tables do not fit"))?);
    }
    seal::seal(&mut bytes);
    Ok(bytes)
}

/// A part's record, read and checked; its tables are read when they are asked for.
pub struct PartFile {
    file: MatrixFile<'static>,
    /// The file, for messages.
    path: PathBuf,
    /// Of the file, which holds it.
    pub checksum: Digest,
    /// What it is a part of.
    pub record: PartRecord,
}

impl std::fmt::Debug for PartFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PartFile({})", self.path.display())
    }
}

/// The file that a part's record lies in: of a folder the one inside.
pub fn record_path(part: &Path) -> PathBuf {
    if part.is_dir() { part.join(RECORD) } else { part.to_owned() }
}

/// Whether a folder is that of a part, by its names alone.
pub fn is_folder(path: &Path) -> bool {
    path.is_dir() && path.join(RECORD).is_file()
}

/// What whoever sees a bad part can do.
const AGAIN: &str = "run this part again";

impl PartFile {
    /// Opens the part at `part`, a file or a folder, and checks all of the record's file. What reading takes of memory is charged
    /// to `budget`.
    ///
    /// # Errors
    /// Rejected: no part, another version, damaged, too little memory. Failed: I/O. Interrupted.
    pub fn open(part: &Path, budget: &Budget) -> Result<PartFile> {
        let path = record_path(part);
        let mut file = MatrixFile::open(&path, "a part", MAX_BYTES, None, budget).map_err(|error| {
            match error.kind() == ErrorKind::Rejected && error.hint_text().is_none() {
                true => error.hint(AGAIN),
                false => error,
            }
        })?;
        if file.metadata("format") != FORMAT {
            let found: String = file.metadata("format").chars().take(60).collect();
            return Err(Error::rejected(format!(
                "{}: a part of a job expected (format {FORMAT:?}), format {found:?} found",
                path.display()
            ))
            .hint("parts are made with `tvb gram --part` and `tvb compress --part`"));
        }
        let (checksum, record) = parse(&mut file).map_err(|error| at(&path, error))?;
        Ok(PartFile { file, path, checksum, record })
    }

    /// Opens again a part whose record's file had this checksum when it was read before.
    ///
    /// # Errors
    /// As [`open`](PartFile::open). Rejected: it is not what it was.
    pub fn reopen(part: &Path, checksum: Digest, budget: &Budget) -> Result<PartFile> {
        let file = PartFile::open(part, budget)?;
        match file.checksum == checksum {
            true => Ok(file),
            false => Err(Error::rejected(format!("{}: changed while it was in use", part.display()))
                .hint("join again when no part is being made")),
        }
    }

    /// Bytes of the file.
    pub fn n_bytes(&self) -> u64 {
        self.file.n_bytes()
    }

    /// Rows [n_rows, n_values] of the sums called `name`.
    ///
    /// # Errors
    /// Rejected: not so many, a value that is not finite, too little memory. Failed: I/O. Interrupted.
    pub fn sums(&mut self, name: &str, n_rows: usize, n_values: usize) -> Result<Vec<f64>> {
        let path = self.path.clone();
        let tensor = self.find(name, Dtype::F64, &[n_rows, n_values])?;
        self.file.charge_values((n_rows * n_values) as u64)?;
        let mut sums = Vec::with_capacity(n_rows * n_values);
        self.file.values(&tensor, |value| sums.push(value)).map_err(|error| at(&path, error))?;
        Ok(sums)
    }

    /// Rows [n_rows, n_columns] of the digests called `name`.
    ///
    /// # Errors
    /// Rejected: not so many, too little memory. Failed: I/O. Interrupted.
    pub fn digests(&mut self, name: &str, n_rows: usize, n_columns: usize) -> Result<Vec<Digest>> {
        let tensor = self.find(name, Dtype::U8, &[n_rows, n_columns, 16])?;
        self.file.charge_values(2 * (n_rows * n_columns) as u64)?;
        let mut digests = Vec::with_capacity(n_rows * n_columns);
        self.file.bytes(&tensor, &mut |piece| {
            digests.extend(piece.as_chunks::<16>().0.iter().map(|value| Digest(u128::from_le_bytes(*value))));
            Ok(())
        })?;
        Ok(digests)
    }

    /// Notices a file that was written to since it was opened.
    ///
    /// # Errors
    /// Rejected: it was.
    pub fn finish(self) -> Result<PartRecord> {
        self.file.finish()?;
        Ok(self.record)
    }

    /// A table of just this size: nothing larger than the file is ever made.
    fn find(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<crate::checkpoint::Tensor> {
        let found = self.file.tensor(name);
        found.filter(|tensor| tensor.dtype == dtype && tensor.shape == shape).cloned().ok_or_else(|| {
            let error = match found {
                None => Error::rejected(format!("table {name}: {dtype} {shape:?} expected, none found")),
                Some(tensor) => Error::rejected(format!(
                    "table {name}: {dtype} {shape:?} expected, {} {:?} found",
                    tensor.dtype, tensor.shape
                )),
            };
            at(&self.path, error)
        })
    }
}

/// Parses the bytes of a record's file; its tables are not looked at.
///
/// # Errors
/// One line that says what is wrong, without the path.
pub fn from_bytes(bytes: &[u8]) -> std::result::Result<PartRecord, String> {
    let parsed = MatrixFile::of_bytes(bytes).and_then(|mut file| parse(&mut file));
    parsed.map(|(_, record)| record).map_err(|error| error.message().to_owned())
}

fn at(path: &Path, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Rejected if error.hint_text().is_none() => error.context(path.display()).hint(AGAIN),
        // Names the file itself.
        _ => error,
    }
}

fn parse(file: &mut MatrixFile<'_>) -> Result<(Digest, PartRecord)> {
    let rejected = |what: String| Err(Error::rejected(what));
    let words = |key: &str| -> String { file.metadata(key).chars().take(60).collect() };
    if file.metadata("version") != VERSION {
        return rejected(format!("part version {VERSION} expected, {:?} found", words("version")));
    }
    let checksum: Digest = file.metadata("checksum").parse().map_err(|why: String| Error::rejected(why))?;
    if !file.is_intact(checksum)? {
        return rejected("its checksum does not match: the file was damaged".into());
    }
    file.charge_json(file.json_cost("record"))?;
    let record: PartRecord = serde_json::from_str(file.metadata("record"))
        .map_err(|error| Error::rejected(format!("its record: {error}")))?;
    if !record.factored.is_sorted_by(|a, b| a < b) {
        return rejected("its record: factored tensors in order expected, others found".into());
    }
    Ok((checksum, record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::plan::Plan;

    fn record() -> PartRecord {
        let path = |name: &str| format!("../tvb-zoo/checkpoints/{name}.safetensors");
        PartRecord {
            tool: crate::TOOL.into(),
            kind: PartKind::Gram,
            part: Part::new(2, 3).unwrap(),
            device: "cpu".into(),
            plan: PlanRecord::of(&Plan::open(path("base"), [path("digits")]).unwrap()).unwrap(),
            factored: vec![1, 5],
            job: serde_json::json!({"a": 1}),
            own: Value::Null,
        }
    }

    #[test]
    fn records_and_tables_come_back_and_damage_is_noticed() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("part");
        let (sums, digests) = ([0.5, -1.0, 2.0, 1e300, 0.0, -0.0], [Digest(7), Digest(u128::MAX)]);
        let tables = [("sums", Table::Sums(&sums, 3)), ("digests", Table::Digests(&digests, 2))];
        let bytes = to_bytes(&record(), &tables).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let budget = Budget::default();
        let mut found = PartFile::open(&path, &budget).unwrap();
        assert_eq!(found.record, record());
        assert_eq!(found.sums("sums", 2, 3).unwrap(), sums);
        assert_eq!(found.digests("digests", 1, 2).unwrap(), digests);
        for (n_rows, n_values) in [(3, 2), (2, 4), (1, 3), (usize::MAX, 3)] {
            let error = found.sums("sums", n_rows, n_values).unwrap_err();
            assert!(error.message().contains("table sums") && error.hint_text() == Some(AGAIN), "{error}");
        }
        assert!(found.digests("none", 1, 2).is_err());
        found.finish().unwrap();
        assert_eq!(budget.left(), budget.limit());
        for at in (0..bytes.len()).step_by(bytes.len() / 400) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            std::fs::write(&path, &damaged).unwrap();
            let error = PartFile::open(&path, &budget).unwrap_err();
            assert!(error.message().contains(&path.display().to_string()), "{error}");
            std::fs::write(&path, &bytes[..at]).unwrap();
            assert!(PartFile::open(&path, &budget).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn sealed_records_that_no_part_has_are_refused() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("part");
        let sealed = |from: &str, to: &str| {
            let bytes = to_bytes(&record(), &[]).unwrap();
            let (length, text) = bytes.split_first_chunk::<8>().unwrap();
            let text = String::from_utf8(text.to_vec()).unwrap();
            let from = from.replace('"', "\\\"");
            let to = format!("{:<1$}", to.replace('"', "\\\""), from.len());
            assert!(text.contains(&from) && from.len() == to.len(), "{from}");
            let place =
                text.find("xxh3-128:").map(|at| at..at + 41).filter(|at| text[..at.start].ends_with("checksum\":\""));
            let place = place.expect("the checksum is the file's first digest");
            let unsealed = text.replace(&from, &to).replace(&text[place], &seal::UNSEALED.to_string());
            let mut bytes = [length, unsealed.as_bytes()].concat();
            assert!(seal::seal(&mut bytes));
            std::fs::write(&path, &bytes).unwrap();
            PartFile::open(&path, &Budget::default())
        };
        sealed(r#""factored":[1,5]"#, r#""factored":[1,6]"#).unwrap();
        let changes = [
            (r#""factored":[1,5]"#, r#""factored":[5,1]"#),
            (r#""part":"2/3""#, r#""part":"4/3""#),
            (r#""kind":"gram""#, r#""kind":"gran""#),
            (r#""job":{"a":1}"#, r#""jot":{"a":1}"#),
        ];
        for (from, to) in changes {
            let error = sealed(from, to).unwrap_err();
            assert!(error.message().contains("its record"), "{error}");
        }
    }
}
