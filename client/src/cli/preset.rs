//! `hearth preset`: parameter values that a person keeps, or a show shares.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use hearth_proto::v1::{self, change_preset_request::Change, preset_name::Owner};
use hearth_storage::Roots;
use serde::{Deserialize, Serialize};

use super::out::say;
use super::{CliError, Outcome, json, submit::parameters, tables};
use crate::FarmClient;

/// Whose presets are meant.
#[derive(Debug, Args)]
pub(crate) struct Whose {
    /// Those of this user
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    pub(crate) user: String,
    /// Those that this show shares
    #[arg(long)]
    pub(crate) show: Option<String>,
}

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  hearth preset save soft -w chroma-key -p feather=6 -p spill=1.0 --note 'for the rain shots'
  hearth preset save soft --job 12 --show dune
  hearth submit plates/sh010/plate.%04d.exr --preset soft -o comps/sh010/key_v###
  hearth preset diff soft@1 soft@3

soft is the latest version of a preset, soft@3 its third.")]
pub(crate) enum PresetCommand {
    /// List your presets, favourites and those used last first; with --show those of a show as well
    List {
        #[command(flatten)]
        whose: Whose,
        /// Only of this workflow
        #[arg(long, short, default_value = "", hide_default_value = true)]
        workflow: String,
        /// Everybody's
        #[arg(long)]
        all: bool,
    },
    /// Show what a preset sets, and its versions
    Show {
        preset: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Save a preset, or a further version of it
    Save {
        preset: String,
        #[command(flatten)]
        whose: Whose,
        /// The workflow that it is of
        #[arg(long, short, default_value = "", hide_default_value = true, required_unless_present = "job")]
        workflow: String,
        /// A parameter, as name=value; can be given several times
        #[arg(long = "param", short)]
        parameters: Vec<String>,
        /// Take workflow and parameters of this job
        #[arg(long)]
        job: Option<u64>,
        /// What it is for
        #[arg(long, default_value = "", hide_default_value = true)]
        note: String,
        /// This host's storage roots, to understand absolute paths
        #[arg(long, env = "HEARTH_ROOTS", default_value = "", hide_default_value = true)]
        roots: String,
    },
    /// Save an old version once more, as the latest: soft@2
    Restore {
        preset: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Say what differs: between two presets or versions, or between the latest two versions of one
    Diff {
        one: String,
        other: Option<String>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Delete a preset with all its versions
    Delete {
        preset: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Make a preset a favourite of yours
    Favourite {
        preset: String,
        /// It is none any more
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        whose: Whose,
    },
    /// Write a preset as a file
    Export {
        preset: String,
        /// [default: standard output]
        #[arg(long, short)]
        output: Option<PathBuf>,
        #[command(flatten)]
        whose: Whose,
    },
    /// Save what a file says
    Import {
        file: PathBuf,
        /// Under this name [default: the file's]
        preset: Option<String>,
        #[command(flatten)]
        whose: Whose,
    },
}

/// A preset as a file: what one facility sends another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    workflow: String,
    #[serde(default)]
    note: String,
    parameters: BTreeMap<String, String>,
}

/// `soft` or `soft@3`.
fn reference(text: &str) -> Result<(&str, Option<u32>), CliError> {
    match text.split_once('@') {
        None => Ok((text, None)),
        Some((name, number)) => match number.parse() {
            Ok(number) => Ok((name, Some(number))),
            Err(_) => Err(CliError::PresetVersion { text: text.to_owned() }),
        },
    }
}

fn name(whose: &Whose, name: &str) -> v1::PresetName {
    let owner = match &whose.show {
        Some(show) => Owner::Show(show.clone()),
        None => Owner::User(whose.user.clone()),
    };
    v1::PresetName { owner: Some(owner), name: name.to_owned() }
}

pub(super) async fn run(
    client: &FarmClient,
    command: PresetCommand,
    as_json: bool,
) -> Result<Outcome, CliError> {
    match command {
        PresetCommand::List { whose, workflow, all } => {
            let request = v1::ListPresetsRequest {
                user: whose.user.clone(),
                show: whose.show.unwrap_or_default(),
                workflow,
                all,
            };
            let v1::ListPresetsResponse { presets, total } = client.presets(request).await?;
            if as_json {
                say!("{}", json::list(presets.iter().map(json::preset)));
            } else if presets.is_empty() {
                say!("no presets; save one with: hearth preset save NAME -w WORKFLOW -p name=value");
            } else {
                say!("{}", tables::presets(&presets, &whose.user));
                let hidden = total.saturating_sub(presets.len() as u64);
                if hidden > 0 {
                    say!("and {hidden} more; name a workflow to see fewer");
                }
            }
        }
        PresetCommand::Show { preset, whose } => {
            let (preset, version) = version(client, &whose, &preset).await?;
            if as_json {
                say!("{}", json::preset(&preset));
            } else {
                say!("{}", tables::preset(&preset, &version));
            }
        }
        PresetCommand::Save { preset, whose, workflow, parameters: texts, job, note, roots } => {
            let roots: Roots = roots.parse()?;
            let mut values: BTreeMap<String, String> = BTreeMap::new();
            let mut of = workflow;
            if let Some(job) = job {
                let job = client.job(job).await?;
                values.extend(job.parameters);
                if of.is_empty() {
                    of = job.workflow;
                }
            }
            values.extend(parameters(&texts, &roots)?);
            save(
                client,
                &whose,
                &preset,
                File { name: preset.clone(), workflow: of, note, parameters: values },
                as_json,
            )
            .await?;
        }
        PresetCommand::Restore { preset, whose } => {
            let (_, old) = version(client, &whose, &preset).await?;
            let (plain, number) = reference(&preset)?;
            if number.is_none() {
                return Err(CliError::PresetVersion { text: preset });
            }
            let note = format!("version {} again", old.number);
            let parameters = old.parameters.into_iter().collect();
            let file = File { name: plain.to_owned(), workflow: old.workflow, note, parameters };
            save(client, &whose, plain, file, as_json).await?;
        }
        PresetCommand::Diff { one, other, whose } => {
            diff(client, &whose, &one, other.as_deref(), as_json).await?;
        }
        PresetCommand::Delete { preset, whose } => {
            let change = Change::Delete(v1::DeletePreset {});
            let request = v1::ChangePresetRequest { name: Some(name(&whose, &preset)), change: Some(change) };
            client.change_preset(request).await?;
            if !as_json {
                say!("preset {preset} is deleted");
            }
        }
        PresetCommand::Favourite { preset, off, whose } => {
            let change = Change::Mark(v1::MarkPreset { user: whose.user.clone(), favourite: !off });
            let request = v1::ChangePresetRequest { name: Some(name(&whose, &preset)), change: Some(change) };
            let changed = client.change_preset(request).await?;
            told(
                changed,
                as_json,
                &format!("preset {preset} is {} favourite of yours", if off { "no" } else { "a" }),
            );
        }
        PresetCommand::Export { preset, output, whose } => {
            let (_, version) = version(client, &whose, &preset).await?;
            let file = File {
                name: reference(&preset)?.0.to_owned(),
                workflow: version.workflow,
                note: version.note,
                parameters: version.parameters.into_iter().collect(),
            };
            // Plain texts and a table of them: they always serialise.
            let text = toml::to_string(&file).unwrap_or_default();
            match output {
                Some(path) => fs::write(&path, text).map_err(|source| CliError::Keep { path, source })?,
                None => print!("{text}"),
            }
        }
        PresetCommand::Import { file, preset, whose } => {
            let read = read(&file)?;
            let preset = preset.unwrap_or_else(|| read.name.clone());
            save(client, &whose, &preset, read, as_json).await?;
        }
    }
    Ok(Outcome::Fine)
}

fn read(path: &Path) -> Result<File, CliError> {
    let text = fs::read_to_string(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| CliError::BatchFile {
        path: path.display().to_string(),
        message: error.to_string().trim_end().to_owned(),
    })
}

fn told(changed: Option<v1::Preset>, as_json: bool, text: &str) {
    match changed {
        Some(preset) if as_json => say!("{}", json::preset(&preset)),
        _ => say!("{text}"),
    }
}

async fn save(
    client: &FarmClient,
    whose: &Whose,
    preset: &str,
    File { workflow, note, parameters, .. }: File,
    as_json: bool,
) -> Result<(), CliError> {
    let parameters = parameters.into_iter().collect();
    let change = Change::Save(v1::SavePreset { workflow, parameters, note, by: whose.user.clone() });
    let request = v1::ChangePresetRequest { name: Some(name(whose, preset)), change: Some(change) };
    let changed = client.change_preset(request).await?;
    let number = changed.as_ref().and_then(|preset| preset.versions.last()).map_or(0, |last| last.number);
    told(changed, as_json, &format!("preset {preset} is saved, version {number}"));
    Ok(())
}

/// The preset and its version that `text` names; the latest when it names none.
async fn version(
    client: &FarmClient,
    whose: &Whose,
    text: &str,
) -> Result<(v1::Preset, v1::PresetVersion), CliError> {
    let (plain, number) = reference(text)?;
    let preset = client.preset(name(whose, plain)).await?;
    let version = match number {
        Some(number) => preset.versions.iter().find(|version| version.number == number),
        None => preset.versions.last(),
    };
    let version = version.cloned().ok_or_else(|| CliError::NoPreset { name: text.to_owned() })?;
    Ok((preset, version))
}

/// Of a preset alone, the latest version against the one before.
async fn diff(
    client: &FarmClient,
    whose: &Whose,
    one: &str,
    other: Option<&str>,
    as_json: bool,
) -> Result<(), CliError> {
    let (preset, first) = version(client, whose, one).await?;
    let (before, after) = match other {
        Some(other) => (first, version(client, whose, other).await?.1),
        None => {
            let older = preset.versions.iter().rev().find(|version| version.number < first.number);
            let older = older.cloned().ok_or_else(|| CliError::NoPreset { name: format!("{one}, older") })?;
            (older, first)
        }
    };
    let names: BTreeSet<&String> = before.parameters.keys().chain(after.parameters.keys()).collect();
    let changed: Vec<_> = names
        .into_iter()
        .map(|name| (name, before.parameters.get(name), after.parameters.get(name)))
        .filter(|(_, before, after)| before != after)
        .collect();
    if as_json {
        let changed = changed.iter().map(|(name, before, after)| {
            serde_json::json!({ "parameter": name, "before": before, "after": after })
        });
        say!("{}", json::list(changed));
    } else if changed.is_empty() {
        say!("they set the same");
    } else {
        for (name, before, after) in changed {
            let shown = |value: Option<&String>| value.map_or("not set".to_owned(), Clone::clone);
            say!("{name}: {} -> {}", shown(before), shown(after));
        }
    }
    Ok(())
}
