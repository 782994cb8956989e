//! What happens: one file for each family of commands. A handler changes the state and marks what it has touched; it must
//! never hand out work.

pub(in crate::farm) mod blame;
pub(in crate::farm) mod cancel;
pub(in crate::farm) mod chores;
pub(in crate::farm) mod control;
pub(in crate::farm) mod edit;
pub(in crate::farm) mod failure;
pub(in crate::farm) mod forget;
pub(in crate::farm) mod leases;
pub(in crate::farm) mod presets;
pub(in crate::farm) mod quarantine;
pub(in crate::farm) mod rescan;
pub(in crate::farm) mod result;
pub(in crate::farm) mod retry;
pub(in crate::farm) mod sessions;
pub(in crate::farm) mod settle;
pub(in crate::farm) mod submit;
