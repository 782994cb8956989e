//! ComfyUI as it is: REST ([`Client`]), WebSocket ([`Socket`]), and what its answers mean ([`verdict`]).
//!
//! Facts this module relies on: a 200 with `node_errors` has dropped outputs silently; events go to the
//! client id that queued the prompt and are never repeated; history, not the socket, is the verdict;
//! NaN comes as a bare token.

mod check;
mod client;
mod error;
pub mod folders;
mod probe;
mod prompt_id;
mod python;
mod socket;
pub mod verdict;

pub use check::mismatches;
pub use client::{Client, ImageRef, Receipt, Running, Status};
pub use error::{ComfyError, Obstacle};
pub use probe::{Health, Offer, TESTED, watch_health};
pub use prompt_id::PromptId;
pub use socket::{Event, Happening, PreviewPicture, Socket};
