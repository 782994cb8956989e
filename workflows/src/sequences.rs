//! Which sequences a folder's file names are: gaps, mixed padding and several sequences side by side.

use std::collections::BTreeMap;

use crate::{
    frames::{Frame, FrameSet},
    path::SequenceName,
};

/// Pictures that Hearth reads, by extension.
const EXTENSIONS: [&str; 7] = ["exr", "png", "tif", "tiff", "jpg", "jpeg", "dpx"];

/// A file name with a frame number: the last run of digits before the extension.
struct Numbered<'a> {
    prefix: &'a str,
    digits: &'a str,
    suffix: &'a str,
}

impl<'a> Numbered<'a> {
    fn read(name: &'a str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        if !EXTENSIONS.contains(&extension.to_lowercase().as_str()) {
            return None;
        }
        let end = stem.rfind(|c: char| c.is_ascii_digit())? + 1;
        let mut start = stem[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
        // A minus sign belongs to the number where something else already ends the name: `plate.-010.exr`.
        let signed = stem[..start].strip_suffix('-').is_some_and(|name| name.ends_with(['.', '_']));
        if signed {
            start -= 1;
        }
        Some(Self { prefix: &name[..start], digits: &name[start..end], suffix: &name[end..] })
    }

    /// Whether it has more digits than its number needs.
    fn is_padded(&self) -> bool {
        self.digits.trim_start_matches('-').starts_with('0') && self.digits.len() > 1
    }
}

/// The sequences that `names` are, by name. What has no number, or is no picture, is left out.
pub fn group(names: &[String]) -> Vec<(SequenceName, FrameSet)> {
    let mut alike: BTreeMap<(&str, &str), Vec<Numbered>> = BTreeMap::new();
    for name in names.iter().filter_map(|name| Numbered::read(name)) {
        alike.entry((name.prefix, name.suffix)).or_default().push(name);
    }
    let mut sequences = Vec::new();
    for ((prefix, suffix), files) in alike {
        let mut of_padding: BTreeMap<usize, Vec<Frame>> = BTreeMap::new();
        let paddings = paddings(&files);
        for file in &files {
            let Ok(number) = file.digits.parse() else { continue };
            of_padding.entry(padding_of(file, &paddings)).or_default().push(Frame(number));
        }
        for (padding, mut frames) in of_padding {
            frames.sort_unstable();
            sequences.push((SequenceName::new(prefix, padding, suffix), frames.into_iter().collect()));
        }
    }
    sequences
}

/// The lengths that numbers are filled up to with zeros, ascending.
fn paddings(files: &[Numbered]) -> Vec<usize> {
    let mut paddings: Vec<usize> =
        files.iter().filter(|file| file.is_padded()).map(|file| file.digits.len()).collect();
    let first = files.first().map_or(0, |file| file.digits.len());
    if paddings.is_empty() && files.iter().all(|file| file.digits.len() == first) {
        // 1001 to 1100: nobody can tell, and everybody writes %04d.
        paddings.push(first);
    }
    paddings.sort_unstable();
    paddings.dedup();
    paddings
}

/// The padding of the sequence that a file belongs to.
fn padding_of(file: &Numbered, paddings: &[usize]) -> usize {
    let length = file.digits.len();
    if file.is_padded() {
        return length;
    }
    // A number that is longer than its padding has outgrown it.
    paddings.iter().rev().copied().find(|padding| *padding <= length).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(names: &[&str]) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        group(&names).into_iter().map(|(name, frames)| format!("{name} {frames}")).collect()
    }

    #[test]
    fn a_folder_is_told_as_its_sequences() {
        let names = [
            "plate.0999.exr",
            "plate.1000.exr",
            "plate.1003.exr",
            "plate.10001.exr",
            "sh010_v002_depth.1001.EXR",
            "sh010_v002_depth.1002.EXR",
            "loose.8.png",
            "loose.9.png",
            "loose.10.png",
            "mixed.01.png",
            "mixed.001.png",
            "back.-010.dpx",
            "back.0000.dpx",
            "take-007.jpg",
            "notes.txt",
            "reference.png",
            "movie.0001.mov",
        ];
        assert_eq!(
            listed(&names),
            [
                "back.%04d.dpx -10,0",
                "loose.%d.png 8-10",
                "mixed.%02d.png 1",
                "mixed.%03d.png 1",
                "plate.%04d.exr 999-1000,1003,10001",
                "sh010_v002_depth.%04d.EXR 1001-1002",
                "take-%03d.jpg 7",
            ]
        );
    }

    proptest! {
        /// Whatever is listed, names its own files.
        #[test]
        fn every_file_is_in_one_sequence(
            files in prop::collection::btree_set(("[a-c]{0,2}[._]", 0_i64..2_000, 1_usize..6), 1..40),
        ) {
            let names: std::collections::BTreeSet<String> = files
                .into_iter()
                .map(|(prefix, number, padding)| SequenceName::new(&prefix, padding, ".exr").file(Frame(number)))
                .collect();
            let names: Vec<String> = names.into_iter().collect();
            let mut told: Vec<String> = group(&names)
                .into_iter()
                .flat_map(|(name, frames)| frames.iter().map(|frame| name.file(frame)).collect::<Vec<_>>())
                .collect();
            told.sort();
            prop_assert_eq!(told, names);
        }
    }
}
