//! Presets: parameter values of a workflow that a person keeps, or a show shares. Every save is a version of its own,
//! and an old one can be had back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use hearth_workflows::parameters::ParameterTexts;
use serde::{Deserialize, Serialize};

use super::{
    Farm,
    command::{Answer, Refusal, Step},
    ids::Timestamp,
    records::Key,
};

/// Presets of a farm.
const MOST: usize = 10_000;

/// Versions of a preset, and their bytes; the oldest make room for new ones, since all are written at every change.
const VERSIONS: usize = 100;
const BYTES: usize = 256 * 1024;

/// People of whom it is kept that they like a preset, and when they used it last.
const PEOPLE: usize = 1_000;

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
    fn bytes(&self) -> usize {
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

impl Farm {
    pub(super) fn change_preset(
        &mut self,
        now: Timestamp,
        id: PresetId,
        change: PresetChange,
        step: &mut Step,
    ) -> Result<Answer, Refusal> {
        let known = self.presets.len();
        match change {
            PresetChange::Save { workflow, parameters, note, by } => {
                if known >= MOST && !self.presets.contains_key(&id) {
                    return Err(Refusal::TooManyPresets { limit: MOST });
                }
                let versions = &mut self.presets.entry(id.clone()).or_default().versions;
                let number = versions.last().map_or(0, |last| last.number) + 1;
                versions.push(PresetVersion { number, workflow, parameters, note, by, at: now });
                let mut bytes = 0;
                let kept = versions.iter().rev().take(VERSIONS).take_while(|version| {
                    bytes += version.bytes();
                    bytes <= BYTES
                });
                let kept = kept.count().max(1);
                versions.drain(..versions.len() - kept);
            }
            PresetChange::Delete => {
                self.presets.remove(&id).ok_or_else(|| Refusal::NoSuchPreset(id.to_string()))?;
            }
            PresetChange::Favourite { user, on } => {
                let preset =
                    self.presets.get_mut(&id).ok_or_else(|| Refusal::NoSuchPreset(id.to_string()))?;
                if !on {
                    preset.favourites.remove(&user);
                } else if preset.favourites.len() >= PEOPLE && !preset.favourites.contains(&user) {
                    return Err(Refusal::TooManyFavourites { preset: id.to_string(), limit: PEOPLE });
                } else {
                    preset.favourites.insert(user);
                }
            }
        }
        step.changes.push(Key::Preset(id));
        Ok(Answer::Done)
    }

    /// Somebody has submitted a job with it.
    pub(super) fn preset_used(&mut self, now: Timestamp, id: PresetId, user: &str, step: &mut Step) {
        // It may have been deleted meanwhile.
        let Some(preset) = self.presets.get_mut(&id) else { return };
        if preset.used.len() < PEOPLE || preset.used.contains_key(user) {
            preset.used.insert(user.to_owned(), now);
            step.changes.push(Key::Preset(id));
        }
    }

    pub fn presets(&self) -> &BTreeMap<PresetId, Preset> {
        &self.presets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_versions_make_room_and_people_have_a_limit() {
        let mut farm = Farm::new(crate::farm::FarmConfig::default(), crate::farm::FarmTag("test".to_owned()));
        let id = PresetId::new(Owner::User("anna".to_owned()), "soft").expect("a name");
        let mut change = |change| {
            let mut step = Step::default();
            let done = farm.change_preset(Timestamp(1), id.clone(), change, &mut step);
            done.map(|_| farm.presets()[&id].clone())
        };
        let mut save = |bytes: usize| {
            let parameters = [("prompt".to_owned(), "x".repeat(bytes))].into();
            let save = PresetChange::Save {
                workflow: "w".to_owned(),
                parameters,
                note: String::new(),
                by: String::new(),
            };
            let numbers = change(save).expect("saved").versions;
            numbers.iter().map(|version| version.number).collect::<Vec<_>>()
        };
        for _ in 0..VERSIONS {
            save(1);
        }
        assert_eq!(save(1), (2..=101).collect::<Vec<_>>());
        assert_eq!(save(BYTES / 2), (3..=102).collect::<Vec<_>>());
        assert_eq!(save(BYTES / 2), [103]);
        assert_eq!(save(2 * BYTES), [104]);
        let like = |user: usize, on| PresetChange::Favourite { user: user.to_string(), on };
        for user in 0..PEOPLE {
            change(like(user, true)).expect("liked");
        }
        assert!(change(like(0, true)).is_ok(), "twice is no more than once");
        assert!(matches!(change(like(PEOPLE, true)), Err(Refusal::TooManyFavourites { .. })));
        change(like(0, false)).expect("no more");
        assert!(change(like(PEOPLE, true)).is_ok());
    }

    #[test]
    fn names_read_back_and_nothing_else_is_one() {
        for owner in [Owner::User("anna".to_owned()), Owner::Show("dune 2".to_owned())] {
            let id = PresetId::new(owner, "soft key").expect("a name");
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for wrong in ["", " ", "a/b", "a:b", "a@2", "a\nb", &"x".repeat(65)] {
            assert!(PresetId::new(Owner::User("anna".to_owned()), wrong).is_err(), "{wrong:?}");
            assert!(PresetId::new(Owner::Show(wrong.to_owned()), "soft").is_err(), "{wrong:?}");
        }
    }
}
