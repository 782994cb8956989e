//! Following one job, over lost connections.

use std::time::Duration;

use hearth_proto::v1::{self, JobState, watch_job_response::Update};
use tonic::{Code, Streaming};

use crate::farm::{ClientError, FarmClient};

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// How long the coordinator may be away before the watch gives up.
const PATIENCE: Duration = Duration::from_secs(300);

/// What happens to one job. Ends after the job has.
#[derive(Debug)]
pub struct Watch {
    client: FarmClient,
    request: v1::WatchJobRequest,
    stream: Option<Streaming<v1::WatchJobResponse>>,
    ended: bool,
    /// Waited since something was last heard.
    waited: Duration,
    retry: Duration,
}

impl Watch {
    pub(crate) fn new(client: FarmClient, job_id: u64, previews: bool) -> Self {
        let request = v1::WatchJobRequest { job_id, cursor: 0, previews };
        Self { client, request, stream: None, ended: false, waited: Duration::ZERO, retry: FIRST_RETRY }
    }

    /// The next thing that happens; `None` after the job's last. Fails when there is no such job, when no
    /// coordinator has ever answered at the address, or when it stays away for five minutes.
    pub async fn next(&mut self) -> Result<Option<Update>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => match self.client.watch_once(self.request).await {
                    Ok(stream) => self.stream.insert(stream),
                    Err(error) => {
                        self.wait(error).await?;
                        continue;
                    }
                },
            };
            match stream.message().await {
                Ok(Some(v1::WatchJobResponse { cursor, update })) => {
                    (self.waited, self.retry) = (Duration::ZERO, FIRST_RETRY);
                    self.request.cursor = self.request.cursor.max(cursor);
                    let Some(update) = update else { continue };
                    if let Update::Job(job) = &update {
                        self.ended = has_ended(job);
                    }
                    return Ok(Some(update));
                }
                Ok(None) => {
                    self.stream = None;
                    tokio::time::sleep(FIRST_RETRY).await;
                }
                Err(status) => {
                    self.stream = None;
                    self.wait(self.client.lost(&status)).await?;
                }
            }
        }
    }

    /// Waits before the next try, unless trying again is of no use.
    async fn wait(&mut self, error: ClientError) -> Result<(), ClientError> {
        let final_word = match &error {
            ClientError::Address { .. } => true,
            ClientError::Refused { code, .. } => *code == Code::NotFound,
            // Never heard of a farm there: the address is wrong, or it does not run.
            ClientError::Unreachable { .. } => !self.client.has_answered(),
        };
        if final_word || self.waited >= PATIENCE {
            return Err(error);
        }
        let pause = self.retry.mul_f64(rand::random_range(0.5..1.0));
        tokio::time::sleep(pause).await;
        self.waited += pause;
        self.retry = (self.retry * 2).min(LAST_RETRY);
        Ok(())
    }
}

/// Whether nothing more will happen to the job by itself.
fn has_ended(job: &v1::Job) -> bool {
    matches!(job.state(), JobState::Done | JobState::Partial | JobState::Failed | JobState::Cancelled)
}
