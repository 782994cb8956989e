//! What would become of a submission, and why it would not be taken. Submits nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use hearth_proto::v1;
use hearth_workflows::{View, WorkflowId, parameters::ParameterTexts};
use tokio::time::{Duration, Instant};
use tonic::Status;

use super::{
    clients::{FarmService, invalid, no_storage, status},
    questions::ASKED,
};
use crate::{
    driver::DriverError,
    farm::{Forecast, Lack, NodeName, Submission, Submitted},
    submission::{self, Room},
};

/// How long the nodes' own ComfyUIs are asked about one batch; jobs for which there was no time are told by what the
/// farm knows.
const PATIENCE: Duration = Duration::from_secs(30);

/// Names of nodes that fare alike, and kinds of faring, in one answer: a batch has up to a thousand of them.
const NAMES: usize = 16;
const KINDS: usize = 50;

/// What nodes were asked already, and said. Jobs of one batch are often alike.
#[derive(Debug)]
struct Asked {
    told: BTreeMap<(WorkflowId, Vec<ParameterTexts>, BTreeSet<NodeName>), BTreeMap<NodeName, Vec<String>>>,
    until: Instant,
}

impl Asked {
    fn new() -> Self {
        Self { told: BTreeMap::new(), until: Instant::now() + PATIENCE }
    }
}

impl FarmService {
    /// Everything about a job but the job.
    pub(super) async fn preflight(
        &self,
        request: v1::SubmitJobRequest,
    ) -> Result<v1::CheckJobResponse, Status> {
        // What nodes can run only the leader knows.
        self.leads()?;
        let given = Given::of(&request);
        let warnings = self.of_show(request.show.clone()).await?;
        let checked = self.check(request).await?;
        self.may_take(checked.jobs.clone()).await?;
        let mut told = self.foresee(checked, given, &mut Asked::new()).await?;
        told.warnings.extend(warnings);
        Ok(told)
    }

    /// The same of a batch, which is refused as a whole.
    pub(super) async fn preflight_all(
        &self,
        jobs: Vec<v1::SubmitJobRequest>,
    ) -> Result<v1::CheckBatchResponse, Status> {
        self.leads()?;
        let given: Vec<Given> = jobs.iter().map(Given::of).collect();
        let checked = self.check_all(jobs).await?;
        self.may_take(Submission::together(checked.iter().cloned()).jobs).await?;
        let mut response = v1::CheckBatchResponse::default();
        let mut asked = Asked::new();
        for (submission, given) in checked.into_iter().zip(given) {
            response.jobs.push(self.foresee(submission, given, &mut asked).await?);
        }
        Ok(response)
    }

    /// Whether the farm would have it as it stands: free outputs, jobs to wait for that are there, room for more.
    async fn may_take(&self, jobs: Vec<Submitted>) -> Result<(), Status> {
        let read = self.driver.read(move |farm| farm.may_take(&jobs));
        read.await.map_err(status)?.map_err(|refusal| status(DriverError::Refused(refusal)))
    }

    async fn foresee(
        &self,
        submission: Submission,
        given: Given,
        asked: &mut Asked,
    ) -> Result<v1::CheckJobResponse, Status> {
        let Some(first) = submission.jobs.first().cloned() else {
            return Err(Status::internal("a submission without a job"));
        };
        let all = submission.clone();
        let forecast = self.driver.read(move |farm| farm.forecast(&all)).await.map_err(status)?;
        let answers = self.ask(&submission, &forecast, asked).await;
        let roots = self.roots.clone();
        let root = first.spec.output.root().to_owned();
        let room = self.calls.run([root], move || submission::room(&submission, given.frames, &roots)).await;
        let room = room.map_err(|error| no_storage(&error))?;
        let room = room.map_err(|error| invalid(&error))?;
        Ok(message(&first, &forecast, &answers, &room, given.colour))
    }

    /// What the names of classes and models say nothing about: ranges, lists, inputs.
    async fn ask(&self, submission: &Submission, forecast: &Forecast, asked: &mut Asked) -> Answers {
        let workflow = submission.jobs.iter().find_map(|job| job.workflow.clone());
        let mut able: Vec<_> = forecast.nodes.iter().filter(|fit| fit.lacks.is_empty()).collect();
        // One of every kind goes first.
        let mut kinds = HashSet::new();
        able.sort_by_cached_key(|fit| !kinds.insert(&fit.device));
        let able: BTreeSet<NodeName> = able.iter().take(ASKED).map(|fit| fit.node.clone()).collect();
        let meant = able.len();
        let Some(workflow) = workflow.filter(|_| meant > 0) else {
            return Answers { told: BTreeMap::new(), meant: 0 };
        };
        let renders = submission.jobs.iter().filter_map(|job| job.spec.render());
        let settings: BTreeSet<ParameterTexts> = renders.map(|render| render.parameters.clone()).collect();
        let settings: Vec<ParameterTexts> = settings.into_iter().collect();
        let question = (workflow.id().clone(), settings.clone(), able.clone());
        if let Some(told) = asked.told.get(&question) {
            return Answers { told: told.clone(), meant };
        }
        if Instant::now() >= asked.until {
            return Answers { told: BTreeMap::new(), meant };
        }
        let told = self.questions.ask(able, workflow, settings).await;
        asked.told.insert(question, told.clone());
        Answers { told, meant }
    }
}

/// What nodes' own ComfyUIs would not take.
#[derive(Debug)]
struct Answers {
    told: BTreeMap<NodeName, Vec<String>>,
    /// Nodes that were to be asked.
    meant: usize,
}

/// What the request itself says.
#[derive(Debug, Clone, Copy)]
struct Given {
    colour: bool,
    frames: bool,
}

impl Given {
    fn of(request: &v1::SubmitJobRequest) -> Self {
        Self {
            // What another job makes says so itself.
            colour: !request.colour_space.is_empty() || request.clip_of.is_some(),
            frames: submission::names_frames(request),
        }
    }
}

/// What a job that was not submitted would be, in the contract's words.
fn message(
    job: &Submitted,
    forecast: &Forecast,
    answers: &Answers,
    room: &Room,
    colour_given: bool,
) -> v1::CheckJobResponse {
    let workflow = job.workflow.as_deref();
    let package_of = |class: &str| {
        let packages = &workflow?.manifest().needs.packages;
        packages
            .iter()
            .find(|(_, classes)| classes.iter().any(|one| one == class))
            .map(|(package, _)| package)
    };
    let told = |lack: &Lack| match lack {
        Lack::Class(class) => match package_of(class) {
            Some(package) => format!("{lack}; it comes with {package}"),
            None => lack.to_string(),
        },
        lack => lack.to_string(),
    };
    let mut alike: BTreeMap<Vec<String>, v1::NodeFit> = BTreeMap::new();
    for fit in &forecast.nodes {
        let lacks = match answers.told.get(&fit.node) {
            Some(wrong) => wrong.clone(),
            None => fit.lacks.iter().map(told).collect(),
        };
        let kind = alike
            .entry(lacks)
            .or_insert_with_key(|lacks| v1::NodeFit { lacks: lacks.clone(), ..v1::NodeFit::default() });
        kind.count += 1;
        if kind.nodes.len() < NAMES {
            kind.nodes.push(fit.node.to_string());
        }
    }
    let mut nodes: Vec<v1::NodeFit> = alike.into_values().collect();
    nodes.sort_by_key(|fit| (!fit.lacks.is_empty(), std::cmp::Reverse(fit.count)));
    nodes.truncate(KINDS);
    let mut warnings = Vec::new();
    if nodes.iter().all(|fit| !fit.lacks.is_empty()) {
        let for_each = forecast.runs && answers.meant == 0;
        warnings.push(match forecast.nodes.len() {
            0 => "no node of its pool is connected; it would wait for one".to_owned(),
            _ if for_each => "no node can run all of the takes, but each can run on some node".to_owned(),
            1 => "the only node cannot run it; it would wait for one that can".to_owned(),
            count => format!("none of {count} nodes can run it; it would wait for one that can"),
        });
    }
    let silent = answers.meant.saturating_sub(answers.told.len());
    if silent > 0 {
        warnings.push(format!(
            "{silent} of {} ComfyUIs that were to be asked did not say in time whether they take it; \
             look at this job alone, or at what they are busy with",
            answers.meant
        ));
    }
    let clip = job.spec.render().and_then(|render| render.clip.as_ref());
    if let Some(clip) = clip.filter(|_| !colour_given) {
        let colour = clip.encoding.colour;
        warnings.push(format!("the clip's colour space is not said: taken for {colour}"));
    }
    if let (Some(clip), Some(workflow)) = (clip, workflow) {
        let manifest = workflow.manifest();
        let staged = manifest.staged(clip.encoding).unwrap_or(clip.encoding).format;
        let (from, to) = (clip.encoding.format, staged);
        if manifest.clips(clip.encoding) {
            let by = manifest.clipped_by(clip.encoding);
            let top = clip.view.map_or(1.0, View::brightest);
            warnings.push(format!("what is below 0 and above {top} is cut off: it works on {by}"));
        } else if to.bits() < from.bits() && !(from.is_float() && to.is_float()) {
            warnings.push(format!(
                "it works on {}: of {} bits, {} are kept",
                to.name(),
                from.bits(),
                to.bits()
            ));
        }
    }
    warnings.extend(room.replaces.iter().cloned());
    if !room.is_writable {
        warnings
            .push("the coordinator cannot write to the output's folder; see that the agents can".to_owned());
    }
    if let Some(free) = room.free.filter(|free| room.needed > *free) {
        warnings.push(format!(
            "the output may not fit: about {:.1} GB before compression, {:.1} GB free",
            room.needed as f64 / 1e9,
            free as f64 / 1e9
        ));
    }
    v1::CheckJobResponse {
        jobs: room.jobs.clone(),
        nodes,
        node_count: forecast.nodes.len() as u32,
        nodes_elsewhere: forecast.elsewhere as u32,
        warnings,
        cost: forecast.cost.map(|cost| v1::JobCost {
            gpu_seconds: cost.gpu_seconds,
            chunks: cost.chunks,
            earliest_seconds: cost.seconds.map(|(earliest, _)| earliest),
            latest_seconds: cost.seconds.map(|(_, latest)| latest),
        }),
        output_bytes: room.needed,
        free_bytes: room.free,
    }
}
