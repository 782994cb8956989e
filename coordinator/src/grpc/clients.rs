//! The `Farm` service: what artists, scripts and supervisors ask for.

use std::{path::PathBuf, pin::Pin, sync::Arc};

use hearth_proto::{trace, v1};
use hearth_storage::{CallError, Calls, Roots};
use hearth_telemetry::chain;
use hearth_workflows::library::Library;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span, info_span};

use super::{
    MESSAGE,
    agents::Previews,
    convert, media, presets,
    questions::Questions,
    shortened, unavailable,
    watch::{self, MOST_WATCHERS, WATCH_QUEUE},
};
use crate::{
    driver::{Driver, DriverError},
    farm::{Command, FarmTag, JobFilter, JobId, JobView, NodeName, Priority, Refusal},
    submission::SubmissionError,
};

/// Jobs listed when no limit is given.
const DEFAULT_LIMIT: u32 = 100;

/// Jobs listed at most.
const MAX_LIMIT: u32 = 1_000;

/// The service.
#[derive(Debug, Clone)]
pub struct FarmService {
    pub driver: Driver,
    pub roots: Arc<Roots>,
    pub calls: Calls,
    pub folders: Arc<Vec<PathBuf>>,
    pub previews: Previews,
    pub questions: Questions,
    /// Places for those who watch jobs.
    pub watchers: Arc<Semaphore>,
}

#[tonic::async_trait]
impl v1::farm_server::Farm for FarmService {
    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        let span = info_span!("submit", clip = %request.get_ref().clip, "otel.kind" = "server");
        trace::set_parent(&span, &trace::extract(request.metadata()));
        served(&span, self.submit(request.into_inner()).instrument(span.clone()).await)
    }

    async fn list_presets(
        &self,
        request: Request<v1::ListPresetsRequest>,
    ) -> Result<Response<v1::ListPresetsResponse>, Status> {
        // Who saves one and looks again must find it: the leader has it at once.
        self.leads()?;
        let request = request.into_inner();
        let read = self.driver.read(move |farm| presets::list(farm.presets(), &request));
        read.await.map_err(status).map(Response::new)
    }

    async fn get_preset(
        &self,
        request: Request<v1::GetPresetRequest>,
    ) -> Result<Response<v1::GetPresetResponse>, Status> {
        self.leads()?;
        let id = presets::id(request.get_ref().name.as_ref()).map_err(|error| invalid(&error))?;
        let unknown = Refusal::NoSuchPreset(id.to_string());
        let read =
            self.driver.read(move |farm| farm.presets().get(&id).map(|preset| presets::message(&id, preset)));
        let preset = read.await.map_err(status)?.ok_or_else(|| status(DriverError::Refused(unknown)))?;
        Ok(Response::new(v1::GetPresetResponse { preset: Some(preset) }))
    }

    async fn change_preset(
        &self,
        request: Request<v1::ChangePresetRequest>,
    ) -> Result<Response<v1::ChangePresetResponse>, Status> {
        self.change_preset(request.into_inner()).await.map(Response::new)
    }

    async fn check_job(
        &self,
        request: Request<v1::CheckJobRequest>,
    ) -> Result<Response<v1::CheckJobResponse>, Status> {
        let job = request.into_inner().job;
        self.preflight(job.ok_or_else(|| Status::invalid_argument("no job given"))?).await.map(Response::new)
    }

    async fn check_batch(
        &self,
        request: Request<v1::CheckBatchRequest>,
    ) -> Result<Response<v1::CheckBatchResponse>, Status> {
        self.preflight_all(request.into_inner().jobs).await.map(Response::new)
    }

    async fn submit_batch(
        &self,
        request: Request<v1::SubmitBatchRequest>,
    ) -> Result<Response<v1::SubmitBatchResponse>, Status> {
        let span = info_span!("submit", jobs = request.get_ref().jobs.len(), "otel.kind" = "server");
        trace::set_parent(&span, &trace::extract(request.metadata()));
        served(&span, self.submit_all(request.into_inner()).instrument(span.clone()).await)
    }

    async fn get_batch(
        &self,
        request: Request<v1::GetBatchRequest>,
    ) -> Result<Response<v1::GetBatchResponse>, Status> {
        self.leads()?;
        let jobs = self.known_batch(JobId(request.get_ref().batch)).await?;
        Ok(Response::new(v1::GetBatchResponse { jobs }))
    }

    async fn control_batch(
        &self,
        request: Request<v1::ControlBatchRequest>,
    ) -> Result<Response<v1::ControlBatchResponse>, Status> {
        use v1::control_batch_request::Action;
        let v1::ControlBatchRequest { batch, action } = request.into_inner();
        let id = JobId(batch);
        let jobs = match action {
            Some(Action::Pause(_)) => self.control_all(id, Command::Pause).await,
            Some(Action::Resume(_)) => self.control_all(id, Command::Resume).await,
            Some(Action::Cancel(v1::Cancel { remove: true })) => self.control_all(id, Command::Remove).await,
            Some(Action::Cancel(_)) => self.control_all(id, Command::Cancel).await,
            Some(Action::Retry(_)) => self.retry_all(id).await,
            Some(Action::SetPriority(v1::SetPriority { priority })) => {
                let priority = priority_from(priority)?;
                self.control_all(id, |job| Command::SetPriority(job, priority)).await
            }
            None => Err(Status::invalid_argument("no action given")),
        };
        Ok(Response::new(v1::ControlBatchResponse { jobs: jobs? }))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        // A follower knows neither progress nor speeds, and what was changed a moment ago only a moment later.
        self.leads()?;
        let request = request.into_inner();
        let states = request.states().filter_map(convert::job_state_from).collect();
        let v1::ListJobsRequest { limit, show, user, active_only, text, .. } = request;
        let limit = if limit == 0 { DEFAULT_LIMIT } else { limit.min(MAX_LIMIT) };
        let filter =
            JobFilter { show, user, active_only, states, text: text.to_lowercase(), limit: limit as usize };
        let read = self.driver.read(move |farm| (farm.tag().clone(), farm.jobs(&filter)));
        let (tag, (jobs, total)) = read.await.map_err(status)?;
        let jobs = jobs.into_iter().map(|view| convert::job(&tag, view)).collect();
        Ok(Response::new(v1::ListJobsResponse { jobs, total: total as u64 }))
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        self.leads()?;
        let job = self.job(JobId(request.get_ref().job_id)).await?;
        Ok(Response::new(v1::GetJobResponse { job: Some(job) }))
    }

    type WatchJobStream = Pin<Box<dyn Stream<Item = Result<v1::WatchJobResponse, Status>> + Send>>;

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let request = request.into_inner();
        self.leads()?;
        // A job that is not there is told at once, not in the stream.
        self.job(JobId(request.job_id)).await?;
        let Ok(place) = self.watchers.clone().try_acquire_owned() else {
            let told =
                format!("{MOST_WATCHERS} watch already; look again in a moment, or ask for the job instead");
            return Err(Status::resource_exhausted(told));
        };
        let (sender, receiver) = mpsc::channel(WATCH_QUEUE);
        let told = watch::tell(self.clone(), request, sender);
        tokio::spawn(async move {
            told.await;
            drop(place);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn control_job(
        &self,
        request: Request<v1::ControlJobRequest>,
    ) -> Result<Response<v1::ControlJobResponse>, Status> {
        use v1::control_job_request::Action;
        let v1::ControlJobRequest { job_id, action } = request.into_inner();
        let id = JobId(job_id);
        let command = match action {
            Some(Action::Pause(_)) => Command::Pause(id),
            Some(Action::Resume(_)) => Command::Resume(id),
            Some(Action::Cancel(v1::Cancel { remove: true })) => Command::Remove(id),
            Some(Action::Cancel(_)) => Command::Cancel(id),
            Some(Action::Retry(_)) => Command::Retry(id),
            Some(Action::SetPriority(v1::SetPriority { priority })) => {
                Command::SetPriority(id, priority_from(priority)?)
            }
            Some(Action::Edit(told)) => Command::Edit(id, Box::new(self.edit(id, told).await?)),
            None => return Err(Status::invalid_argument("no action given")),
        };
        self.driver.command(command).await.map_err(status)?;
        Ok(Response::new(v1::ControlJobResponse { job: Some(self.job(id).await?) }))
    }

    async fn list_nodes(
        &self,
        _: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        self.leads()?;
        let read = self.driver.read(|farm| (farm.tag().clone(), farm.nodes()));
        let (tag, nodes) = read.await.map_err(status)?;
        let nodes = nodes.into_iter().map(|view| convert::node(&tag, view)).collect();
        Ok(Response::new(v1::ListNodesResponse { nodes }))
    }

    async fn control_node(
        &self,
        request: Request<v1::ControlNodeRequest>,
    ) -> Result<Response<v1::ControlNodeResponse>, Status> {
        use v1::control_node_request::Action;
        let v1::ControlNodeRequest { name, action } = request.into_inner();
        let name: NodeName = name.into();
        let command = match action {
            Some(Action::Drain(_)) => Command::Drain(name.clone()),
            Some(Action::Undrain(_)) => Command::Undrain(name.clone()),
            None => return Err(Status::invalid_argument("no action given")),
        };
        self.driver.command(command).await.map_err(status)?;
        let read = self.driver.read(move |farm| (farm.tag().clone(), farm.node(&name)));
        let (tag, view) = read.await.map_err(status)?;
        let node = view.map(|view| convert::node(&tag, view));
        Ok(Response::new(v1::ControlNodeResponse { node }))
    }

    async fn refresh_nodes(
        &self,
        request: Request<v1::RefreshNodesRequest>,
    ) -> Result<Response<v1::RefreshNodesResponse>, Status> {
        self.leads()?;
        let v1::RefreshNodesRequest { name } = request.into_inner();
        let node = (!name.is_empty()).then(|| NodeName::from(name));
        if let Some(node) = node.clone() {
            let known = self.driver.read(move |farm| farm.node(&node).is_some()).await.map_err(status)?;
            if !known {
                return Err(Status::not_found("no such node; `hearth nodes` lists them"));
            }
        }
        // Somebody has looked after them: what was too much for their memory may fit by now.
        self.driver.command(Command::TryMemory(node.clone())).await.map_err(status)?;
        self.questions.refresh(node);
        Ok(Response::new(v1::RefreshNodesResponse {}))
    }

    async fn deliver(
        &self,
        request: Request<v1::DeliverRequest>,
    ) -> Result<Response<v1::DeliverResponse>, Status> {
        let span = info_span!("deliver", "otel.kind" = "server");
        trace::set_parent(&span, &trace::extract(request.metadata()));
        served(&span, self.deliver(request.into_inner()).instrument(span.clone()).await)
    }

    async fn get_thumbnails(
        &self,
        request: Request<v1::GetThumbnailsRequest>,
    ) -> Result<Response<v1::GetThumbnailsResponse>, Status> {
        let v1::GetThumbnailsRequest { job_id, limit } = request.into_inner();
        let id = JobId(job_id);
        let (tag, view) = look(self, id).await?;
        let pieces = self.driver.read(move |farm| farm.pieces(id)).await.map_err(status)?;
        let roots = self.roots.clone();
        let root = view.spec.output.root().to_owned();
        let look = move || media::thumbnails(&roots, &tag, &view, &pieces, limit);
        let thumbnails = self.calls.run([root], look).await.map_err(|error| no_storage(&error))?;
        Ok(Response::new(v1::GetThumbnailsResponse { thumbnails }))
    }

    async fn explain_job(
        &self,
        request: Request<v1::ExplainJobRequest>,
    ) -> Result<Response<v1::ExplainJobResponse>, Status> {
        // What nodes can run only the leader knows.
        self.leads()?;
        let id = JobId(request.get_ref().job_id);
        let sentence = self.driver.read(move |farm| farm.why(id)).await.map_err(status)?;
        let sentence = sentence.ok_or_else(|| status(DriverError::Refused(Refusal::NoSuchJob(id))))?;
        Ok(Response::new(v1::ExplainJobResponse { sentence }))
    }

    async fn list_clips(
        &self,
        request: Request<v1::ListClipsRequest>,
    ) -> Result<Response<v1::ListClipsResponse>, Status> {
        let (roots, folder) = (self.roots.clone(), request.into_inner().folder);
        let root = root_of(&folder);
        let listed = self.calls.run([root], move || media::clips(&roots, &folder)).await;
        let listed = listed.map_err(|error| no_storage(&error))?;
        listed.map(Response::new).map_err(|error| invalid(&error))
    }

    async fn list_workflows(
        &self,
        _: Request<v1::ListWorkflowsRequest>,
    ) -> Result<Response<v1::ListWorkflowsResponse>, Status> {
        let folders = self.folders.clone();
        let library = tokio::task::spawn_blocking(move || Library::read(&folders))
            .await
            .map_err(|_| Status::internal("the library could not be read"))?;
        Ok(Response::new(v1::ListWorkflowsResponse {
            workflows: library.workflows.values().map(convert::workflow).collect(),
            errors: library.errors.iter().map(|error| chain(error)).collect(),
        }))
    }
}

pub(super) async fn look(service: &FarmService, id: JobId) -> Result<(FarmTag, JobView), Status> {
    let read = service.driver.read(move |farm| Some((farm.tag().clone(), farm.job(id)?)));
    read.await.map_err(status)?.ok_or_else(|| unknown(service, id))
}

/// One who follows may not have heard of it yet: the leader knows.
pub(super) fn unknown(service: &FarmService, id: JobId) -> Status {
    status(service.driver.refusal().unwrap_or(DriverError::Refused(Refusal::NoSuchJob(id))))
}

pub(super) fn priority_from(value: u32) -> Result<Priority, Status> {
    let told = SubmissionError::Priority(value);
    Priority::new(value).ok_or_else(|| Status::invalid_argument(chain(&told)))
}

/// The answer, or in the trace why there is none.
fn served<T>(span: &Span, answer: Result<T, Status>) -> Result<Response<T>, Status> {
    answer.map(Response::new).inspect_err(|status| trace::fail(span, status.message()))
}

/// What was asked for cannot be, whatever the farm does.
pub(super) fn invalid(error: &(dyn std::error::Error + 'static)) -> Status {
    Status::invalid_argument(shortened(chain(error), MESSAGE))
}

/// Storage does not answer. Another coordinator would have to wait, too.
pub(super) fn no_storage(error: &CallError) -> Status {
    Status::failed_precondition(chain(error))
}

/// The root that a path of a request names, whatever else is wrong with it.
pub(super) fn root_of(path: &str) -> String {
    path.split('/').next().unwrap_or_default().to_owned()
}

pub(super) fn status(error: DriverError) -> Status {
    let text = chain(&error);
    match error {
        DriverError::Refused(Refusal::NoSuchJob(_) | Refusal::NoSuchNode(_) | Refusal::NoSuchPreset(_)) => {
            Status::not_found(text)
        }
        DriverError::Refused(Refusal::OutputTaken { .. }) => Status::already_exists(text),
        DriverError::Refused(
            Refusal::TooManyJobs { .. } | Refusal::TooManyPresets { .. } | Refusal::TooManyFavourites { .. },
        ) => Status::resource_exhausted(text),
        DriverError::Refused(
            Refusal::AlreadyEnded { .. }
            | Refusal::NothingToRetry { .. }
            | Refusal::NothingOfIt { .. }
            | Refusal::AwaitedCancelled { .. }
            | Refusal::FramesFixed { .. },
        ) => Status::failed_precondition(text),
        DriverError::Refused(
            Refusal::OutputTwice { .. } | Refusal::Nodes { .. } | Refusal::FirstNotMade { .. },
        ) => Status::invalid_argument(text),
        error => unavailable(&error),
    }
}
