//! Which sequences a folder's file names are: gaps, mixed padding and several sequences side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use crate::{
    frames::{Frame, FrameSet},
    path::SequenceName,
};

/// Pictures that Hearth reads, by extension.
const EXTENSIONS: [&str; 7] = ["exr", "png", "tif", "tiff", "jpg", "jpeg", "dpx"];

/// A file name with a frame number.
struct Numbered<'a> {
    prefix: &'a str,
    digits: &'a str,
    suffix: &'a str,
}

/// A picture's file name and the runs of digits before its extension, any of which may be the frame number.
struct Named<'a> {
    name: &'a str,
    runs: Vec<Range<usize>>,
}

impl<'a> Named<'a> {
    /// `None` for what is no picture, or has no number.
    fn read(name: &'a str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        if !EXTENSIONS.contains(&extension.to_lowercase().as_str()) {
            return None;
        }
        let is_digit = |at: usize| stem.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        let starts = (0..stem.len()).filter(|at| is_digit(*at) && (*at == 0 || !is_digit(at - 1)));
        let runs: Vec<Range<usize>> = starts
            .map(|start| {
                let end = (start..stem.len()).find(|at| !is_digit(*at)).unwrap_or(stem.len());
                // A minus sign belongs to the number where something else already ends the name: `plate.-010.exr`.
                let signed = stem[..start].strip_suffix('-').is_some_and(|name| name.ends_with(['.', '_']));
                if signed { start - 1..end } else { start..end }
            })
            .collect();
        (!runs.is_empty()).then_some(Self { name, runs })
    }

    /// The name without its numbers: what names of one sequence have in common, whichever of them is the frame.
    fn shape(&self) -> String {
        let mut shape = String::with_capacity(self.name.len());
        let mut from = 0;
        for run in &self.runs {
            shape.push_str(&self.name[from..run.start]);
            shape.push('\0');
            from = run.end;
        }
        shape + &self.name[from..]
    }

    fn with_frame(&self, run: usize) -> Numbered<'a> {
        let Range { start, end } = self.runs[run];
        Numbered { prefix: &self.name[..start], digits: &self.name[start..end], suffix: &self.name[end..] }
    }
}

/// Which of the numbers in names of one shape is the frame: the one that differs most from name to name, of several
/// the last. `p_1001_2k.png` and `p_1002_2k.png` are two frames, not two clips of frame 2.
fn frame_run(names: &[Named]) -> usize {
    let runs = names.first().map_or(0, |name| name.runs.len());
    let distinct = |run: &usize| {
        let digits = names.iter().map(|name| &name.name[name.runs[*run].clone()]);
        digits.collect::<BTreeSet<_>>().len()
    };
    (0..runs).max_by_key(distinct).unwrap_or(0)
}

impl Numbered<'_> {
    /// Whether it has more digits than its number needs.
    fn is_padded(&self) -> bool {
        self.digits.trim_start_matches('-').starts_with('0') && self.digits.len() > 1
    }
}

/// The sequences that `names` are, by name. What has no number, or is no picture, is left out.
pub fn group(names: &[String]) -> Vec<(SequenceName, FrameSet)> {
    let mut shapes: BTreeMap<String, Vec<Named>> = BTreeMap::new();
    for name in names.iter().filter_map(|name| Named::read(name)) {
        shapes.entry(name.shape()).or_default().push(name);
    }
    let mut alike: BTreeMap<(&str, &str), Vec<Numbered>> = BTreeMap::new();
    for names in shapes.values() {
        let run = frame_run(names);
        for name in names.iter().map(|name| name.with_frame(run)) {
            alike.entry((name.prefix, name.suffix)).or_default().push(name);
        }
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

    #[test]
    fn the_frame_is_the_number_that_differs() {
        assert_eq!(listed(&["p_1001_2k.png", "p_1002_2k.png", "p_1003_2k.png"]), ["p_%04d_2k.png 1001-1003"]);
        assert_eq!(listed(&["p_1001_2.png", "p_1002_2.png"]), ["p_%04d_2.png 1001-1002"]);
        // Two shots side by side, and two sizes of one.
        assert_eq!(
            listed(&["sh010.1001.exr", "sh010.1002.exr", "sh020.1001.exr", "sh020.1002.exr"]),
            ["sh010.%04d.exr 1001-1002", "sh020.%04d.exr 1001-1002"]
        );
        assert_eq!(
            listed(&["p_1_2k.png", "p_1_4k.png", "p_2_2k.png", "p_2_4k.png", "p_3_2k.png", "p_3_4k.png"]),
            ["p_%d_2k.png 1-3", "p_%d_4k.png 1-3"]
        );
        assert_eq!(listed(&["alone_2k.png"]), ["alone_%dk.png 2"]);
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
