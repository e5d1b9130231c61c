//! zoo.
