//! One module for each kind of file.

pub(crate) mod dpx;
pub(crate) mod exr;
mod exr_channels;
pub(crate) mod jpeg;
pub(crate) mod png;
pub(crate) mod tiff;
