//! Presets: parameter values of a workflow that a person keeps, or a show shares. Every save is a version of its own,
//! and an old one can be had back.

use std::collections::BTreeMap;

use crate::farm::{
    model::{
        command::{Answer, Refusal, Step},
        ids::Timestamp,
        key::Key,
        preset::{BYTES, MOST, PEOPLE, Preset, PresetChange, PresetId, PresetVersion, VERSIONS},
    },
    state::Farm,
};

impl Farm {
    pub(in crate::farm) fn change_preset(
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
    pub(in crate::farm) fn preset_used(&mut self, now: Timestamp, id: PresetId, user: &str, step: &mut Step) {
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
    use crate::farm::Owner;

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
