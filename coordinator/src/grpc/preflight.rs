//! What would become of a submission, and why it would not be taken. Submits nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use hearth_proto::v1;
use hearth_workflows::{WorkflowId, parameters::ParameterTexts};
use tokio::time::{Duration, Instant};
use tonic::Status;

use super::{
    clients::{FarmService, invalid, status},
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
        self.driver.refusal().map_or(Ok(()), |error| Err(status(error)))?;
        let colour_given = says_colour(&request);
        let checked = self.check(request).await?;
        self.may_take(&checked).await?;
        self.foresee(checked, colour_given, &mut Asked::new()).await
    }

    /// The same of a batch, which is refused as a whole.
    pub(super) async fn preflight_all(
        &self,
        jobs: Vec<v1::SubmitJobRequest>,
    ) -> Result<v1::CheckBatchResponse, Status> {
        self.driver.refusal().map_or(Ok(()), |error| Err(status(error)))?;
        let colours: Vec<bool> = jobs.iter().map(says_colour).collect();
        let checked = self.check_all(jobs).await?;
        self.may_take(&Submission::together(checked.iter().cloned())).await?;
        let mut response = v1::CheckBatchResponse::default();
        let mut asked = Asked::new();
        for (submission, colour_given) in checked.into_iter().zip(colours) {
            response.jobs.push(self.foresee(submission, colour_given, &mut asked).await?);
        }
        Ok(response)
    }

    /// Whether the farm would have it as it stands: free outputs, jobs to wait for that are there, room for more.
    async fn may_take(&self, submission: &Submission) -> Result<(), Status> {
        let jobs = submission.jobs.clone();
        let read = self.driver.read(move |farm| farm.may_take(&jobs));
        read.await.map_err(status)?.map_err(|refusal| status(DriverError::Refused(refusal)))
    }

    async fn foresee(
        &self,
        submission: Submission,
        colour_given: bool,
        asked: &mut Asked,
    ) -> Result<v1::CheckJobResponse, Status> {
        let Some(first) = submission.jobs.first().cloned() else {
            return Err(Status::internal("a submission without a job"));
        };
        let all = submission.clone();
        let forecast = self.driver.read(move |farm| farm.forecast(&all)).await.map_err(status)?;
        let refusals = self.ask(&submission, &forecast, asked).await;
        let roots = self.roots.clone();
        let room = tokio::task::spawn_blocking(move || submission::room(&submission, &roots)).await;
        let room = room.map_err(|_| Status::internal("storage could not be looked at"))?;
        let room = room.map_err(|error| invalid(&error))?;
        Ok(message(&first, &forecast, &refusals, &room, colour_given))
    }

    /// What the names of classes and models say nothing about: ranges, lists, inputs.
    async fn ask(
        &self,
        submission: &Submission,
        forecast: &Forecast,
        asked: &mut Asked,
    ) -> BTreeMap<NodeName, Vec<String>> {
        let renders: Vec<_> = submission.jobs.iter().filter_map(|job| job.spec.render()).collect();
        let workflow = submission.jobs.iter().find_map(|job| job.workflow.clone());
        let mut able: Vec<_> = forecast.nodes.iter().filter(|fit| fit.lacks.is_empty()).collect();
        // One of every kind goes first.
        let mut kinds = HashSet::new();
        able.sort_by_cached_key(|fit| !kinds.insert(&fit.device));
        let able: BTreeSet<NodeName> = able.iter().take(ASKED).map(|fit| fit.node.clone()).collect();
        let Some(workflow) = workflow.filter(|_| !able.is_empty() && Instant::now() < asked.until) else {
            return BTreeMap::new();
        };
        let settings: BTreeSet<ParameterTexts> =
            renders.iter().map(|render| render.parameters.clone()).collect();
        let settings: Vec<ParameterTexts> = settings.into_iter().collect();
        let question = (workflow.id().clone(), settings.clone(), able.clone());
        if let Some(told) = asked.told.get(&question) {
            return told.clone();
        }
        let told = self.questions.ask(able, workflow, settings).await;
        asked.told.insert(question, told.clone());
        told
    }
}

/// What another job makes says so itself.
fn says_colour(request: &v1::SubmitJobRequest) -> bool {
    !request.colour_space.is_empty() || request.clip_of.is_some()
}

/// What a job that was not submitted would be, in the contract's words.
fn message(
    job: &Submitted,
    forecast: &Forecast,
    refusals: &BTreeMap<NodeName, Vec<String>>,
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
    let nodes: Vec<v1::NodeFit> = forecast
        .nodes
        .iter()
        .map(|fit| v1::NodeFit {
            node: fit.node.to_string(),
            lacks: match refusals.get(&fit.node) {
                Some(wrong) => wrong.clone(),
                None => fit.lacks.iter().map(told).collect(),
            },
        })
        .collect();
    let mut warnings = Vec::new();
    if nodes.iter().all(|fit| !fit.lacks.is_empty()) {
        warnings.push(match nodes.len() {
            0 => "no node of its pool is connected; it would wait for one".to_owned(),
            1 => "the only node cannot run it; it would wait for one that can".to_owned(),
            count => format!("none of {count} nodes can run it; it would wait for one that can"),
        });
    }
    let clip = job.spec.render().and_then(|render| render.clip.as_ref());
    if let Some(clip) = clip.filter(|_| !colour_given) {
        let colour = clip.encoding.colour;
        warnings.push(format!("the clip's colour space is not said: taken for {colour}"));
    }
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
