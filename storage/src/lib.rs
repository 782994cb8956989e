//! Shared storage: named roots, the clips on them, and the manifests by which finished work is found again.
//!
//! Coordinator and agents both see storage through this crate, so that a path means the same to both.
//! Must never read or write outside a root.

pub mod clip;
pub mod manifest;
pub mod roots;

pub use clip::{Clip, ClipError, Listing};
pub use roots::{Roots, RootsError};
