//! ComfyUI as it is: REST ([`Client`]), WebSocket ([`Socket`]), and what its answers mean ([`verdict`]).
//!
//! Facts this module relies on: a 200 with `node_errors` has dropped outputs silently; events go to the
//! client id that queued the prompt and are never repeated; history, not the socket, is the verdict;
//! NaN comes as a bare token.

mod check;
mod client;
pub mod folders;
mod probe;
mod socket;
pub mod verdict;

pub use check::mismatches;
pub use client::{Client, ComfyError, ImageRef, Receipt, Status};
pub use probe::{Health, Offer, watch_health};
pub use socket::{Event, Happening, PreviewPicture, Socket};
