//! The agent beside ComfyUI: takes chunks from the coordinator, has ComfyUI render them, and brings the
//! results to shared storage.
//!
//! - `link`: the stream to the coordinator, kept up
//! - `node`: one ComfyUI server: what it holds, what it has to report
//! - [`chunk`]: one attempt: stage → queue → watch → collect → publish
//! - [`comfy`]: ComfyUI's REST and WebSocket
//! - [`sequence`]: from chunks to the finished sequence
//! - [`delivery`]: from a finished sequence to movies, proxies and contact sheets
//! - `outbox`: what must survive the agent's own death

pub mod chunk;
pub mod comfy;
pub mod config;
pub mod delivery;
pub mod flags;
pub mod hours;
mod link;
mod node;
mod outbox;
pub mod sequence;
mod server;
mod telemetry;

pub use config::{Config, NodeConfig, Transfer};
pub use server::{Agent, AgentError, run};
