//! The coordinator of a Hearth farm.

pub mod farm;
