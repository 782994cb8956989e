//! Presets: parameter values that people save, share and find again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use hearth_workflows::parameters::ParameterTexts;
use serde::{Deserialize, Serialize};

use crate::farm::model::ids::Timestamp;

/// Presets of a farm.
pub(in crate::farm) const MOST: usize = 10_000;

/// Versions of a preset, and their bytes; the oldest make room for new ones, since all are written at every change.
pub(in crate::farm) const VERSIONS: usize = 100;

pub(in crate::farm) const BYTES: usize = 256 * 1024;

/// People of whom it is kept that they like a preset, and when they used it last.
pub(in crate::farm) const PEOPLE: usize = 1_000;

/// Characters of a name.
const NAME: usize = 64;

/// Whose a preset is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    User(String),
    /// Shared by all who work on it.
    Show(String),
}

/// Names a preset. Its text is `user/anna/soft` or `show/dune/soft`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PresetId {
    pub owner: Owner,
    pub name: String,
}

/// A name that cannot name a preset, or whoever has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' cannot name a preset or its owner; give 1 to {NAME} characters, none of them / : @ or a line's end"
)]
pub struct WrongName(pub String);

impl PresetId {
    pub fn new(owner: Owner, name: &str) -> Result<Self, WrongName> {
        let (Owner::User(whose) | Owner::Show(whose)) = &owner;
        let is_wrong = |text: &str| {
            text.is_empty()
                || text.chars().count() > NAME
                || text.trim() != text
                || text.contains(|c: char| matches!(c, '/' | ':' | '@') || c.is_control())
        };
        let wrong = [whose.as_str(), name].into_iter().find(|text| is_wrong(text)).map(str::to_owned);
        match wrong {
            Some(wrong) => Err(WrongName(wrong)),
            None => Ok(Self { owner, name: name.to_owned() }),
        }
    }
}

impl fmt::Display for PresetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Owner::User(user) => write!(f, "user/{user}/{}", self.name),
            Owner::Show(show) => write!(f, "show/{show}/{}", self.name),
        }
    }
}

impl FromStr for PresetId {
    type Err = WrongName;

    fn from_str(text: &str) -> Result<Self, WrongName> {
        let wrong = || WrongName(text.to_owned());
        let (kind, rest) = text.split_once('/').ok_or_else(wrong)?;
        let (whose, name) = rest.split_once('/').ok_or_else(wrong)?;
        let owner = match kind {
            "user" => Owner::User(whose.to_owned()),
            "show" => Owner::Show(whose.to_owned()),
            _ => return Err(wrong()),
        };
        Self::new(owner, name)
    }
}

/// A preset with its versions, oldest first; never without any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preset {
    pub versions: Vec<PresetVersion>,
    /// Users whose favourite it is.
    pub favourites: BTreeSet<String>,
    /// When each user submitted a job with it last.
    pub used: BTreeMap<String, Timestamp>,
}

/// What a save has kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresetVersion {
    /// Counts from 1.
    pub number: u32,
    /// Name of a workflow of the library.
    pub workflow: String,
    pub parameters: ParameterTexts,
    pub note: String,
    pub by: String,
    pub at: Timestamp,
}

impl PresetVersion {
    pub(in crate::farm) fn bytes(&self) -> usize {
        let parameters = self.parameters.iter().map(|(name, value)| name.len() + value.len());
        parameters.sum::<usize>() + self.workflow.len() + self.note.len() + self.by.len()
    }
}

impl Preset {
    pub fn version(&self, number: Option<u32>) -> Option<&PresetVersion> {
        match number {
            Some(number) => self.versions.iter().find(|version| version.number == number),
            None => self.versions.last(),
        }
    }
}

/// What is to be done with a preset.
#[derive(Debug, Clone)]
pub enum PresetChange {
    /// As a version after those that there are.
    Save {
        workflow: String,
        parameters: ParameterTexts,
        note: String,
        by: String,
    },
    Delete,
    Favourite {
        user: String,
        on: bool,
    },
}
