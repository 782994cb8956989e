//! What there is: types of the farm and their own algebra. Must never decide anything.

pub(in crate::farm) mod attempt;
pub(in crate::farm) mod command;
pub(in crate::farm) mod ids;
pub(in crate::farm) mod job;
pub(in crate::farm) mod key;
pub(in crate::farm) mod node;
pub(in crate::farm) mod policy;
pub(in crate::farm) mod preset;
pub(in crate::farm) mod quarantine;
pub(in crate::farm) mod spec;
pub(in crate::farm) mod suspects;
