//! Presets as they are asked for: names read, versions found, and put into a submission.

use std::{collections::BTreeMap, path::Path};

use hearth_proto::v1::{
    self, change_preset_request::Change, preset_name, submit_job_request::Workflow as Named,
};
use hearth_workflows::{library::Library, parameters};

use crate::{
    farm::{Owner, Preset, PresetChange, PresetId, PresetVersion, WrongName},
    submission::{PARAMETERS, SubmissionError, check_length, check_text},
};

/// Presets in one answer.
const LISTED: usize = 1_000;

/// Bytes of a note.
const NOTE: usize = 1_024;

pub(super) fn id(name: Option<&v1::PresetName>) -> Result<PresetId, WrongName> {
    let wrong = || WrongName(String::new());
    let name = name.ok_or_else(wrong)?;
    let owner = match name.owner.as_ref().ok_or_else(wrong)? {
        preset_name::Owner::User(user) => Owner::User(user.clone()),
        preset_name::Owner::Show(show) => Owner::Show(show.clone()),
    };
    PresetId::new(owner, &name.name)
}

pub(super) fn message(id: &PresetId, preset: &Preset) -> v1::Preset {
    v1::Preset {
        name: Some(name(id)),
        versions: preset.versions.iter().map(version).collect(),
        favourite_of: preset.favourites.iter().cloned().collect(),
        used_unix_ms: preset.used.iter().map(|(user, at)| (user.clone(), at.0 as i64)).collect(),
    }
}

fn name(id: &PresetId) -> v1::PresetName {
    let owner = match &id.owner {
        Owner::User(user) => preset_name::Owner::User(user.clone()),
        Owner::Show(show) => preset_name::Owner::Show(show.clone()),
    };
    v1::PresetName { owner: Some(owner), name: id.name.clone() }
}

fn version(version: &PresetVersion) -> v1::PresetVersion {
    v1::PresetVersion {
        number: version.number,
        workflow: version.workflow.clone(),
        parameters: version.parameters.clone().into_iter().collect(),
        note: version.note.clone(),
        by: version.by.clone(),
        at_unix_ms: version.at.0 as i64,
    }
}

pub(super) fn list(
    presets: &BTreeMap<PresetId, Preset>,
    request: &v1::ListPresetsRequest,
) -> v1::ListPresetsResponse {
    let wanted = |(id, preset): &(&PresetId, &Preset)| {
        let owned = match &id.owner {
            Owner::User(user) => *user == request.user,
            Owner::Show(show) => *show == request.show,
        };
        let of = preset.version(None).is_some_and(|version| version.workflow == request.workflow);
        (request.all || owned) && (request.workflow.is_empty() || of)
    };
    let user = request.user.as_str();
    let mut found: Vec<(&PresetId, &Preset)> = presets.iter().filter(wanted).collect();
    // Stable: what is left to say, owner and name say.
    found.sort_by_key(|(_, preset)| {
        (!preset.favourites.contains(user), std::cmp::Reverse(preset.used.get(user).copied()))
    });
    let brief = |(id, preset): &(&PresetId, &Preset)| v1::Preset {
        name: Some(name(id)),
        versions: preset.version(None).map(version).into_iter().collect(),
        favourite_of: preset.favourites.get(user).cloned().into_iter().collect(),
        used_unix_ms: preset.used.get(user).map(|at| (user.to_owned(), at.0 as i64)).into_iter().collect(),
    };
    v1::ListPresetsResponse {
        total: found.len() as u64,
        presets: found.iter().take(LISTED).map(brief).collect(),
    }
}

/// What is saved fits its workflow, of those in `folders` and those that ship with Hearth. Blocks on storage.
pub(super) fn change(change: Change, folders: &[impl AsRef<Path>]) -> Result<PresetChange, SubmissionError> {
    Ok(match change {
        Change::Delete(_) => PresetChange::Delete,
        Change::Mark(mark) => {
            check_text("user", &mark.user)?;
            PresetChange::Favourite { user: mark.user, on: mark.favourite }
        }
        Change::Save(v1::SavePreset { workflow, parameters, note, by }) => {
            let values = parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
            check_length("note", note.len(), NOTE)?;
            check_text("name of who saves it", &by)?;
            check_length("parameter list", values, PARAMETERS)?;
            let library = Library::read(folders);
            let known = library.get(&workflow)?;
            let (declared, given) = (&known.manifest().parameters, parameters.into_iter().collect());
            parameters::check_names(&workflow, declared, &given)?;
            for (name, text) in &given {
                declared[name].read(&workflow, name, text)?;
            }
            PresetChange::Save { workflow, parameters: given, note, by }
        }
    })
}

/// What a submission calls its preset.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Where it is looked for, in this order.
    ids: Vec<PresetId>,
    version: Option<u32>,
    /// The submission names a workflow, of whose own presets it may be one.
    may_ship: bool,
    text: String,
}

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Found {
    Version(PresetId, PresetVersion),
    /// One of the workflow's own, perhaps.
    Shipped,
    Nothing(String),
}

impl Wanted {
    pub(super) fn of(request: &v1::SubmitJobRequest) -> Result<Self, WrongName> {
        let text = request.preset.as_str();
        let (whose, rest) = text.split_once(':').map_or((None, text), |(whose, name)| (Some(whose), name));
        let (name, version) = match rest.split_once('@') {
            Some((name, number)) => (name, Some(number.parse().map_err(|_| WrongName(text.to_owned()))?)),
            None => (rest, None),
        };
        let owners = match whose {
            None => vec![Owner::User(request.user.clone()), Owner::Show(request.show.clone())],
            Some("user") => vec![Owner::User(request.user.clone())],
            Some("show") => vec![Owner::Show(request.show.clone())],
            Some(_) => return Err(WrongName(text.to_owned())),
        };
        // Whoever has no name has no presets.
        let mut ids = Vec::new();
        for owner in owners {
            let (Owner::User(owner_name) | Owner::Show(owner_name)) = &owner;
            match PresetId::new(owner.clone(), name) {
                Ok(id) => ids.push(id),
                // Whoever has none of their own may mean one that ships with the workflow.
                Err(_) if whose.is_none() || owner_name.is_empty() => {}
                Err(wrong) => return Err(wrong),
            }
        }
        let is_named = match &request.workflow {
            Some(Named::WorkflowName(name)) => !name.is_empty(),
            Some(Named::WorkflowSource(_)) => true,
            None => false,
        };
        let may_ship = is_named && whose.is_none() && version.is_none();
        Ok(Self { ids, version, may_ship, text: text.to_owned() })
    }

    pub(super) fn find(&self, presets: &BTreeMap<PresetId, Preset>) -> Found {
        for id in &self.ids {
            let Some(preset) = presets.get(id) else { continue };
            return match preset.version(self.version) {
                Some(version) => Found::Version(id.clone(), version.clone()),
                None => {
                    let numbers: Vec<String> =
                        preset.versions.iter().map(|version| version.number.to_string()).collect();
                    Found::Nothing(format!("preset {id} has no such version; it has {}", numbers.join(", ")))
                }
            };
        }
        if self.may_ship {
            return Found::Shipped;
        }
        Found::Nothing(format!("no preset {}; `hearth preset list` lists them", self.text))
    }
}

/// Puts the preset into the request: what the request sets itself goes before it.
pub(super) fn apply(
    request: &mut v1::SubmitJobRequest,
    id: &PresetId,
    version: PresetVersion,
) -> Result<(), SubmissionError> {
    let named = match &request.workflow {
        Some(Named::WorkflowName(name)) if name.is_empty() => None,
        Some(Named::WorkflowName(name)) => Some(name.clone()),
        Some(Named::WorkflowSource(source)) => Some(source.name.clone()),
        None => None,
    };
    match named {
        None => request.workflow = Some(Named::WorkflowName(version.workflow)),
        Some(name) if name == version.workflow => {}
        Some(workflow) => {
            return Err(SubmissionError::OtherWorkflow {
                preset: id.to_string(),
                of: version.workflow,
                workflow,
            });
        }
    }
    for (name, value) in version.parameters {
        request.parameters.entry(name).or_insert(value);
    }
    request.preset.clear();
    Ok(())
}
