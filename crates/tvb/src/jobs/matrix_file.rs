//! A small matrix from a JSON file: the initial A of the autoencoder.

use crate::error::{Error, Result};
use crate::matrix::Matrix;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use tvb_kernels::MAX_TASKS;

/// A file of a matrix larger than this is something else: the largest has a million numbers.
const MAX_BYTES: u64 = 64 << 20;

/// A list of at most as many items as there can be tasks, and so atoms.
struct Bounded<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = Bounded<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Bounded<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == MAX_TASKS {
                        return Err(A::Error::custom(format!("more than {MAX_TASKS} items")));
                    }
                    list.push(item);
                }
                Ok(Bounded(list))
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// Reads a JSON array of rows of finite numbers.
///
/// # Errors
/// Rejected: anything else, rows of different lengths. Failed: I/O.
pub(super) fn read_matrix(path: &Path) -> Result<Matrix> {
    let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
    let text = crate::checkpoint::read_capped(path, "a matrix", MAX_BYTES)?;
    let Bounded::<Bounded<f64>>(rows) = serde_json::from_slice(&text)
        .map_err(|error| rejected(format!("a JSON array of rows of numbers expected: {error}")))?;
    let rows: Vec<Vec<f64>> = rows.into_iter().map(|row| row.0).collect();
    Matrix::from_rows(&rows).map_err(|error| error.context(path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_counted_while_they_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_matrix(&path)
        };
        let matrix = read("[[1, 2.5], [3, 4]]").unwrap();
        assert_eq!((matrix.n_rows(), matrix.n_columns(), matrix[(0, 1)]), (2, 2, 2.5));
        for text in [format!("[{}[]]", "[],".repeat(2000)), format!("[[{}0]]", "0,".repeat(2000))] {
            let error = read(&text).unwrap_err();
            assert!(error.message().contains("more than 1024 items"), "{error}");
        }
        assert!(read("[[1, 2], [3]]").unwrap_err().message().contains("row 1: 2 numbers expected"));
    }
}
