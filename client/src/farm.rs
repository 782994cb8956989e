//! The farm's services as methods.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hearth_proto::{MAX_MESSAGE_BYTES, trace, v1};
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

use crate::watch::Watch;

const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take. A submission looks at every frame of the clip.
const ANSWER: Duration = Duration::from_secs(120);

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

/// A connection to a farm. Cheap to clone; connects when it is first used.
#[derive(Debug, Clone)]
pub struct FarmClient {
    url: String,
    /// Whether a coordinator has ever answered at this address.
    answered: Arc<AtomicBool>,
    client: v1::farm_client::FarmClient<Channel>,
}

impl FarmClient {
    /// For the coordinator at `url`, `http://host:port`.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|source| ClientError::Address { url: url.to_owned(), source })?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10));
        let client = v1::farm_client::FarmClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { url: url.to_owned(), answered: Arc::default(), client })
    }

    /// Submits a job; without a request id of its own it gets one, so that trying again is safe.
    pub async fn submit(
        &self,
        mut request: v1::SubmitJobRequest,
    ) -> Result<v1::SubmitJobResponse, ClientError> {
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::new_v4().to_string();
        }
        self.told(self.client.clone().submit_job(traced(request)).await)
    }

    pub async fn jobs(&self, request: v1::ListJobsRequest) -> Result<v1::ListJobsResponse, ClientError> {
        self.told(self.client.clone().list_jobs(traced(request)).await)
    }

    pub async fn job(&self, job_id: u64) -> Result<v1::Job, ClientError> {
        let response = self.told(self.client.clone().get_job(traced(v1::GetJobRequest { job_id })).await)?;
        Ok(response.job.unwrap_or_default())
    }

    pub async fn control(
        &self,
        job_id: u64,
        action: v1::control_job_request::Action,
    ) -> Result<v1::Job, ClientError> {
        let request = v1::ControlJobRequest { job_id, action: Some(action) };
        let response = self.told(self.client.clone().control_job(traced(request)).await)?;
        Ok(response.job.unwrap_or_default())
    }

    pub async fn nodes(&self) -> Result<Vec<v1::Node>, ClientError> {
        let response = self.client.clone().list_nodes(traced(v1::ListNodesRequest {})).await;
        Ok(self.told(response)?.nodes)
    }

    pub async fn control_node(
        &self,
        name: &str,
        action: v1::control_node_request::Action,
    ) -> Result<v1::Node, ClientError> {
        let request = v1::ControlNodeRequest { name: name.to_owned(), action: Some(action) };
        let response = self.told(self.client.clone().control_node(traced(request)).await)?;
        Ok(response.node.unwrap_or_default())
    }

    pub async fn workflows(&self) -> Result<v1::ListWorkflowsResponse, ClientError> {
        self.told(self.client.clone().list_workflows(traced(v1::ListWorkflowsRequest {})).await)
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
        self.told(self.client.clone().watch_job(Request::new(request)).await)
    }

    fn told<T>(&self, response: Result<tonic::Response<T>, Status>) -> Result<T, ClientError> {
        let told = response.map(tonic::Response::into_inner).map_err(|status| self.error(&status));
        if !matches!(told, Err(ClientError::Unreachable { .. })) {
            self.answered.store(true, Ordering::Relaxed);
        }
        told
    }

    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn error(&self, status: &Status) -> ClientError {
        // Without a peer, tonic makes the status itself and keeps the transport's error in it.
        let transport = std::error::Error::source(status).is_some();
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::DeadlineExceeded | Code::Cancelled if transport => {
                ClientError::Unreachable { url: self.url.clone(), reason: root_cause(status) }
            }
            code => ClientError::Refused { code, message: status.message().to_owned() },
        }
    }
}

fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER);
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
