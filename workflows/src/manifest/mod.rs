//! `hearth.toml`: what a graph alone does not say. See `docs/manifest.md` for the format.

use std::collections::BTreeMap;

mod check;

use serde::{Deserialize, Serialize};

use crate::{
    delivery::{Curve, DeliveryFormat},
    error::WorkflowError,
    format::{ColourSpace, Encoding, PictureFormat},
    parameters::{InputRef, Parameter, ParameterTexts},
    split::{Ramp, Shape, Split},
};

/// The most frames a chunk may load when the manifest names no limit and the clip comes in one file a
/// node: a graph of thousands of loaders is slow to validate.
pub const DEFAULT_MAX_CHUNK_FRAMES: u32 = 128;

/// The most files that a node which numbers them with four digits can load or save.
pub const MAX_NUMBERED: u32 = 9999;

/// A manifest, as written.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub workflow: About,
    /// Absent: the workflow makes its frames out of nothing ([`SplitRule::Generate`]).
    pub clip: Option<ClipInput>,
    pub split: SplitRule,
    #[serde(default)]
    pub chunk: ChunkLimits,
    #[serde(default)]
    pub needs: Needs,
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// Facts of a chunk that node inputs take.
    #[serde(default, rename = "fact")]
    pub facts: Vec<Fact>,
    /// Nodes that get one frame at a time.
    #[serde(default)]
    pub each: Vec<Each>,
    #[serde(rename = "pass")]
    pub passes: Vec<Pass>,
    /// What a job's passes are delivered as, unless it asks for deliveries of its own.
    #[serde(default, rename = "delivery")]
    pub deliveries: Vec<Delivery>,
    /// Parameter values that belong together, by name.
    #[serde(default)]
    pub presets: BTreeMap<String, Preset>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    pub title: String,
    pub purpose: String,
    #[serde(default)]
    pub category: String,
}

/// How a clip may be cut, as the manifest says it; [`Manifest::split`] knows the numbers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SplitRule {
    PerFrame,
    Handles {
        head: u32,
        tail: u32,
    },
    Overlap {
        frames: u32,
        #[serde(default)]
        handles: u32,
        #[serde(default)]
        ramp: Ramp,
    },
    Interpolate {
        /// Frames of the result for one of the clip: `2`, `2.5`, `5/2`, or the name of a parameter that says so.
        factor: String,
        /// Node inputs that take the model's whole multiplier.
        sets: Vec<InputRef>,
    },
    Whole,
    Generate {
        /// Frames to make: a number, or the name of a parameter that says so.
        frames: String,
        /// Node inputs that take the frames that the model makes: as many, or a few more where it insists.
        sets: Vec<InputRef>,
        /// The parameter by which takes differ: each has one more than the take before.
        #[serde(default)]
        seed: Option<String>,
    },
}

/// Where the frames come in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClipInput {
    /// The node that loads.
    pub node: String,
    pub load: Load,
    /// Picture formats it reads right; a clip of another kind is converted.
    #[serde(default = "png8")]
    pub formats: Vec<PictureFormat>,
    /// What it takes the numbers for; a clip in another colour space is converted. Nothing said: a format that
    /// it reads comes as it is.
    #[serde(default)]
    pub colour: Option<ColourSpace>,
    /// Range of numbers for its nodes. Frames are cut to it, even in formats that hold more.
    #[serde(default)]
    pub range: Range,
}

/// The numbers that make sense to the nodes of a workflow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Range {
    /// All that the format holds.
    #[default]
    Any,
    /// 0 to 1, for which image models are made.
    Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// The node loads one picture (`image`); it is repeated for every frame and the pictures are batched.
    Image,
    /// The node loads a folder (`directory`), which holds exactly the chunk's frames.
    Directory,
    /// The node loads numbered files (`filepath` with `%04d`, `start_frame`, `end_frame`).
    Frames,
}

impl Load {
    /// The input that takes file or folder.
    pub fn input(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Directory => "directory",
            Self::Frames => "filepath",
        }
    }
}

fn png8() -> Vec<PictureFormat> {
    vec![PictureFormat::Png8]
}

/// What a node must have.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    /// Node classes beside those in the graph.
    pub classes: Vec<String>,
    /// Where the classes that core ComfyUI has not come from: package to its classes in the graph.
    pub packages: BTreeMap<String, Vec<String>>,
    /// Model files as `folder/file`.
    pub models: Vec<String>,
    pub vram_gib: f64,
    /// What each node at it uses of what the farm has only so much of: licences, quotas of a service.
    pub limits: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkLimits {
    /// Least and most frames that one prompt may load, handles included.
    pub min_frames: Option<u32>,
    pub max_frames: Option<u32>,
    /// The model takes `multiple * n + plus` frames.
    pub multiple: Option<u32>,
    pub plus: Option<u32>,
}

/// Nodes that run once for each loaded frame instead of once for the batch of them, so that no cut shows in what they
/// draw or measure.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Each {
    pub nodes: Vec<String>,
    /// Nodes before them whose outputs are batches with a picture for each loaded frame.
    pub of: Vec<String>,
    /// Inputs to which the frame's number is added.
    #[serde(default)]
    pub seeds: Vec<InputRef>,
}

/// A pass as a movie or a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    pub format: DeliveryFormat,
    pub pass: String,
    /// The curve that its colours get; nothing said: light that of sRGB, what has a curve keeps it.
    #[serde(default)]
    pub curve: Option<Curve>,
}

/// Parameter values that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    pub help: String,
    /// As text, the form in which values travel.
    pub parameters: ParameterTexts,
}

/// A number of the chunk that node inputs take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    pub value: FactValue,
    pub sets: Vec<InputRef>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactValue {
    /// Frames loaded, handles included.
    Loaded,
    /// Number of the first loaded frame, e.g. to seed by frame.
    FirstLoaded,
    /// Handles before the first kept frame.
    Head,
}

/// One output of the workflow. The node must give one picture for every loaded frame, in order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pass {
    pub name: String,
    /// The node that saves it.
    pub node: String,
    /// As the node saves it.
    #[serde(default = "png8_format")]
    pub format: PictureFormat,
    /// What its numbers are; nothing said: what the clip's were when they were loaded. `data` is never converted.
    #[serde(default)]
    pub colour: Option<ColourSpace>,
    /// As it comes back, in its own `colour` where that is said; nothing said: see [`Manifest::result`].
    #[serde(default)]
    pub result: Option<PictureFormat>,
    #[serde(default)]
    pub save: Save,
    /// The input that takes the file prefix, or the path; nothing said: `filename_prefix`, or `filepath`.
    #[serde(default)]
    pub prefix_input: Option<String>,
    /// A parameter: the pass is made unless that is off.
    #[serde(default)]
    pub when: Option<String>,
    /// A parameter: unless that is off, colours come back multiplied by alpha in formats whose standard has them
    /// straight, too. In EXR they always are.
    #[serde(default)]
    pub multiplied_when: Option<String>,
}

/// How a node saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Save {
    /// Into ComfyUI's output folder, with a prefix; the history lists the files.
    #[default]
    Images,
    /// To an absolute path with `%04d`, numbered from `start_frame`; the history lists nothing
    /// (`SaveEXRFrames`).
    Frames,
}

impl Pass {
    /// The input that takes the file prefix, or the path.
    pub fn target(&self) -> &str {
        match (&self.prefix_input, self.save) {
            (Some(input), _) => input,
            (None, Save::Images) => "filename_prefix",
            (None, Save::Frames) => "filepath",
        }
    }
}

fn png8_format() -> PictureFormat {
    PictureFormat::Png8
}

impl Manifest {
    pub fn parse(file: &str, text: &str) -> Result<Self, WorkflowError> {
        toml::from_str(text).map_err(|error| WorkflowError::Manifest {
            file: file.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })
    }

    /// The split with these parameters, of which those not given have their defaults.
    pub fn split(&self, parameters: &ParameterTexts) -> Result<Split, String> {
        let value = |name: &str| {
            let by_default = || self.parameters.get(name).map(Parameter::default_text);
            parameters.get(name).cloned().or_else(by_default).unwrap_or_else(|| name.to_owned())
        };
        Ok(match &self.split {
            SplitRule::PerFrame => Split::PerFrame,
            SplitRule::Handles { head, tail } => Split::Handles { head: *head, tail: *tail },
            SplitRule::Overlap { frames, handles, ramp } => {
                Split::Overlap { frames: *frames, handles: *handles, ramp: *ramp }
            }
            SplitRule::Whole => Split::Whole,
            SplitRule::Interpolate { factor, .. } => {
                let (multiplier, step) = ratio(&value(factor))?;
                Split::Interpolate { multiplier, step }
            }
            SplitRule::Generate { frames, .. } => {
                Split::Generate { frames: frame_count(&value(frames), self.shape())? }
            }
        })
    }

    /// The passes that are made with these parameters, of which those not given have their defaults.
    pub fn passes_made(&self, parameters: &ParameterTexts) -> impl Iterator<Item = &Pass> {
        self.passes.iter().filter(|pass| pass.when.as_ref().is_none_or(|name| self.is_on(name, parameters)))
    }

    /// Whether colours of the pass come back multiplied by alpha whatever the format.
    pub fn is_multiplied(&self, pass: &Pass, parameters: &ParameterTexts) -> bool {
        pass.multiplied_when.as_ref().is_some_and(|name| self.is_on(name, parameters))
    }

    /// Whether a parameter is not off. One that does not fit is refused elsewhere.
    fn is_on(&self, name: &str, parameters: &ParameterTexts) -> bool {
        let Some(parameter) = self.parameters.get(name) else { return false };
        let text = parameters.get(name).cloned().unwrap_or_else(|| parameter.default_text());
        parameter.read(&self.workflow.title, name, &text).is_ok_and(|value| !parameter.is_off(&value))
    }

    /// How many frames one prompt may load.
    pub fn shape(&self) -> Shape {
        let load = self.clip.as_ref().map(|clip| clip.load);
        let max = match (&self.split, self.chunk.max_frames, load) {
            (_, given, Some(Load::Frames)) => u64::from(given.unwrap_or(MAX_NUMBERED).min(MAX_NUMBERED)),
            (SplitRule::Whole, _, _) | (_, None, Some(Load::Directory) | None) => u64::MAX,
            (_, Some(max), _) => u64::from(max.max(1)),
            (_, None, Some(Load::Image)) => u64::from(DEFAULT_MAX_CHUNK_FRAMES),
        };
        let or = |given: Option<u32>, default: u32| u64::from(given.unwrap_or(default));
        Shape {
            min: or(self.chunk.min_frames, 1),
            max,
            multiple: or(self.chunk.multiple, 1).max(1),
            plus: or(self.chunk.plus, 0),
        }
    }

    /// How the frames of a clip are handed to the node that loads them; `None` when it reads nothing that
    /// Hearth writes.
    pub fn staged(&self, clip: Encoding) -> Option<Encoding> {
        let ClipInput { formats, colour, .. } = self.clip.as_ref()?;
        if formats.contains(&clip.format) {
            return Some(Encoding { colour: colour.unwrap_or(clip.colour), ..clip })
                .filter(|staged| *staged == clip || clip.format.is_writable());
        }
        let mut writable = formats.iter().copied().filter(|format| format.is_writable());
        let format = writable.clone().find(|format| format.is_float() == clip.format.is_float());
        let format = format.or_else(|| writable.next())?;
        let usual = if clip.colour == ColourSpace::Data { clip.colour } else { format.usual_colour() };
        Some(Encoding { format, colour: colour.unwrap_or(usual) })
    }

    /// Whether what is below 0 or above 1 in the clip is cut off on its way through: by the format in which its frames
    /// are loaded, by the range of its nodes, or in every colour pass by the format in which it is saved. A logarithm keeps light in whole numbers.
    pub fn clips(&self, clip: Encoding) -> bool {
        let holds =
            |encoding: Encoding| encoding.format.is_float() || encoding.colour == ColourSpace::Acescct;
        let mut colour = self.passes.iter().map(|pass| self.saved(pass, Some(clip)));
        let mut colour = colour.by_ref().filter(|saved| saved.colour != ColourSpace::Data).peekable();
        // Depth, mattes and the like are not the clip's own numbers.
        colour.peek().is_some()
            && clip.format.is_float()
            && !(self.staged(clip).is_some_and(holds) && !self.cuts() && colour.any(holds))
    }

    /// Returns true if light of a clip of this encoding would be cut off, so that a view transform keeps it.
    pub fn takes_view(&self, clip: Encoding) -> bool {
        let is_light = clip.format.is_float() && clip.colour != ColourSpace::Data;
        is_light && (self.cuts() || self.clips(clip))
    }

    /// Returns true if frames are cut to 0 to 1 whatever their format.
    pub fn cuts(&self) -> bool {
        self.clip.as_ref().is_some_and(|clip| clip.range == Range::Unit)
    }

    /// Of a workflow that [clips](Self::clips), what does: for messages.
    pub fn clipped_by(&self, clip: Encoding) -> &'static str {
        if self.cuts() {
            return "values from 0 to 1";
        }
        let staged = self.staged(clip).unwrap_or(clip);
        let mut saved = self.passes.iter().map(|pass| self.saved(pass, Some(clip)));
        let of_pass = saved.find(|saved| saved.colour != ColourSpace::Data && !saved.format.is_float());
        let format = if staged.format.is_float() { of_pass.unwrap_or(staged).format } else { staged.format };
        format.name()
    }

    /// How the node that saves `pass` writes it, for a clip of this encoding; `None`: no clip comes in.
    pub fn saved(&self, pass: &Pass, clip: Option<Encoding>) -> Encoding {
        let loaded = clip.map(|clip| self.staged(clip).unwrap_or(clip).colour);
        let usual = || loaded.unwrap_or_else(|| pass.format.usual_colour());
        Encoding { format: pass.format, colour: pass.colour.unwrap_or_else(usual) }
    }

    /// How the pass comes back: colours in the clip's space, of a float clip as floats, of another as whole numbers;
    /// anything else as it was saved, unless the pass says otherwise.
    pub fn result(&self, pass: &Pass, clip: Option<Encoding>) -> Encoding {
        let saved = self.saved(pass, clip);
        let as_saved = Encoding { format: pass.result.unwrap_or(saved.format), ..saved };
        let Some(clip) = clip.filter(|_| saved.colour != ColourSpace::Data) else { return as_saved };
        let format = pass.result.unwrap_or(match (clip.format, saved.format.is_float()) {
            (PictureFormat::ExrHalf, _) | (PictureFormat::ExrFloat, false) => PictureFormat::ExrHalf,
            (PictureFormat::TiffFloat, false) => PictureFormat::TiffFloat,
            // What came in as whole numbers has nothing above 1 that could be lost.
            (format, true) if !format.is_float() => PictureFormat::Png16,
            _ => saved.format,
        });
        if let (Some(format), Some(colour)) = (pass.result, pass.colour) {
            return Encoding { format, colour };
        }
        // Eight or sixteen bits are too few for light.
        let fits = format.is_float() || !matches!(clip.colour, ColourSpace::Linear | ColourSpace::Acescg);
        Encoding { format, colour: if fits { clip.colour } else { saved.colour } }
    }
}

/// The number of frames to make, which the model must be able to.
fn frame_count(text: &str, shape: Shape) -> Result<u32, String> {
    let frames: u32 = text.trim().parse().map_err(|_| format!("'{text}' is no number of frames"))?;
    let made = shape.at_least(frames.into());
    if frames == 0 || made > shape.max {
        let most = shape.at_most(shape.max).unwrap_or(shape.max);
        return Err(format!("{frames} frames cannot be made in one go; ask for 1 to {most}"));
    }
    Ok(frames)
}

/// `5/2`, `2.5` or `2` as a whole multiplier and a step, in lowest terms.
fn ratio(text: &str) -> Result<(u32, u32), String> {
    const MOST: u64 = 64;
    let wrong =
        || format!("'{text}' is no factor; write it like 2, 2.5 or 5/2, more than 1 and at most {MOST}");
    let text = text.trim();
    let read = |text: &str| text.trim().parse::<u64>().ok();
    let parts = match (text.split_once('/'), text.split_once('.')) {
        (Some((top, bottom)), _) => read(top).zip(read(bottom)),
        (None, Some((whole, part))) if part.len() <= 3 => {
            read(&format!("{whole}{part}")).map(|top| (top, 10_u64.pow(part.len() as u32)))
        }
        _ => read(text).map(|top| (top, 1)),
    };
    let (mut top, mut bottom) = parts.ok_or_else(wrong)?;
    let (mut a, mut b) = (top, bottom);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    (top, bottom) = (top / a.max(1), bottom / a.max(1));
    if bottom == 0 || top <= bottom || top > MOST {
        return Err(wrong());
    }
    Ok((top as u32, bottom as u32))
}
