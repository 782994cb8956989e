//! Picture files: what they are, whether they are whole, their pixels as numbers, and those numbers in other
//! formats and colour spaces; what is shown of them.
//!
//! Reads EXR, PNG, TIFF, JPEG and DPX, writes EXR, PNG and TIFF. Knows nothing of storage roots, jobs or nodes.

mod blend;
mod check;
mod colour;
mod convert;
mod display;
mod error;
mod file;
mod formats;
mod lettering;
mod metadata;
mod orientation;
mod raster;

pub use blend::blend;
pub use check::verify;
pub use convert::{Alpha, Converter, OnTheWay, ViewStep};
pub use display::{Display, Projector, thumbnail};
pub use error::PictureError;
pub use file::{Effort, Picture, inspect, look, look_at, read, write};
pub use lettering::{Corner, Lettering};
pub use metadata::{Metadata, NoRate, Rate, TimeCode};
pub use raster::{Plane, Raster, Samples, Window};
