//! What people ask. Reads, and changes nothing.

pub(in crate::farm) mod eta;
pub(in crate::farm) mod explain;
pub(in crate::farm) mod forecast;
pub(in crate::farm) mod names;
pub(in crate::farm) mod view;
