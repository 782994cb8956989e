//! The coordinator of a Hearth farm: takes jobs, decides what runs where, and remembers.
//!
//! - [`farm`]: every rule, as a pure state machine
//! - [`store`]: where its records are durable, and who may write them
//! - [`driver`]: the only owner of a farm: applies, commits, then releases; leads or follows
//! - `survey`, [`recovery`]: what storage knows when the store has lost something
//! - [`grpc`]: clients and agents
//! - [`submission`], `version`: from a request to a checked job, and to its next version
//! - [`telemetry`]: what is measured
//! - [`tools`]: `hearth farm check`, `export`, `import`, `recover`
//! - [`Config`], [`run`]: one process of it

pub mod config;
pub mod driver;
pub mod farm;
pub mod flags;
pub mod grpc;
pub mod recovery;
pub mod server;
pub mod store;
pub mod submission;
mod survey;
pub mod telemetry;
pub mod tools;
mod version;

pub use config::Config;
pub use server::{Coordinator, ServerError, run};
