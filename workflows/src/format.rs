//! How pictures are stored and what their numbers mean: the words that manifests, jobs and agents share.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of picture file, down to its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PictureFormat {
    Png8,
    Png16,
    Tiff8,
    Tiff16,
    TiffFloat,
    ExrHalf,
    ExrFloat,
    /// Read, never written: every generation loses.
    Jpeg,
    /// 8 to 16 bits; read, never written.
    Dpx,
}

/// What the numbers of a picture mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColourSpace {
    /// Light, Rec. 709 primaries.
    Linear,
    /// IEC 61966-2-1, Rec. 709 primaries.
    Srgb,
    /// The camera curve of ITU-R BT.709.
    Rec709,
    /// Light, AP1 primaries (S-2014-004).
    Acescg,
    /// AP1 primaries, logarithmic with a toe (S-2016-001).
    Acescct,
    /// Not colour: depth, normals, mattes. Never converted.
    Data,
}

/// A name that is none of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is no {what}; there are {known}")]
pub struct UnknownName {
    pub(crate) what: &'static str,
    pub(crate) given: String,
    pub(crate) known: String,
}

/// Names of an enum's variants, both ways.
macro_rules! named {
    ($type:ty, $what:literal, $($variant:ident = $name:literal),* $(,)?) => {
        impl $type {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Self::$variant => $name),* })
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::format::UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                match name {
                    $($name => Ok(Self::$variant),)*
                    _ => Err($crate::format::UnknownName {
                        what: $what,
                        given: name.to_owned(),
                        known: [$($name),*].join(", "),
                    }),
                }
            }
        }
    };
}

pub(crate) use named;

named!(
    PictureFormat,
    "picture format",
    Png8 = "png8",
    Png16 = "png16",
    Tiff8 = "tiff8",
    Tiff16 = "tiff16",
    TiffFloat = "tiff-float",
    ExrHalf = "exr-half",
    ExrFloat = "exr-float",
    Jpeg = "jpeg",
    Dpx = "dpx"
);
named!(
    ColourSpace,
    "colour space",
    Linear = "linear",
    Srgb = "srgb",
    Rec709 = "rec709",
    Acescg = "acescg",
    Acescct = "acescct",
    Data = "data"
);

impl PictureFormat {
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png8 | Self::Png16 => "png",
            Self::Tiff8 | Self::Tiff16 | Self::TiffFloat => "tif",
            Self::ExrHalf | Self::ExrFloat => "exr",
            Self::Jpeg => "jpg",
            Self::Dpx => "dpx",
        }
    }

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png8 => "8-bit PNG",
            Self::Png16 => "16-bit PNG",
            Self::Tiff8 => "8-bit TIFF",
            Self::Tiff16 => "16-bit TIFF",
            Self::TiffFloat => "float TIFF",
            Self::ExrHalf => "half-float EXR",
            Self::ExrFloat => "float EXR",
            Self::Jpeg => "JPEG",
            Self::Dpx => "DPX",
        }
    }

    /// Bits of a sample, at most.
    pub fn bits(self) -> u32 {
        match self {
            Self::Png8 | Self::Tiff8 | Self::Jpeg => 8,
            Self::Png16 | Self::Tiff16 | Self::Dpx | Self::ExrHalf => 16,
            Self::TiffFloat | Self::ExrFloat => 32,
        }
    }

    /// Whether it holds values below 0 and above 1.
    pub fn is_float(self) -> bool {
        matches!(self, Self::TiffFloat | Self::ExrHalf | Self::ExrFloat)
    }

    pub fn is_exr(self) -> bool {
        matches!(self, Self::ExrHalf | Self::ExrFloat)
    }

    /// Whether Hearth writes it.
    pub fn is_writable(self) -> bool {
        !matches!(self, Self::Jpeg | Self::Dpx)
    }

    /// What its numbers mean when nobody says: light in float files, sRGB in all others.
    pub fn usual_colour(self) -> ColourSpace {
        if self.is_float() { ColourSpace::Linear } else { ColourSpace::Srgb }
    }
}

/// A format and what its numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Encoding {
    pub format: PictureFormat,
    pub colour: ColourSpace,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.format.name(), self.colour)
    }
}
