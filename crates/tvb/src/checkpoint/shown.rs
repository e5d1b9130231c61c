//! The one way to show a name, under the name by which this module's readers know it.

pub(crate) use crate::shown::shown;
