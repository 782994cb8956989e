//! Talks to a Hearth farm.
//!
//! [`FarmClient`] is the library: one method for each thing the farm can do, and a watch that survives lost
//! connections. [`cli`] is the `hearth` command on top of it.

pub mod cli;
mod farm;
mod watch;

pub use farm::{ClientError, FarmClient};
pub use hearth_proto::v1;
pub use watch::Watch;
