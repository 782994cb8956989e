//! What a finished sequence can be delivered as.

use serde::{Deserialize, Serialize};

use crate::{
    format::{ColourSpace, named},
    path::{PathError, RootPath, SequenceName},
};

/// A kind of delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeliveryFormat {
    /// QuickTime, 12 bits, with alpha where the sequence has it.
    #[serde(rename = "prores-4444")]
    ProRes4444,
    /// QuickTime, 10 bits, without alpha.
    #[serde(rename = "prores-422-hq")]
    ProRes422Hq,
    /// For review: MP4, at most 1920 wide, with time code, frame and slate text burnt in.
    #[serde(rename = "h264")]
    H264,
    /// A sequence of 8-bit PNG, at most 1280 wide.
    #[serde(rename = "png-proxy")]
    PngProxy,
    /// One PNG with at most 24 frames of the sequence, each with its number.
    #[serde(rename = "contact-sheet")]
    ContactSheet,
}

named!(
    DeliveryFormat,
    "delivery",
    ProRes4444 = "prores-4444",
    ProRes422Hq = "prores-422-hq",
    H264 = "h264",
    PngProxy = "png-proxy",
    ContactSheet = "contact-sheet",
);

/// The curve that a delivery's colours get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Curve {
    /// IEC 61966-2-1: what computer displays show right.
    Srgb,
    /// ITU-R BT.709: what broadcast specifications ask for.
    Rec709,
}

named!(Curve, "curve", Srgb = "srgb", Rec709 = "rec709");

impl From<Curve> for ColourSpace {
    fn from(curve: Curve) -> Self {
        match curve {
            Curve::Srgb => Self::Srgb,
            Curve::Rec709 => Self::Rec709,
        }
    }
}

impl DeliveryFormat {
    /// What it is called beside the sequence that it is made of.
    fn suffix(self) -> &'static str {
        match self {
            Self::ProRes4444 => "_prores4444.mov",
            Self::ProRes422Hq => "_prores422hq.mov",
            Self::H264 => "_h264.mp4",
            Self::PngProxy => "_proxy",
            Self::ContactSheet => "_contact.png",
        }
    }

    /// Where it goes when nobody says: `comps/sh010/v003_h264.mp4` beside `comps/sh010/v003`.
    pub fn beside(self, sequence: &RootPath) -> Result<RootPath, PathError> {
        format!("{sequence}{}", self.suffix()).parse()
    }

    /// The names of a proxy's files, in the folder of the delivery.
    pub fn proxy_name(sequence: &SequenceName) -> SequenceName {
        SequenceName::new(&format!("{}.", sequence.stem()), sequence.padding(), ".png")
    }
}
