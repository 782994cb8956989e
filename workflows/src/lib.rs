//! What a ComfyUI workflow is to Hearth: a graph, a manifest, frames in, passes out, and how a clip may be
//! split for it.
//!
//! Pure but for [`library`], which reads workflow folders. Must never know of nodes, leases or storage.

pub mod bind;
pub mod check;
pub mod delivery;
pub mod format;
pub mod frames;
pub mod graph;
pub mod import;
pub mod library;
pub mod luts;
pub mod manifest;
pub mod parameters;
pub mod path;
pub mod sequences;
pub mod signatures;
pub mod split;
pub mod view;

mod declared;
mod error;
mod workflow;

pub use error::WorkflowError;
pub use frames::{Frame, FrameRange, FrameSet};
pub use path::{RootPath, SequencePath};
pub use split::Split;
pub use view::View;
pub use workflow::{Requirements, Workflow, WorkflowId};
