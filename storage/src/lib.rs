//! Shared storage: named roots, the clips on them, and the manifests by which finished work is found again.
//!
//! Coordinator and agents both see storage through this crate, so that a path means the same to both.
//! Must never read or write outside a root.

pub mod calls;
pub mod clip;
pub mod held;
pub mod manifest;
pub mod marker;
pub mod roots;

pub use calls::{CallError, Calls};
pub use clip::{Clip, ClipError, Listing, SequenceFolder};
pub use held::Held;
pub use marker::StorageId;
pub use roots::{Roots, RootsError};
