//! The farm's services as methods.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hearth_proto::{LEADER, MAX_MESSAGE_BYTES, trace, v1};
use tokio::time::sleep;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

use crate::watch::Watch;

const CONNECT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// How long a farm may be without a leader before somebody is told.
const TAKE_OVER: Duration = Duration::from_secs(20);

/// Between two tries while nobody leads.
const PAUSE: Duration = Duration::from_millis(200);

/// How long an answer may take. A submission looks at every frame of the clip.
const ANSWER: Duration = Duration::from_secs(120);

/// Jobs of a batch that are looked at in that time, whatever their clips are like.
const BATCH: usize = 16;

/// Why the farm did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("'{url}' is no coordinator address; write it as http://host:port")]
    Address { url: String, source: tonic::transport::Error },
    #[error(
        "no coordinator answers at {url} ({reason}); is it running, and is HEARTH_COORDINATOR or --coordinator right?"
    )]
    Unreachable { url: String, reason: String },
    /// The farm has a reason: its text is for people.
    #[error("{message}")]
    Refused { code: Code, message: String },
}

/// A connection to a farm. Cheap to clone; connects when it is first used, and goes where the leader is.
#[derive(Debug, Clone)]
pub struct FarmClient {
    /// Where coordinators are, as they were given.
    coordinators: Arc<[String]>,
    /// Whether a coordinator has ever answered.
    answered: Arc<AtomicBool>,
    /// The coordinator that is asked at present.
    route: Arc<Mutex<Route>>,
    /// How long the only coordinator may be away before somebody is told, and who is told that it is waited for.
    patience: Duration,
    waits: fn(&str),
}

#[derive(Debug, Clone)]
struct Route {
    url: String,
    client: v1::farm_client::FarmClient<Channel>,
    /// Which of the coordinators is tried when this one does not answer.
    next: usize,
}

impl Route {
    fn to(url: &str, next: usize) -> Result<Self, ClientError> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|source| ClientError::Address { url: url.to_owned(), source })?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let client = v1::farm_client::FarmClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { url: url.to_owned(), client, next })
    }
}

impl FarmClient {
    /// For the farm with coordinators at `urls`: `http://host:port`, several separated by commas. The one that
    /// leads is found through any of them.
    pub fn new(urls: &str) -> Result<Self, ClientError> {
        // Never without any: an empty address is refused like any other that is none.
        let coordinators: Arc<[String]> = urls.split(',').map(|url| url.trim().to_owned()).collect();
        for url in &*coordinators {
            Route::to(url, 0)?;
        }
        let route = Arc::new(Mutex::new(Route::to(&coordinators[0], 1)?));
        Ok(Self { coordinators, answered: Arc::default(), route, patience: Duration::ZERO, waits: |_| {} })
    }

    /// Waits so long for the only coordinator that was named, which may be starting anew. `waits` is called once for
    /// each question that has to wait, with the coordinator's address.
    #[must_use]
    pub fn patient(self, patience: Duration, waits: fn(&str)) -> Self {
        Self { patience, waits, ..self }
    }

    /// Asks the coordinator that leads. One that follows says where that is; while none does, and when one has
    /// died, the others are tried for as long as a take-over lasts.
    async fn ask<T: Clone, R>(
        &self,
        message: T,
        send: impl AsyncFn(v1::farm_client::FarmClient<Channel>, T) -> Result<tonic::Response<R>, Status>,
    ) -> Result<R, ClientError> {
        let started = Instant::now();
        let mut tried = 0;
        loop {
            let route = self.route();
            let status = match send(route.client, message.clone()).await {
                Ok(response) => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Ok(response.into_inner());
                }
                Err(status) => status,
            };
            let error = self.error(&status, &route.url);
            let late = started.elapsed() >= TAKE_OVER;
            if status.metadata().contains_key(LEADER) {
                // It follows another, which may be dead by now: there is a farm, and it will have a leader.
                self.answered.store(true, Ordering::Relaxed);
            }
            match status.metadata().get(LEADER).map(|leader| leader.to_str().unwrap_or_default()) {
                Some(_) if late => return Err(error),
                Some("") => sleep(PAUSE).await,
                Some(leader) => {
                    tried += 1;
                    self.go_to(leader, route.next)?;
                    if tried > self.coordinators.len() {
                        sleep(PAUSE).await;
                    }
                }
                None if !matches!(error, ClientError::Unreachable { .. }) => {
                    self.answered.store(true, Ordering::Relaxed);
                    tried += 1;
                    // It may be the only one that is cut off from the store.
                    if status.code() != Code::Unavailable || tried >= self.coordinators.len() {
                        return Err(error);
                    }
                    self.go_to(&self.coordinators[route.next % self.coordinators.len()], route.next + 1)?;
                }
                // With a single address there is nowhere else to go, unless it has sent us here.
                None if self.coordinators.len() < 2 && self.coordinators.contains(&route.url) => {
                    if started.elapsed() >= self.patience {
                        return Err(error);
                    }
                    tried += 1;
                    if tried == 1 {
                        (self.waits)(&route.url);
                    }
                    sleep(PAUSE).await;
                }
                None if late => return Err(error),
                None => {
                    tried += 1;
                    // None of them has ever answered: the addresses are wrong, or nothing runs.
                    if tried >= self.coordinators.len() && !self.has_answered() {
                        if started.elapsed() >= self.patience {
                            return Err(error);
                        }
                        if tried == self.coordinators.len() {
                            (self.waits)(&route.url);
                        }
                    }
                    self.go_to(&self.coordinators[route.next % self.coordinators.len()], route.next + 1)?;
                    if tried >= self.coordinators.len() {
                        sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    fn route(&self) -> Route {
        self.route.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn go_to(&self, url: &str, next: usize) -> Result<(), ClientError> {
        let route = Route::to(url, next)?;
        *self.route.lock().unwrap_or_else(PoisonError::into_inner) = route;
        Ok(())
    }

    /// Submits a job; without a request id of its own it gets one, so that trying again is safe.
    pub async fn submit(
        &self,
        mut request: v1::SubmitJobRequest,
    ) -> Result<v1::SubmitJobResponse, ClientError> {
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::new_v4().to_string();
        }
        self.ask(request, async |mut client, request| client.submit_job(traced(request)).await).await
    }

    pub async fn presets(
        &self,
        request: v1::ListPresetsRequest,
    ) -> Result<v1::ListPresetsResponse, ClientError> {
        self.ask(request, async |mut client, request| client.list_presets(traced(request)).await).await
    }

    /// One preset with all its versions.
    pub async fn preset(&self, name: v1::PresetName) -> Result<v1::Preset, ClientError> {
        let request = v1::GetPresetRequest { name: Some(name) };
        let response =
            self.ask(request, async |mut client, request| client.get_preset(traced(request)).await).await?;
        Ok(response.preset.unwrap_or_default())
    }

    /// The preset as it is now; `None`: deleted.
    pub async fn change_preset(
        &self,
        request: v1::ChangePresetRequest,
    ) -> Result<Option<v1::Preset>, ClientError> {
        let response = self
            .ask(request, async |mut client, request| client.change_preset(traced(request)).await)
            .await?;
        Ok(response.preset)
    }

    /// What would become of a job, without submitting it.
    pub async fn check(&self, job: v1::SubmitJobRequest) -> Result<v1::CheckJobResponse, ClientError> {
        let request = v1::CheckJobRequest { job: Some(job) };
        self.ask(request, async |mut client, request| client.check_job(traced(request)).await).await
    }

    /// Submits several jobs: all of them are taken, or none. Trying again is safe, as with a single one.
    pub async fn submit_batch(
        &self,
        mut request: v1::SubmitBatchRequest,
    ) -> Result<v1::SubmitBatchResponse, ClientError> {
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::new_v4().to_string();
        }
        let patience = patience(request.jobs.len());
        self.ask(request, async |mut client, request| {
            client.submit_batch(traced_within(request, patience)).await
        })
        .await
    }

    /// What would become of a batch, job by job; refused as the batch would be.
    pub async fn check_batch(
        &self,
        jobs: Vec<v1::SubmitJobRequest>,
    ) -> Result<Vec<v1::CheckJobResponse>, ClientError> {
        let patience = patience(jobs.len());
        let request = v1::CheckBatchRequest { jobs };
        let response = self
            .ask(request, async |mut client, request| {
                client.check_batch(traced_within(request, patience)).await
            })
            .await?;
        Ok(response.jobs)
    }

    /// The jobs that were submitted together; `batch` is the number of any of them.
    pub async fn batch(&self, batch: u64) -> Result<Vec<v1::Job>, ClientError> {
        let request = v1::GetBatchRequest { batch };
        let response =
            self.ask(request, async |mut client, request| client.get_batch(traced(request)).await).await?;
        Ok(response.jobs)
    }

    /// Does to every job of a batch what can still be done to it.
    pub async fn control_batch(
        &self,
        batch: u64,
        action: v1::control_batch_request::Action,
    ) -> Result<Vec<v1::Job>, ClientError> {
        let request = v1::ControlBatchRequest { batch, action: Some(action) };
        let response = self
            .ask(request, async |mut client, request| client.control_batch(traced(request)).await)
            .await?;
        Ok(response.jobs)
    }

    pub async fn jobs(&self, request: v1::ListJobsRequest) -> Result<v1::ListJobsResponse, ClientError> {
        self.ask(request, async |mut client, request| client.list_jobs(traced(request)).await).await
    }

    pub async fn job(&self, job_id: u64) -> Result<v1::Job, ClientError> {
        let request = v1::GetJobRequest { job_id };
        let response =
            self.ask(request, async |mut client, request| client.get_job(traced(request)).await).await?;
        Ok(response.job.unwrap_or_default())
    }

    /// Why a job is not running, or how it does; one sentence.
    pub async fn explain(&self, job_id: u64) -> Result<String, ClientError> {
        let request = v1::ExplainJobRequest { job_id };
        let response =
            self.ask(request, async |mut client, request| client.explain_job(traced(request)).await).await?;
        Ok(response.sentence)
    }

    pub async fn control(
        &self,
        job_id: u64,
        action: v1::control_job_request::Action,
    ) -> Result<v1::Job, ClientError> {
        let request = v1::ControlJobRequest { job_id, action: Some(action) };
        let response =
            self.ask(request, async |mut client, request| client.control_job(traced(request)).await).await?;
        Ok(response.job.unwrap_or_default())
    }

    pub async fn nodes(&self) -> Result<Vec<v1::Node>, ClientError> {
        let request = v1::ListNodesRequest {};
        let response =
            self.ask(request, async |mut client, request| client.list_nodes(traced(request)).await).await?;
        Ok(response.nodes)
    }

    pub async fn control_node(
        &self,
        name: &str,
        action: v1::control_node_request::Action,
    ) -> Result<v1::Node, ClientError> {
        let request = v1::ControlNodeRequest { name: name.to_owned(), action: Some(action) };
        let response =
            self.ask(request, async |mut client, request| client.control_node(traced(request)).await).await?;
        Ok(response.node.unwrap_or_default())
    }

    /// Has ComfyUIs asked at once what they offer: that of the node `name`, or all of them.
    pub async fn refresh_nodes(&self, name: Option<&str>) -> Result<(), ClientError> {
        let request = v1::RefreshNodesRequest { name: name.unwrap_or_default().to_owned() };
        self.ask(request, async |mut client, request| client.refresh_nodes(traced(request)).await).await?;
        Ok(())
    }

    pub async fn workflows(&self) -> Result<v1::ListWorkflowsResponse, ClientError> {
        let request = v1::ListWorkflowsRequest {};
        self.ask(request, async |mut client, request| client.list_workflows(traced(request)).await).await
    }

    /// Encodes a sequence: a job for each delivery. Asked again after a lost answer, it makes no second one.
    pub async fn deliver(&self, mut request: v1::DeliverRequest) -> Result<v1::DeliverResponse, ClientError> {
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::new_v4().to_string();
        }
        self.ask(request, async |mut client, request| client.deliver(traced(request)).await).await
    }

    /// Small pictures of a job's finished frames, at most `limit` of each pass.
    pub async fn thumbnails(&self, job_id: u64, limit: u32) -> Result<Vec<v1::Thumbnail>, ClientError> {
        let request = v1::GetThumbnailsRequest { job_id, limit };
        let asked =
            self.ask(request, async |mut client, request| client.get_thumbnails(traced(request)).await);
        Ok(asked.await?.thumbnails)
    }

    /// The sequences in a root-relative folder, and the folders in it.
    pub async fn clips(&self, folder: &str) -> Result<v1::ListClipsResponse, ClientError> {
        let request = v1::ListClipsRequest { folder: folder.to_owned() };
        self.ask(request, async |mut client, request| client.list_clips(traced(request)).await).await
    }

    /// Follows a job to its end, over lost connections and restarted coordinators.
    pub fn watch(&self, job_id: u64, previews: bool) -> Watch {
        Watch::new(self.clone(), job_id, previews)
    }

    pub(crate) async fn watch_once(
        &self,
        request: v1::WatchJobRequest,
    ) -> Result<tonic::Streaming<v1::WatchJobResponse>, ClientError> {
        // A watch has no time limit.
        self.ask(request, async |mut client, request| client.watch_job(Request::new(request)).await).await
    }

    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// What a stream's end means.
    pub(crate) fn lost(&self, status: &Status) -> ClientError {
        self.error(status, &self.route().url)
    }

    fn error(&self, status: &Status, url: &str) -> ClientError {
        // Without a peer, tonic makes the status itself and keeps the transport's error in it.
        let transport = std::error::Error::source(status).is_some();
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::DeadlineExceeded | Code::Cancelled if transport => {
                let url =
                    if self.coordinators.len() > 1 { self.coordinators.join(", ") } else { url.to_owned() };
                ClientError::Unreachable { url, reason: root_cause(status) }
            }
            code => ClientError::Refused { code, message: status.message().to_owned() },
        }
    }
}

fn traced<T>(message: T) -> Request<T> {
    traced_within(message, ANSWER)
}

/// For an answer about so many jobs.
fn patience(jobs: usize) -> Duration {
    ANSWER * u32::try_from(jobs.div_ceil(BATCH)).unwrap_or(u32::MAX).clamp(1, 60)
}

fn traced_within<T>(message: T, patience: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    trace::inject(request.metadata_mut());
    request
}

fn root_cause(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
