//! Which channels of an EXR are the picture. Programs name them in many ways; what fits none of them is refused, never
//! guessed.

use std::{collections::BTreeMap, path::Path};

use exr::{
    compression::Compression,
    math::Vec2,
    meta::{attribute::SampleType, header::Header},
};
use hearth_workflows::format::PictureFormat;

use crate::error::PictureError;

/// The channels that are shown.
pub(super) struct Shown {
    pub(super) header: usize,
    /// Index in the layer's list, and plain name (`R` for `beauty.r`).
    pub(super) channels: Vec<(usize, String)>,
    pub(super) format: PictureFormat,
}

/// The purpose of a channel, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Red,
    Green,
    Blue,
    Alpha,
    Grey,
    /// Chroma of a luma and chroma picture: it has fewer samples.
    Chroma,
    X,
    Z,
}

/// How well a name fits its role: of two channels for one role, the first counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// `R`
    Exact,
    /// `r`
    OtherCase,
    /// `red`
    Word,
    /// `LeR`, `image_red`
    Suffix,
}

/// Names of the layer that people mean when they name none.
const MAIN_LAYERS: [&str; 9] =
    ["rgba", "rgb", "beauty", "combined", "color", "colour", "master", "main", "default"];

/// Channels that a refusal names.
const NAMED: usize = 8;

/// Finds the first layer with red, green and blue, with grey, with x, y and z (normals), or with a single channel. A
/// layer without a name goes first, then one that is called like the main one.
pub(super) fn shown(path: &Path, headers: &[Header]) -> Result<Shown, PictureError> {
    let flat: Vec<(usize, &Header)> = headers.iter().enumerate().filter(|(_, header)| !header.deep).collect();
    if flat.is_empty() {
        return Err(PictureError::unsupported(path, "deep EXR"));
    }
    let mut layers: Vec<Layer> = flat.iter().flat_map(|(index, header)| layers(*index, header)).collect();
    layers.sort_by_key(|layer| (layer.rank(), layer.header));
    let with_alpha = |layer: &Layer, roles: &[(Role, &str)]| {
        let mut channels = layer.channels(roles)?;
        channels.extend(layer.channels(&[(Role::Alpha, "A")]).into_iter().flatten());
        Some((layer.header, channels))
    };
    let pick = |roles: &[(Role, &str)]| layers.iter().find_map(|layer| with_alpha(layer, roles));
    let found = pick(&[(Role::Red, "R"), (Role::Green, "G"), (Role::Blue, "B")])
        .or_else(|| pick(&[(Role::X, "R"), (Role::Grey, "G"), (Role::Z, "B")]))
        .or_else(|| pick(&[(Role::Grey, "Y")]))
        .or_else(|| {
            let (index, only) = flat.iter().find(|(_, header)| header.channels.list.len() == 1)?;
            Some((*index, vec![(0, only.channels.list[0].name.to_string())]))
        });
    let Some((header, channels)) = found else {
        let names: Vec<String> =
            flat.iter().flat_map(|(_, header)| &header.channels.list).map(|it| it.name.to_string()).collect();
        let more = if names.len() > NAMED { ", …" } else { "" };
        let named = names[..names.len().min(NAMED)].join(", ");
        return Err(PictureError::unsupported(
            path,
            format!("EXR with the channels {named}{more}, none of which are red, green and blue, or grey"),
        ));
    };
    check_layer(path, &headers[header], &channels, layers.iter().find(|layer| layer.header == header))?;
    let list = &headers[header].channels.list;
    let half = channels.iter().all(|(place, _)| list[*place].sample_type == SampleType::F16);
    let format = if half { PictureFormat::ExrHalf } else { PictureFormat::ExrFloat };
    Ok(Shown { header, channels, format })
}

/// Refuses what would be found out only when the pixels are read, or not at all.
fn check_layer(
    path: &Path,
    header: &Header,
    channels: &[(usize, String)],
    layer: Option<&Layer>,
) -> Result<(), PictureError> {
    let refused = |what: &str| Err(PictureError::unsupported(path, what));
    if matches!(header.compression, Compression::HTJ2K32 | Compression::HTJ2K256) {
        return refused("EXR compressed as HTJ2K; write it with ZIP, PIZ or DWA");
    }
    let is_grey = channels.iter().any(|(_, name)| name == "Y");
    if is_grey && layer.is_some_and(|layer| layer.roles.contains_key(&Role::Chroma)) {
        return refused("EXR as luma and chroma; write it as red, green and blue");
    }
    let of = |place: &usize| &header.channels.list[*place];
    if channels.iter().any(|(place, _)| of(place).sampling != Vec2(1, 1)) {
        return refused("EXR with subsampled channels");
    }
    if channels.iter().any(|(place, _)| of(place).sample_type == SampleType::U32) {
        return refused("EXR of whole numbers, such as object ids");
    }
    Ok(())
}

/// The channels of a file that have a name in common.
struct Layer {
    header: usize,
    name: String,
    /// The channel that fits best, for each role.
    roles: BTreeMap<Role, (Fit, usize)>,
}

impl Layer {
    fn rank(&self) -> u8 {
        let last = self.name.rsplit('.').next().unwrap_or_default().to_lowercase();
        match last.as_str() {
            "" => 0,
            main if MAIN_LAYERS.contains(&main) => 1,
            // Hashes, not colours.
            crypto if crypto.starts_with("crypto") => 3,
            _ => 2,
        }
    }

    fn channels(&self, roles: &[(Role, &str)]) -> Option<Vec<(usize, String)>> {
        let channel = |(role, name): &(Role, &str)| Some((self.roles.get(role)?.1, (*name).to_owned()));
        roles.iter().map(channel).collect()
    }
}

/// The layers of one part, in the order of their first channels.
fn layers(index: usize, header: &Header) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    for (place, channel) in header.channels.list.iter().enumerate() {
        let Some((name, role, fit)) = role(&channel.name.to_string()) else { continue };
        let at = layers.iter().position(|layer| layer.name == name).unwrap_or_else(|| {
            layers.push(Layer { header: index, name, roles: BTreeMap::new() });
            layers.len() - 1
        });
        let best = layers[at].roles.entry(role).or_insert((fit, place));
        if fit < best.0 {
            *best = (fit, place);
        }
    }
    layers
}

/// The layer, role and fit that a channel's name says; `None` when it says nothing.
fn role(name: &str) -> Option<(String, Role, Fit)> {
    let (layer, plain) = name.rsplit_once('.').unwrap_or(("", name));
    let whole = |word: &str| {
        let exact = matches!(word, "R" | "G" | "B" | "A" | "Y" | "RY" | "BY" | "X" | "Z");
        let (role, is_word) = match word.to_lowercase().as_str() {
            "r" => (Role::Red, false),
            "g" => (Role::Green, false),
            "b" => (Role::Blue, false),
            "a" => (Role::Alpha, false),
            "y" => (Role::Grey, false),
            "x" => (Role::X, false),
            "z" => (Role::Z, false),
            "ry" | "by" => (Role::Chroma, false),
            "red" => (Role::Red, true),
            "green" => (Role::Green, true),
            "blue" => (Role::Blue, true),
            "alpha" => (Role::Alpha, true),
            _ => return None,
        };
        Some((
            role,
            if exact {
                Fit::Exact
            } else if is_word {
                Fit::Word
            } else {
                Fit::OtherCase
            },
        ))
    };
    if let Some((role, fit)) = whole(plain) {
        return Some((layer.to_owned(), role, fit));
    }
    let below = |stem: &str| if layer.is_empty() { stem.to_owned() } else { format!("{layer}.{stem}") };
    if let Some((stem, last)) = plain.rsplit_once(['_', '-', ' '])
        && let Some((role, _)) = whole(last)
    {
        return Some((below(stem), role, Fit::Suffix));
    }
    // `LeR`, `diffuseRed`: a capital after a small letter or a digit begins a word of its own.
    let at = plain.rfind(|letter: char| letter.is_ascii_uppercase())?;
    let (stem, last) = plain.split_at(at);
    if !stem.ends_with(|letter: char| letter.is_lowercase() || letter.is_ascii_digit()) {
        return None;
    }
    Some((below(stem), whole(last)?.0, Fit::Suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_known_by_many_names() {
        let is = |name: &str, layer: &str, is: Role, fit: Fit| {
            assert_eq!(role(name), Some((layer.to_owned(), is, fit)), "{name}");
        };
        is("R", "", Role::Red, Fit::Exact);
        is("g", "", Role::Green, Fit::OtherCase);
        is("Blue", "", Role::Blue, Fit::Word);
        is("ViewLayer.Combined.A", "ViewLayer.Combined", Role::Alpha, Fit::Exact);
        is("LeR", "Le", Role::Red, Fit::Suffix);
        is("beauty_red", "beauty", Role::Red, Fit::Suffix);
        is("spec.diffuseGreen", "spec.diffuse", Role::Green, Fit::Suffix);
        is("N.X", "N", Role::X, Fit::Exact);
        is("depth.Z", "depth", Role::Z, Fit::Exact);
        for name in ["HAIR", "mask", "depth", "crypto00", "UV", "R2"] {
            assert_eq!(role(name), None, "{name}");
        }
    }
}
