//! A ComfyUI without a GPU: its REST and WebSocket protocol, with core image nodes that really run, on the
//! CPU. It knows nothing of Hearth; tests, benchmarks and the standalone farm run against it.
//!
//! It keeps ComfyUI's surprises on purpose: a 200 that lists `node_errors`, cached savers that name old
//! files, history that appears before the end event, a socket registry in which a closing socket
//! unregisters its successor, events that nobody buffers.
//!
//! - [`graph`]: a prompt's nodes and links
//! - [`nodes`]: the node classes: signature and execution
//! - [`validate`]: what ComfyUI refuses, in its words
//! - [`engine`]: queue, worker, history, interrupt
//! - `execution`: one prompt: its nodes in order, from cache or not
//! - [`sockets`]: who is told what
//! - [`server`]: the routes
//! - [`faults`]: going wrong on demand
//! - [`version`]: what releases of ComfyUI differ in

pub mod config;
pub mod engine;
mod execution;
pub mod faults;
pub mod graph;
pub mod nodes;
pub mod pixels;
pub mod server;
pub mod sockets;
pub mod validate;
pub mod version;

pub use config::Config;
pub use faults::Fault;
pub use server::Simulator;
pub use version::Version;
