//! The ComfyUI version that a simulator stands for, and what versions differ in on the wire.

use std::{fmt, str::FromStr};

/// A release of ComfyUI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32, u32);

impl Version {
    /// The oldest release that exchanges were recorded with.
    pub const OLDEST: Self = Self(0, 19, 3);
    /// The newest one.
    pub const NEWEST: Self = Self(0, 33, 0);

    /// From 0.20.0 on, a cycle is named in the refusal.
    pub fn names_cycles(self) -> bool {
        self >= Self(0, 20, 0)
    }

    /// From 0.26.0 on, savers hand their pictures on, and jobs can be cancelled by id.
    pub fn savers_have_outputs(self) -> bool {
        self >= Self(0, 26, 0)
    }

    /// From 0.26.0 on, `POST /api/jobs/…/cancel` stops a prompt whether it waits or runs.
    pub fn cancels_jobs(self) -> bool {
        self >= Self(0, 26, 0)
    }

    /// From 0.28.0 on, what comes from the cache is in the history without a client id, too.
    pub fn keeps_cached_outputs(self) -> bool {
        self >= Self(0, 28, 0)
    }

    /// From 0.32.0 on, jobs say how many of their outputs can be previewed.
    pub fn counts_previewable(self) -> bool {
        self >= Self(0, 32, 0)
    }

    /// From 0.25.0 on, `POST /prompt` refuses every `prompt_id` but a canonical lower-case UUID.
    pub fn wants_uuids(self) -> bool {
        self >= Self(0, 25, 0)
    }

    /// From 0.28.0 on, nodes load files only from below ComfyUI's own folders, links followed.
    pub fn confines_loads(self) -> bool {
        self >= Self(0, 28, 0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split('.').map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self(major, minor, patch)),
            _ => Err("a version is written as 0.33.0"),
        }
    }
}
