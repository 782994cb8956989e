//! Paths on shared storage as jobs name them: below a named root, never outside it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::frames::{Frame, FrameRange};

/// Longest name of a file or folder, in bytes (`NAME_MAX` of Linux; others take no more).
pub const MOST_NAME_BYTES: usize = 255;

/// Why a text is no path below a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path is empty; write it as root/folder/…, e.g. plates/sh010")]
    Empty,
    #[error("'{path}' is absolute; name it by its storage root, e.g. plates/sh010")]
    Absolute { path: String },
    #[error("'{path}' has the part '{part}', which could lead out of its root; write the plain path")]
    Leaves { path: String, part: String },
    #[error("'{path}' has a part of {length} bytes; no file system takes more than {MOST_NAME_BYTES}")]
    TooLong { path: String, length: usize },
    #[error("'{path}' names only the root '{path}'; name something inside it")]
    OnlyRoot { path: String },
    #[error("'{path}' has a control character or a backslash; use '/' between folders")]
    BadCharacter { path: String },
    #[error("'{path}' has no frame number; write %04d, #### or [1001-1100] where it belongs")]
    NoFrameField { path: String },
    #[error("'{path}' has more than one frame number; write %04d or #### once, in the file name")]
    SeveralFrameFields { path: String },
}

/// `root/folder/file`: at least two parts, none of them `.`, `..` or empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RootPath(String);

impl RootPath {
    /// The name of the storage root.
    pub fn root(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(root, _)| root)
    }

    /// What follows the root.
    pub fn below_root(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, below)| below)
    }

    /// The last part.
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The folder that holds it; `None` when that is the root itself.
    pub fn parent(&self) -> Option<RootPath> {
        let (parent, _) = self.0.rsplit_once('/')?;
        parent.contains('/').then(|| RootPath(parent.to_owned()))
    }

    /// `name` beside this path, in the same folder.
    pub fn sibling(&self, name: &str) -> Result<RootPath, PathError> {
        let parent = self.0.rsplit_once('/').map_or("", |(parent, _)| parent);
        format!("{parent}/{name}").parse()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RootPath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        let owned = || path.to_owned();
        if path.is_empty() {
            return Err(PathError::Empty);
        }
        if path.starts_with('/') || path.as_bytes().get(1) == Some(&b':') {
            return Err(PathError::Absolute { path: owned() });
        }
        if path.chars().any(|c| c.is_control() || c == '\\') {
            return Err(PathError::BadCharacter { path: owned() });
        }
        let trimmed = path.strip_suffix('/').unwrap_or(path);
        if let Some(part) = trimmed.split('/').find(|part| matches!(*part, "" | "." | "..")) {
            return Err(PathError::Leaves { path: owned(), part: part.to_owned() });
        }
        if let Some(part) = trimmed.split('/').find(|part| part.len() > MOST_NAME_BYTES) {
            return Err(PathError::TooLong { path: owned(), length: part.len() });
        }
        if !trimmed.contains('/') {
            return Err(PathError::OnlyRoot { path: owned() });
        }
        Ok(RootPath(trimmed.to_owned()))
    }
}

impl TryFrom<String> for RootPath {
    type Error = PathError;

    fn try_from(path: String) -> Result<Self, PathError> {
        path.parse()
    }
}

impl From<RootPath> for String {
    fn from(path: RootPath) -> Self {
        path.0
    }
}

impl fmt::Display for RootPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The names of a sequence's files: `plate.%04d.png`, `plate.####.png`, `plate.[1001-1100].png`, `plate.%d.png`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SequenceName {
    prefix: String,
    /// Least number of digits, a minus sign among them.
    padding: usize,
    suffix: String,
}

impl SequenceName {
    pub fn new(prefix: &str, padding: usize, suffix: &str) -> Self {
        Self { prefix: prefix.to_owned(), padding, suffix: suffix.to_owned() }
    }

    /// The file of one frame, as C's `printf` writes it: a minus sign counts as a digit.
    pub fn file(&self, frame: Frame) -> String {
        let (prefix, suffix, width) = (&self.prefix, &self.suffix, self.padding);
        format!("{prefix}{:0width$}{suffix}", frame.0)
    }

    /// The frame whose file this is. Digits beyond the padding are accepted only as overflow, the way
    /// `%04d` writes them.
    pub fn frame_of(&self, file: &str) -> Option<Frame> {
        let digits = file.strip_prefix(&self.prefix)?.strip_suffix(&self.suffix)?;
        let frame = Frame(digits.parse().ok()?);
        (self.file(frame) == file).then_some(frame)
    }

    /// Least number of digits of a frame.
    pub fn padding(&self) -> usize {
        self.padding
    }

    /// The name without frame and extension, for naming results: `plate`.
    pub fn stem(&self) -> &str {
        let stem = self.prefix.trim_end_matches(['.', '_', '-', ' ']);
        if stem.is_empty() { "frame" } else { stem }
    }

    /// The extension in lower case, without its dot.
    pub fn extension(&self) -> String {
        self.suffix.rsplit_once('.').map(|(_, ext)| ext.to_lowercase()).unwrap_or_default()
    }
}

impl fmt::Display for SequenceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, padding, suffix } = self;
        if *padding <= 1 {
            write!(f, "{prefix}%d{suffix}")
        } else {
            write!(f, "{prefix}%0{padding}d{suffix}")
        }
    }
}

/// A sequence on shared storage: a folder below a root and the names in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SequencePath {
    /// `None`: the files lie in the root itself.
    folder: Option<RootPath>,
    root: String,
    name: SequenceName,
}

impl SequencePath {
    /// The name of the storage root.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The folder below the root, empty for the root itself.
    pub fn folder_below_root(&self) -> &str {
        self.folder.as_ref().map_or("", RootPath::below_root)
    }

    pub fn name(&self) -> &SequenceName {
        &self.name
    }

    /// The frames that a path names itself: `plate.[1001-1100].png`.
    pub fn frames_named(path: &str) -> Option<FrameRange> {
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        name.match_indices('[').find_map(|(at, _)| range_field(&name[at..])).map(|(_, _, range)| range)
    }
}

impl FromStr for SequencePath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        let whole: RootPath = path.parse()?;
        let name = parse_name(path, whole.file_name())?;
        Ok(Self { folder: whole.parent(), root: whole.root().to_owned(), name })
    }
}

impl TryFrom<String> for SequencePath {
    type Error = PathError;

    fn try_from(path: String) -> Result<Self, PathError> {
        path.parse()
    }
}

impl From<SequencePath> for String {
    fn from(path: SequencePath) -> Self {
        path.to_string()
    }
}

impl fmt::Display for SequencePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.folder {
            Some(folder) => write!(f, "{folder}/{}", self.name),
            None => write!(f, "{}/{}", self.root, self.name),
        }
    }
}

fn parse_name(path: &str, name: &str) -> Result<SequenceName, PathError> {
    let mut fields = Vec::new();
    let mut rest = 0;
    while let Some(at) = name[rest..].find(['%', '#', '[']).map(|at| at + rest) {
        let (len, padding) = if name[at..].starts_with('[') {
            range_field(&name[at..]).map_or((1, None), |(len, padding, _)| (len, Some(padding)))
        } else if name[at..].starts_with('#') {
            let len = name[at..].chars().take_while(|c| *c == '#').count();
            (len, Some(len))
        } else {
            percent_field(&name[at..])
        };
        if let Some(padding) = padding {
            fields.push((at, len, padding));
        }
        rest = at + len;
    }
    match fields[..] {
        [(at, len, padding)] => Ok(SequenceName::new(&name[..at], padding, &name[at + len..])),
        [] => Err(PathError::NoFrameField { path: path.to_owned() }),
        _ => Err(PathError::SeveralFrameFields { path: path.to_owned() }),
    }
}

/// Length, padding and frames of `[1001-1100]` at the start of `text`; `None` when it is none.
fn range_field(text: &str) -> Option<(usize, usize, FrameRange)> {
    let inside = text.strip_prefix('[')?.split_once(']')?.0;
    // A minus sign in front belongs to the first number.
    let cut = inside.char_indices().skip(1).find(|(_, c)| *c == '-')?.0;
    let (first, last) = (&inside[..cut], &inside[cut + 1..]);
    let range = FrameRange::new(first.parse().ok()?, last.parse().ok()?)?;
    Some((inside.len() + 2, first.len(), range))
}

/// Length and padding of `%d` or `%04d` at the start of `text`; padding `None` when it is neither.
fn percent_field(text: &str) -> (usize, Option<usize>) {
    let digits = text[1..].chars().take_while(char::is_ascii_digit).count();
    let is_field = text[1 + digits..].starts_with('d') && digits <= 3;
    if !is_field {
        return (1, None);
    }
    let padding = text[1..=digits].parse().unwrap_or(1);
    (digits + 2, Some(padding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_named_by_percent_or_hashes() {
        for (text, frame, file, shown) in [
            ("plates/a/p.%04d.png", 7, "p.0007.png", "plates/a/p.%04d.png"),
            ("plates/a/p.####.png", 12345, "p.12345.png", "plates/a/p.%04d.png"),
            ("plates/p_%d.png", -3, "p_-3.png", "plates/p_%d.png"),
            ("plates/p.%04d.png", -3, "p.-003.png", "plates/p.%04d.png"),
            ("plates/100%/p#.png", 5, "p5.png", "plates/100%/p%d.png"),
            ("plates/a/p.[0001-0100].exr", 7, "p.0007.exr", "plates/a/p.%04d.exr"),
            ("plates/a/p.[-010-0100].exr", -3, "p.-003.exr", "plates/a/p.%04d.exr"),
            ("plates/a/[x]p.%04d.exr", 7, "[x]p.0007.exr", "plates/a/[x]p.%04d.exr"),
        ] {
            let path: SequencePath = text.parse().expect(text);
            assert_eq!(path.name().file(Frame(frame)), file);
            assert_eq!(path.name().frame_of(file), Some(Frame(frame)));
            assert_eq!(path.to_string(), shown);
        }
        let named = |path| SequencePath::frames_named(path).map(|range| (range.first.0, range.last.0));
        assert_eq!(named("plates/[1-2]/p.[0990-1010].exr"), Some((990, 1010)));
        assert_eq!(named("plates/a/p.[-010-0100].exr"), Some((-10, 100)));
        assert_eq!(named("plates/[1-2]/p.%04d.exr"), None);
        let path: SequencePath = "plates/a/p.%04d.png".parse().expect("valid");
        for foreign in ["p.007.png", "p.00007.png", "p.0007.jpg", "q.0007.png", "p..png"] {
            assert_eq!(path.name().frame_of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn no_path_leads_out_of_its_root() {
        for bad in [
            "",
            "/etc/p.%04d.png",
            "plates/../etc/p.%04d.png",
            "plates//p.%04d.png",
            "plates/./p.%04d.png",
            "plates",
            "plates\\a/p.%04d.png",
            "c:/p.%04d.png",
        ] {
            assert!(bad.parse::<RootPath>().is_err(), "{bad}");
        }
        assert!(matches!("plates/p.png".parse::<SequencePath>(), Err(PathError::NoFrameField { .. })));
        assert!(matches!(
            "plates/p.%04d.####.png".parse::<SequencePath>(),
            Err(PathError::SeveralFrameFields { .. })
        ));
    }
}
