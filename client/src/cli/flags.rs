//! The command line of `hearth`.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use hearth_proto::v1::JobState;
use hearth_workflows::delivery::Curve;

use super::{
    batch::BatchCommand,
    chosen::{Chosen, state},
    preset::PresetCommand,
    workflow::WorkflowCommand,
};

/// Sends clips through ComfyUI workflows on every GPU of the farm.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Examples:
  hearth submit plates/sh010/plate.%04d.png -w resize-sharpen -o comps/sh010/v001 --watch
  hearth jobs
  hearth watch 12
  hearth nodes --json | jq '.[] | select(.state == \"offline\") | .name'

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the job failed, 4 the job was cancelled,
5 no coordinator answers, 6 the job is done but for frames that failed."
)]
pub(crate) struct Flags {
    /// The coordinator; of several, separated by commas, the one that leads is found
    #[arg(long, global = true, env = "HEARTH_COORDINATOR", default_value = "http://127.0.0.1:7400")]
    pub(crate) coordinator: String,
    /// Print JSON, one value a line, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Send traces there over OTLP, e.g. http://localhost:4317
    #[arg(long, global = true, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide = true)]
    pub(crate) otlp_endpoint: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit a clip
    Submit(Box<Submit>),
    /// Several clips as one: submit, show, watch, pause, resume, cancel, retry
    Batch {
        #[command(subcommand)]
        command: BatchCommand,
    },
    /// Parameter values to keep: save, list, show, diff, restore, favourite, export, import, delete
    Preset {
        #[command(subcommand)]
        command: PresetCommand,
    },
    /// List jobs, newest first
    Jobs {
        /// Ended ones too
        #[arg(long, short)]
        all: bool,
        /// Only of this show
        #[arg(long, default_value = "", hide_default_value = true)]
        show: String,
        /// Only of this user
        #[arg(long, default_value = "", hide_default_value = true)]
        user: String,
        /// Only in these states, e.g. failed,partial; ended ones too
        #[arg(long, value_delimiter = ',', value_parser = state)]
        state: Vec<JobState>,
        /// Only those in whose name, clip, output or workflow this stands
        #[arg(long, default_value = "", hide_default_value = true)]
        text: String,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show one job with its chunks and failures
    Job {
        job: u64,
        /// Show small pictures of its finished frames instead
        #[arg(long)]
        open: bool,
    },
    /// Say why a job is not running, or how it does
    Why { job: u64 },
    /// Follow a job to its end
    Watch { job: u64 },
    /// Hand out no new chunk of jobs; running ones go on
    Pause(Chosen),
    /// Go on with paused jobs
    Resume(Chosen),
    /// Stop jobs. What they have rendered is kept for a day, unless the coordinator says otherwise, in which hearth retry
    /// goes on
    #[command(after_help = "Examples:
  hearth cancel 3 5 7
  hearth cancel --remove 3
  hearth cancel --show dune --state waiting,paused")]
    Cancel {
        #[command(flatten)]
        jobs: Chosen,
        /// Remove what they have rendered at once, also of jobs that have been cancelled already
        #[arg(long)]
        remove: bool,
    },
    /// Try the failed frames of jobs again, or go on with cancelled ones
    Retry(Chosen),
    /// Render some frames of a finished job again; they are replaced, and the others stay
    #[command(after_help = "Examples:
  hearth redo 12 -f 1010-1012
  hearth redo 12 -f 1010-1012 -p denoise=0.3 --watch")]
    Redo(Redo),
    /// Change jobs that were submitted: priority, pool, deadline, limits, frames
    #[command(after_help = "Examples:
  hearth edit 12 --deadline 18:00 --priority 80
  hearth edit 12 --frames 1001-1050
  hearth edit 3 5 --pool a100 --limit none
  hearth edit --show dune --state waiting --max-nodes 4")]
    Edit(Box<Edit>),
    /// Change a job's priority
    Priority {
        job: u64,
        /// 0 (whenever) to 100 (first)
        priority: u32,
    },
    /// Encode a finished sequence: movies, proxies, a contact sheet
    Deliver(Box<Deliver>),
    /// List the sequences in a folder of the farm's storage
    Clips {
        /// E.g. plates/sh010; a root's name lists the root
        folder: String,
    },
    /// List nodes, or look what they offer by now
    Nodes {
        #[command(subcommand)]
        command: Option<NodesCommand>,
    },
    /// Give a node no new work; what it holds goes on
    Drain { node: String },
    /// Give a drained node work again
    Undrain { node: String },
    /// The farm's workflows: list, show; and new ones: import, check
    #[command(alias = "workflows")]
    Workflow {
        #[command(subcommand)]
        command: Option<WorkflowCommand>,
    },
    /// Look after the farm's store: check, export, import, recover (runs hearth-coordinator)
    #[command(disable_help_flag = true)]
    Farm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Print completions for a shell
    Completions { shell: Shell },
}

#[derive(Debug, Args)]
pub(crate) struct Redo {
    /// Number of the job
    pub(crate) job: u64,
    /// Frames of it, e.g. 1010-1012
    #[arg(long, short)]
    pub(crate) frames: String,
    /// A parameter with another value, as name=value; can be given several times
    #[arg(long = "param", short)]
    pub(crate) parameters: Vec<String>,
    /// Who it is for
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    pub(crate) user: String,
    /// 0 (whenever) to 100 (first) [default: that of the job]
    #[arg(long)]
    pub(crate) priority: Option<u32>,
    /// Follow the job to its end
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodesCommand {
    /// Ask ComfyUIs at once which node classes, models and LUTs they have; otherwise it is done every minute
    Refresh {
        /// Only that of this node
        node: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Edit {
    #[command(flatten)]
    pub(crate) jobs: Chosen,
    #[command(flatten)]
    pub(crate) change: EditFlags,
}

/// What is changed. Chunks that run go on as they are.
#[derive(Debug, Args)]
pub(crate) struct EditFlags {
    /// 0 (whenever) to 100 (first)
    #[arg(long)]
    pub(crate) priority: Option<u32>,
    /// Only nodes of this pool; an empty one is any node
    #[arg(long)]
    pub(crate) pool: Option<String>,
    /// When it must be done: +8h, 18:00, 2026-11-23 18:00; none takes the deadline away
    #[arg(long)]
    pub(crate) deadline: Option<String>,
    /// While it has fewer nodes, it goes before all others of its show
    #[arg(long)]
    pub(crate) min_nodes: Option<u32>,
    /// Never more nodes at a time; 0 is no limit
    #[arg(long)]
    pub(crate) max_nodes: Option<u32>,
    /// What each node at it uses of what the farm has only so much of, beside what its workflow needs; can be given several
    /// times; none takes them away
    #[arg(long = "limit", value_name = "NAME")]
    pub(crate) limits: Vec<String>,
    /// Frames that go first
    #[arg(long)]
    pub(crate) first_frames: Option<String>,
    /// The frames to make, of those that the clip had when the job was submitted
    #[arg(long, short)]
    pub(crate) frames: Option<String>,
    /// Its pool and limits may be ones that the farm does not have yet
    #[arg(long)]
    pub(crate) anyway: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hearth submit plates/sh010/plate.%04d.png -w temporal-smooth -p strength=0.4 -o comps/sh010/v001 --watch
  hearth submit plates/sh010/plate.####.png -w ./my-workflow -f 1001-1050,1080 -o comps/sh010/v### --priority 80
  hearth submit plates/sh010/plate.%04d.exr -w temporal-smooth -o comps/sh010/v### --deliver h264 --deliver contact-sheet
  hearth submit --clip-of 12 -w resize-sharpen -o comps/sh010/sharp_v###
  hearth submit plates/sh010/plate.%04d.exr -w film-look --wedge look=noir,kodak-vision3 --wedge grain=0.2,0.4 -o comps/sh010/wedge_v###
  hearth submit plates/sh010/plate.%04d.exr -w chroma-key --preset hair -o comps/sh010/key_v### --dry-run
  hearth submit --again /mnt/comps/sh010/v001 -p strength=0.6 -o comps/sh010/v###

Clip and output are named by storage root. With HEARTH_ROOTS set, absolute paths do as well.")]
pub(crate) struct Submit {
    /// The clip: plates/sh010/plate.%04d.png, or with #### or [1001-1100] for the frame. None for a workflow that
    /// makes its frames out of nothing
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) clip: String,
    /// Instead of a clip: what job JOB makes, frame by frame as it makes it; of several passes, PASS
    #[arg(long, value_name = "JOB[:PASS]", conflicts_with = "clip")]
    pub(crate) clip_of: Option<String>,
    /// Wait until these jobs are done
    #[arg(long, value_name = "JOB", value_delimiter = ',')]
    pub(crate) after: Vec<u64>,
    /// A workflow of the farm's library, or a folder with hearth.toml and graph.json
    #[arg(long, short, required_unless_present_any = ["again", "preset"], default_value = "", hide_default_value = true)]
    pub(crate) workflow: String,
    /// Submit what made a finished sequence once more: its folder, or the manifest.json in it. Other flags change
    /// what they name
    #[arg(long, value_name = "FOLDER", conflicts_with = "preset")]
    pub(crate) again: Option<PathBuf>,
    /// Where the finished sequence appears: a folder that does not exist yet. Hashes in its name stand for the
    /// number of the next version: comps/sh010/v###
    #[arg(long, short)]
    pub(crate) output: String,
    /// Parameter values that belong together: your preset of that name, or the show's, or one that ships with the
    /// workflow; user:NAME and show:NAME say which, NAME@3 is its third version
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) preset: String,
    /// A parameter of the workflow, as name=value; can be given several times; goes before the preset
    #[arg(long = "param", short)]
    pub(crate) parameters: Vec<String>,
    /// Which frames, e.g. 1001-1100, 1-10x2 or 1,5,9-12 [default: the whole clip]
    #[arg(long, short, default_value = "", hide_default_value = true)]
    pub(crate) frames: String,
    /// Name shown to people [default: the clip's]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    /// The show it is for
    #[arg(long, env = "HEARTH_SHOW", default_value = "", hide_default_value = true)]
    pub(crate) show: String,
    /// Who it is for
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    pub(crate) user: String,
    /// 0 (whenever) to 100 (first)
    #[arg(long)]
    pub(crate) priority: Option<u32>,
    /// Before everything that is not urgent, whoever's it is
    #[arg(long)]
    pub(crate) urgent: bool,
    /// When it must be done: in hours or minutes (+8h, +90m), or by your own clock (18:00, 2026-11-23, 2026-11-23 18:00).
    /// The farm warns when it will be late
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) deadline: String,
    /// While it has fewer nodes, it goes before all others of its show
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) min_nodes: u32,
    /// Never more nodes at a time
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) max_nodes: u32,
    /// What each node at it uses of what the farm has only so much of, e.g. a licence; can be given several times
    #[arg(long = "limit", value_name = "NAME")]
    pub(crate) limits: Vec<String>,
    /// Frames that go first, e.g. 1001,1050,1100
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) first_frames: String,
    /// The first, the middle and the last frame go first
    #[arg(long)]
    pub(crate) early_look: bool,
    /// Only nodes of this pool; of all of several as comp+a100, of none as !desktop
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) pool: String,
    /// Its pool and limits may be ones that the farm does not have yet
    #[arg(long)]
    pub(crate) anyway: bool,
    /// What the clip's numbers are: linear, srgb, rec709, acescg, acescct or data [default: linear in float
    /// files, srgb in all others]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) colour_space: String,
    /// Frames in a chunk [default: what keeps a node busy for half a minute]
    #[arg(long, default_value_t = 0)]
    pub(crate) chunk_frames: u32,
    /// What to deliver when the sequence is done, as FORMAT[:PASS][=OUTPUT]; can be given several times. Formats:
    /// prores-4444, prores-422-hq, h264, png-proxy, contact-sheet
    #[arg(long = "deliver", value_name = "FORMAT")]
    pub(crate) deliveries: Vec<String>,
    /// Without what the workflow usually delivers
    #[arg(long, conflicts_with = "deliveries")]
    pub(crate) no_deliver: bool,
    /// So many takes with different seeds, of a workflow that makes its frames out of nothing
    #[arg(long, default_value_t = 1)]
    pub(crate) takes: u32,
    /// Try values of a parameter beside each other, as name=value,value,value: a take for each, and a labelled contact
    /// sheet of all. Given several times: every combination
    #[arg(long = "wedge", value_name = "NAME=VALUES", conflicts_with = "takes")]
    pub(crate) wedges: Vec<String>,
    /// Replace a sequence of Hearth's that lies at the output already
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// What the clip holds below 0 and above 1 may be cut off, where the workflow works on fewer bits or on values from 0
    /// to 1
    #[arg(long)]
    pub(crate) allow_clipping: bool,
    /// How the light of a float clip is brought between 0 and 1 for a workflow that cuts off the rest, and had back in
    /// its results: white=16,exposure=-1 (a curve brings 16 to 1, after the
    /// light was halved), or none
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) view: String,
    /// Submit nothing: say what is wrong, which nodes could run it and what the others lack, and what it would cost
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Your own id of this submission: sent twice, it makes one job
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) request_id: String,
    /// This host's storage roots, to understand absolute paths
    #[arg(long, env = "HEARTH_ROOTS", default_value = "", hide_default_value = true)]
    pub(crate) roots: String,
    /// Follow the job to its end
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hearth deliver 12 --as h264 --as prores-4444:matte=delivery/sh010_matte.mov
  hearth deliver comps/sh010/v003/plate.%04d.exr --as prores-422-hq --rate 25 --watch

Each delivery is a job of its own, beside the sequence unless an output is named: comps/sh010/v003_h264.mp4.
h264 has time code, frame and text burnt in; the time code is the file's, or the frame's number.")]
pub(crate) struct Deliver {
    /// Number of the job whose sequence it is, or a clip: comps/sh010/v003/plate.%04d.exr
    pub(crate) source: String,
    /// What to make, as FORMAT[:PASS][=OUTPUT]; can be given several times. Formats: prores-4444, prores-422-hq,
    /// h264, png-proxy, contact-sheet
    #[arg(long = "as", value_name = "FORMAT", required = true)]
    pub(crate) formats: Vec<String>,
    /// Text burnt into h264 [default: show, name and version]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) text: String,
    /// Frames a second, e.g. 25 or 24000/1001 [default: what the files say, or 24]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) rate: String,
    /// The curve that colours get: srgb or rec709 [default: light that of sRGB, what has one of them keeps it]
    #[arg(long)]
    pub(crate) curve: Option<Curve>,
    /// Which frames of a clip [default: all that are there]
    #[arg(long, short, default_value = "", hide_default_value = true)]
    pub(crate) frames: String,
    /// What a clip's numbers are [default: linear in float files, srgb in all others]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) colour_space: String,
    /// The show it is for
    #[arg(long, env = "HEARTH_SHOW", default_value = "", hide_default_value = true)]
    pub(crate) show: String,
    /// Who it is for
    #[arg(long, env = "USER", default_value = "", hide_default_value = true)]
    pub(crate) user: String,
    /// 0 (whenever) to 100 (first)
    #[arg(long)]
    pub(crate) priority: Option<u32>,
    /// Replace what lies at the output already
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// This host's storage roots, to understand absolute paths
    #[arg(long, env = "HEARTH_ROOTS", default_value = "", hide_default_value = true)]
    pub(crate) roots: String,
    /// Follow the deliveries to their end
    #[arg(long)]
    pub(crate) watch: bool,
}

impl Submit {
    /// The workflow's folder, if one is meant and not a name.
    pub(crate) fn workflow_folder(&self) -> Option<PathBuf> {
        workflow_folder(&self.workflow, Path::new(""))
    }
}

/// The folder that a workflow is named by, where it is no name of the farm's library; relative to `base`.
pub(crate) fn workflow_folder(name: &str, base: &Path) -> Option<PathBuf> {
    let path = base.join(name);
    // Nothing names nothing, although the base is a folder.
    let named = !name.is_empty();
    (named && (name.contains('/') || path.join(hearth_workflows::library::MANIFEST_FILE).is_file()))
        .then_some(path)
}
