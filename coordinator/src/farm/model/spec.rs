//! What was submitted: a clip through a workflow, or a finished sequence to deliver.

use std::collections::{BTreeMap, BTreeSet};

use hearth_storage::StorageId;
use hearth_workflows::{
    Frame, FrameRange, FrameSet, RootPath, SequencePath, Split, View, Workflow, WorkflowId,
    delivery::{Curve, DeliveryFormat},
    format::{ColourSpace, Encoding, PictureFormat},
    parameters::{ParameterTexts, ParameterType},
    path::SequenceName,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::farm::model::ids::{JobId, Timestamp};

/// What was submitted; changed by an edit only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    pub name: String,
    pub show: String,
    pub user: String,
    /// Pools that nodes must be in, with `!` those that they must not: `comp+!desktop`. Empty: any node.
    pub pool: String,
    #[serde(flatten)]
    pub task: Task,
    /// The frames to make, by their numbers in the result; or to deliver.
    pub frames: FrameSet,
    /// The folder of the finished sequence; the file, or folder, of a delivery.
    pub output: RootPath,
    /// Before everything that is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub urgent: bool,
    /// What lies at the output already is replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrite: bool,
    /// It waits until these jobs are done.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty", deserialize_with = "one_or_more")]
    pub after: BTreeSet<JobId>,
    /// How it wants to be scheduled.
    #[serde(default, skip_serializing_if = "Terms::are_usual")]
    pub terms: Terms,
    /// The first of the jobs that were submitted together with it; `None` when it came alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<JobId>,
    /// The storage that its roots were when it was submitted, as far as that could be said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub storage: BTreeMap<String, StorageId>,
    /// W3C trace context; empty when it is not traced.
    pub traceparent: String,
    /// The client's own id of the submission; empty for none.
    pub request_id: String,
}

/// How a job wants to be scheduled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// People want it by then.
    pub deadline: Option<Timestamp>,
    /// It never has more nodes at a time; 0: no limit.
    pub max_nodes: usize,
    /// While it has fewer, it goes before all others of its show.
    pub min_nodes: usize,
    /// What each node at it uses of what there is only so much of; see [`crate::farm::LimitPolicy`].
    pub limits: BTreeSet<String>,
    /// These of its frames go first.
    pub first: FrameSet,
}

impl Terms {
    fn are_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Task {
    Render(Render),
    Deliver(Deliver),
}

/// Frames through a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Render {
    pub workflow: WorkflowId,
    pub workflow_name: String,
    /// Every parameter, defaults included.
    pub parameters: ParameterTexts,
    /// `None`: the workflow makes its frames out of nothing.
    #[serde(flatten)]
    pub clip: Option<JobClip>,
    /// First and last frame of the clip, within which handles may be taken; where the split looks at all frames,
    /// the first and last of those that are meant.
    pub clip_range: FrameRange,
    /// Fixed size of a chunk; `None`: by what was measured.
    pub chunk_frames: Option<u64>,
    /// Pictures that parameters name.
    #[serde(default)]
    pub pictures: Vec<RootPath>,
}

/// The clip that a job works on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobClip {
    #[serde(rename = "clip")]
    pub path: SequencePath,
    /// What its files are.
    #[serde(default = "png8")]
    pub encoding: Encoding,
    /// Of one picture, or of one at the head of the chain when it is still being made; 0 where an older version did
    /// not say.
    #[serde(default)]
    pub pixels: u64,
    /// How its light is shown to a workflow that takes only 0 to 1, and had back from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<View>,
    /// Who makes it: its frames are worked on as they are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<MadeBy>,
}

/// A pass of another job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeBy {
    pub job: JobId,
    pub pass: String,
}

/// Older versions wrote a single number.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<JobId>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Jobs {
        One(JobId),
        More(BTreeSet<JobId>),
    }
    Ok(match Jobs::deserialize(deserializer)? {
        Jobs::One(job) => [job].into(),
        Jobs::More(jobs) => jobs,
    })
}

/// What clips were before other formats were read.
fn png8() -> Encoding {
    Encoding { format: PictureFormat::Png8, colour: ColourSpace::Srgb }
}

/// A finished sequence to encode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deliver {
    pub sequence: SequencePath,
    pub colour: ColourSpace,
    pub format: DeliveryFormat,
    /// Burnt in, where the format has it.
    pub text: String,
    /// Frames a second, e.g. `24` or `24000/1001`; empty: what the files say, or 24.
    pub rate: String,
    /// Of a contact sheet of several sequences: its pictures. The job's frames are their places, from 1 on.
    #[serde(default)]
    pub tiles: Vec<Tile>,
    /// The curve that colours get; `None`: light that of sRGB, and what has one keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve: Option<Curve>,
}

/// A picture of a contact sheet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tile {
    pub sequence: SequencePath,
    pub frame: Frame,
    /// Burnt in.
    pub label: String,
}

/// A finished pass: its name and its files, relative to the output folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassFiles {
    pub pass: String,
    pub folder: Option<String>,
    pub name: SequenceName,
    pub encoding: Encoding,
}

impl PassFiles {
    /// As a pattern below the output folder: `depth/plate_depth.%04d.png`.
    pub fn pattern(&self) -> String {
        match &self.folder {
            Some(folder) => format!("{folder}/{}", self.name),
            None => self.name.to_string(),
        }
    }
}

impl JobSpec {
    /// The folder of unfinished work: hidden, beside the output, named for farm and job.
    pub fn work_dir(&self, tag: &str, job: u64) -> RootPath {
        let name = format!(".hearth-{tag}-{job}");
        // A sibling of a valid path under a plain name is valid; the output itself is the fallback.
        self.output.sibling(&name).unwrap_or_else(|_| self.output.clone())
    }

    /// `None` for a delivery.
    pub fn render(&self) -> Option<&Render> {
        match &self.task {
            Task::Render(render) => Some(render),
            Task::Deliver(_) => None,
        }
    }

    /// `None` for a delivery.
    pub fn workflow(&self) -> Option<&WorkflowId> {
        self.render().map(|render| &render.workflow)
    }

    /// The storage roots that a node must have mapped to work on it.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        let input = match &self.task {
            Task::Render(render) => render.clip.as_ref().map(|clip| clip.path.root()),
            Task::Deliver(deliver) => Some(deliver.sequence.root()),
        };
        let pictures = self.render().into_iter().flat_map(|render| &render.pictures).map(RootPath::root);
        input.into_iter().chain(pictures).chain([self.output.root()])
    }

    /// How the passes' files are named: one pass lies in the output folder itself, several get a folder each.
    /// Where frames stand for other times than in the clip, the name says by which factor. None for a delivery.
    pub fn pass_files(&self, workflow: &Workflow) -> Vec<PassFiles> {
        let Some(render) = self.render() else { return Vec::new() };
        let (stem, padding) = match &render.clip {
            Some(clip) => (clip.path.name().stem().to_owned(), clip.path.name().padding()),
            None => (plain(&self.name), 4),
        };
        let stem = match render.split(workflow) {
            Split::Interpolate { multiplier, step: 1 } => format!("{stem}_x{multiplier}"),
            Split::Interpolate { multiplier, step } => format!("{stem}_x{multiplier}-{step}"),
            _ => stem,
        };
        let encoding = render.clip.as_ref().map(|clip| clip.encoding);
        // Where they lie does not depend on whether a pass is left out.
        let alone = workflow.manifest().passes.len() == 1;
        let passes = workflow.manifest().passes_made(&render.parameters);
        passes
            .map(|pass| {
                let prefix = if alone { format!("{stem}.") } else { format!("{stem}_{}.", pass.name) };
                let encoding = workflow.manifest().result(pass, encoding);
                let suffix = format!(".{}", encoding.format.extension());
                PassFiles {
                    pass: pass.name.clone(),
                    folder: (!alone).then(|| pass.name.clone()),
                    name: SequenceName::new(&prefix, padding, &suffix),
                    encoding,
                }
            })
            .collect()
    }
}

impl Render {
    /// What makes its frames cost more or less than others of the workflow: numbers and choices, and the size of
    /// the pictures. A seed does not. It stands in durable records: two builds must find the same.
    pub(in crate::farm) fn variant(&self, workflow: &Workflow) -> u64 {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        add(&self.clip.as_ref().map(|clip| clip.pixels.to_string()).unwrap_or_default());
        let declared = &workflow.manifest().parameters;
        let costs = |name: &String| {
            let kind = declared.get(name).map(|parameter| parameter.kind);
            !name.contains("seed")
                && kind.is_some_and(|kind| kind != ParameterType::Text && !kind.is_on_storage())
        };
        for (name, value) in self.parameters.iter().filter(|(name, _)| costs(name)) {
            add(name);
            add(value);
        }
        let digest = hasher.finalize();
        digest.as_bytes().iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// How it is split. Its parameters were checked when it was submitted.
    pub fn split(&self, workflow: &Workflow) -> Split {
        workflow.manifest().split(&self.parameters).unwrap_or(Split::Whole)
    }
}

/// A name as the start of file names.
fn plain(name: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    let name: String = name.chars().map(kept).take(100).collect();
    if name.is_empty() { "frame".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use hearth_workflows::library::Library;

    use super::*;

    /// A build that finds others would take what was measured for something else.
    #[test]
    fn variants_are_the_same_in_every_build() {
        let library = Library::read::<&str>(&[]);
        let workflow = library.get("resize-sharpen").expect("shipped");
        let of = |parameters: &[(&str, &str)]| {
            let parameters =
                parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let render = Render {
                workflow: workflow.id().clone(),
                workflow_name: workflow.name().to_owned(),
                parameters,
                clip: None,
                clip_range: FrameRange::new(1, 4).expect("a range"),
                chunk_frames: None,
                pictures: Vec::new(),
            };
            render.variant(workflow)
        };
        assert_eq!(of(&[("scale", "2"), ("filter", "lanczos")]), 15_535_501_109_339_037_857);
        assert_ne!(of(&[("scale", "2")]), of(&[("scale", "4")]));
        assert_ne!(of(&[("scale", "2"), ("filter", "area")]), of(&[("scale", "2filter"), ("area", "")]));
    }

    #[test]
    fn a_spec_is_read_as_it_was_written_and_as_older_versions_wrote_it() {
        let older = r#"{"name":"n","show":"","user":"","pool":"","workflow":"w","workflow_name":"w",
            "parameters":{},"clip":"plates/p.%04d.png","clip_range":{"first":1,"last":9},"frames":"1-9",
            "output":"comps/o","chunk_frames":null,"traceparent":"","request_id":""}"#;
        let spec: JobSpec = serde_json::from_str(older).expect("readable");
        let clip = spec.render().and_then(|render| render.clip.clone()).expect("a clip");
        assert_eq!((clip.path.to_string(), clip.encoding), ("plates/p.%04d.png".to_owned(), png8()));

        let waits = older.replace("\"user\"", "\"after\":7,\"user\"");
        let waits: JobSpec = serde_json::from_str(&waits).expect("readable");
        assert_eq!(waits.after, [JobId(7)].into());
        let made_by = Some(MadeBy { job: JobId(3), pass: "depth".to_owned() });
        let render = spec.render().cloned().expect("a render");
        let render = Render { clip: Some(JobClip { made_by, ..clip.clone() }), ..render };
        let follower = JobSpec { task: Task::Render(render), ..spec.clone() };
        let generated = JobSpec {
            task: Task::Render(Render { clip: None, ..spec.render().cloned().expect("a render") }),
            ..spec.clone()
        };
        let delivery = JobSpec {
            task: Task::Deliver(Deliver {
                sequence: clip.path,
                colour: ColourSpace::Srgb,
                format: DeliveryFormat::H264,
                text: "text".to_owned(),
                rate: String::new(),
                tiles: Vec::new(),
                curve: Some(Curve::Rec709),
            }),
            after: [JobId(7), JobId(9)].into(),
            terms: Terms { max_nodes: 3, first: "1,9".parse().expect("frames"), ..Terms::default() },
            overwrite: true,
            ..spec.clone()
        };
        for spec in [spec, generated, follower, delivery] {
            let text = serde_json::to_string(&spec).expect("written");
            assert_eq!(serde_json::from_str::<JobSpec>(&text).expect("readable"), spec);
        }
    }
}
