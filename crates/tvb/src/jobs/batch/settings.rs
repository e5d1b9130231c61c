//! Values of a TOML table by key, with messages that say where a wrong one stands.

use crate::error::{Error, Result};
use toml::{Table, Value};

/// A table and how messages call it (`job "vision"`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings<'a> {
    pub(super) table: &'a Table,
    pub(super) place: &'a str,
}

impl Settings<'_> {
    /// Whether every key is one of `known`.
    ///
    /// # Errors
    /// Rejected: the first that is not, with the nearest known one.
    pub(super) fn check_keys(&self, known: &[&str]) -> Result<()> {
        let Some(unknown) = self.table.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
        let nearest = known
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(a, unknown).total_cmp(&strsim::jaro_winkler(b, unknown)))
            .filter(|near| strsim::jaro_winkler(near, unknown) > 0.7);
        let error = Error::rejected(format!("{}: unknown key {unknown:?}", self.place));
        Err(error.hint(match nearest {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known keys: {}", known.join(", ")),
        }))
    }

    fn wrong<T>(&self, key: &str, expected: &str, found: &Value) -> Result<T> {
        Err(Error::rejected(format!("{}, {key}: {expected} expected, {} found", self.place, shown(found))))
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => self.wrong(key, "a text", other),
        }
    }

    /// One text or a list of them; empty lists are refused.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.list(key, "a text or a list of texts", |value| value.as_str().map(str::to_owned))
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::Boolean(flag)) => Ok(Some(*flag)),
            Some(other) => self.wrong(key, "true or false", other),
        }
    }

    /// A finite number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.table.get(key) {
            None => Ok(None),
            Some(value) => match number(value) {
                Some(number) => Ok(Some(number)),
                None => self.wrong(key, "a finite number", value),
            },
        }
    }

    /// One finite number or a list of them.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.list(key, "a finite number or a list of them", number)
    }

    /// A whole number from 0 on.
    pub(super) fn count<T: TryFrom<i64>>(&self, key: &str) -> Result<Option<T>> {
        match self.table.get(key) {
            None => Ok(None),
            Some(value) => match value.as_integer().and_then(|n| T::try_from(n).ok()) {
                Some(n) => Ok(Some(n)),
                None => self.wrong(key, "a whole number from 0 on", value),
            },
        }
    }

    /// One whole number or a list of them.
    pub(super) fn counts(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.list(key, "a whole number or a list of them", |value| usize::try_from(value.as_integer()?).ok())
    }

    /// A table.
    pub(super) fn table(&self, key: &str) -> Result<Option<&Table>> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(table)),
            Some(other) => self.wrong(key, "a table", other),
        }
    }

    /// A list of tables.
    pub(super) fn tables(&self, key: &str) -> Result<Vec<&Table>> {
        match self.table.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| match item {
                    Value::Table(table) => Ok(table),
                    other => self.wrong(key, &format!("tables, as in [[{key}]],"), other),
                })
                .collect(),
            Some(other) => self.wrong(key, &format!("a list of tables, as in [[{key}]],"), other),
        }
    }

    fn list<T>(&self, key: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<Vec<T>>> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let items = match value {
            Value::Array(items) if !items.is_empty() => items.as_slice(),
            Value::Array(_) => return self.wrong(key, expected, value),
            single => std::slice::from_ref(single),
        };
        let read = |item: &Value| match read(item) {
            Some(read) => Ok(read),
            None => self.wrong(key, expected, item),
        };
        items.iter().map(read).collect::<Result<Vec<T>>>().map(Some)
    }
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Float(number) => *number,
        Value::Integer(number) => *number as f64,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

fn shown(value: &Value) -> String {
    let text = value.to_string().replace('\n', " ");
    if text.chars().count() > 60 { text.chars().take(57).collect::<String>() + "…" } else { text }
}
