//! A watch of one job, as a stream. Decides nothing; a watcher that does not read costs little.

use std::time::Duration;

use hearth_proto::v1;
use tokio::sync::{broadcast, mpsc, watch};
use tonic::Status;

use super::{
    clients::{FarmService, look, status},
    convert,
};
use crate::{
    driver::{DriverError, Happened, Standing},
    farm::{FarmTag, JobEvent, JobId, JobView},
};

/// A watcher is told of changes at most so often.
const WATCH_PERIOD: Duration = Duration::from_millis(100);

/// Messages that wait for a watcher; a slower one is told the latest state only.
pub(super) const WATCH_QUEUE: usize = 64;

/// Messages that wait for a watcher while another preview is added to them.
const WAITING_PREVIEWS: usize = 2;

/// Watchers at a time.
pub const MOST_WATCHERS: usize = 2_048;

/// Tells one watcher of one job: a snapshot, what it has missed, then what happens, until the job has ended.
pub(super) async fn tell(
    service: FarmService,
    request: v1::WatchJobRequest,
    sender: mpsc::Sender<Result<v1::WatchJobResponse, Status>>,
) {
    if let Err(status) = follow(&service, &request, &sender).await {
        // The watcher may be gone already.
        let _ = sender.send(Err(status)).await;
    }
}

async fn follow(
    service: &FarmService,
    request: &v1::WatchJobRequest,
    sender: &mpsc::Sender<Result<v1::WatchJobResponse, Status>>,
) -> Result<(), Status> {
    use v1::watch_job_response::Update;
    let id = JobId(request.job_id);
    let mut watch = service.driver.watch().await.map_err(status)?;
    let mut standing = service.driver.standing();
    let mut previews = request.previews.then(|| service.previews.subscribe());
    let mut cursor = watch.cursor;
    let told = |cursor, update| Ok(v1::WatchJobResponse { cursor, update: Some(update) });
    let (tag, view) = look(service, id).await?;
    let gone = |_| Status::cancelled("the watcher has gone");

    if request.cursor > 0 {
        let missed = watch.past.drain(..).filter(|past| past.job == id && past.cursor > request.cursor);
        for happened in missed {
            if let Some(update) = update_of(&tag, &happened) {
                sender.send(told(happened.cursor, update)).await.map_err(gone)?;
            }
        }
    }
    let mut ended = send_view(&tag, view, cursor, sender).await?;
    let mut period = tokio::time::interval(WATCH_PERIOD);
    let mut changed = false;
    while !ended {
        let preview = async {
            match &mut previews {
                Some(previews) => previews.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sender.closed() => return Ok(()),
            // Another coordinator may still hear what happens.
            () = cut_off(&mut standing) => {
                return Err(status(service.driver.refusal().unwrap_or(DriverError::Stopped)));
            }
            event = watch.events.recv() => match event {
                Ok(happened) if happened.job == id => {
                    changed = true;
                    cursor = happened.cursor;
                    if let Some(update) = update_of(&tag, &happened) {
                        sender.send(told(cursor, update)).await.map_err(gone)?;
                    }
                }
                Ok(_) => {}
                // It did not keep up: the next snapshot tells all.
                Err(broadcast::error::RecvError::Lagged(_)) => changed = true,
                Err(broadcast::error::RecvError::Closed) => {
                    return Err(Status::unavailable("the coordinator is stopping"));
                }
            },
            preview = preview => {
                if let Ok((job, preview)) = preview && job == id {
                    // A preview may be lost; the watch must not wait for it, and a watcher that sleeps keeps few.
                    if sender.max_capacity() - sender.capacity() < WAITING_PREVIEWS {
                        let _ = sender.try_send(told(cursor, Update::Preview(preview)));
                    }
                }
            }
            _ = period.tick(), if changed => {
                changed = false;
                let (_, view) = look(service, id).await?;
                // What had happened when we looked is told first: the last snapshot ends the watch.
                while let Ok(happened) = watch.events.try_recv() {
                    if happened.job == id && let Some(update) = update_of(&tag, &happened) {
                        cursor = happened.cursor;
                        sender.send(told(cursor, update)).await.map_err(gone)?;
                    }
                }
                ended = send_view(&tag, view, cursor, sender).await?;
            }
        }
    }
    Ok(())
}

/// Waits until this coordinator does not lead any more, or the store does not answer.
async fn cut_off(standing: &mut watch::Receiver<Standing>) {
    // The sender's end means that the coordinator stops.
    let _ = standing.wait_for(|standing| *standing != Standing::Leading).await.is_ok();
}

/// Sends the whole job; true when it has ended.
async fn send_view(
    tag: &FarmTag,
    view: JobView,
    cursor: u64,
    sender: &mpsc::Sender<Result<v1::WatchJobResponse, Status>>,
) -> Result<bool, Status> {
    use v1::watch_job_response::Update;
    let ended = view.ended.is_some();
    let update = Update::Job(convert::job(tag, view));
    let response = v1::WatchJobResponse { cursor, update: Some(update) };
    sender.send(Ok(response)).await.map_err(|_| Status::cancelled("the watcher has gone"))?;
    Ok(ended)
}

fn update_of(tag: &FarmTag, happened: &Happened) -> Option<v1::watch_job_response::Update> {
    use v1::watch_job_response::Update;
    match &happened.event {
        JobEvent::Changed => None,
        JobEvent::ChunkFinished { attempt, node, frames, seconds } => {
            Some(Update::ChunkFinished(v1::ChunkFinished {
                attempt_id: tag.attempt_name(*attempt),
                node: node.to_string(),
                frames: frames.to_string(),
                seconds: *seconds,
            }))
        }
        JobEvent::ChunkFailed(failure) => Some(Update::Failure(convert::failure(tag, happened.job, failure))),
    }
}
