//! The work of one assignment, whatever it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hearth_proto::v1::{self, FailureKind, assignment::Work};
use hearth_telemetry::chain;
use hearth_workflows::Workflow;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Event;
use crate::{
    chunk::{self, ChunkTask, Ending, Failure, Told, Workbench},
    delivery, sequence,
};

/// What a chunk needs to be understood, beside the assignment.
#[derive(Debug, Clone, Default)]
pub(super) struct Brief {
    /// `None`: it was not sent, or cannot be used.
    pub(super) workflow: Option<Arc<Workflow>>,
    /// `None`: it was not sent.
    pub(super) job: Option<Arc<v1::JobDefinition>>,
}

/// Does it; never fails but with an [`Ending`]. The bench's roots must be the job's storage, before and after.
pub(super) async fn perform(
    bench: &Workbench,
    attempt: &str,
    work: Work,
    brief: Brief,
    adopt: bool,
    events: &mpsc::Sender<Event>,
    cancel: &CancellationToken,
) -> Ending {
    let proven = tokio::select! {
        proven = prove(bench) => proven,
        () = cancel.cancelled() => return Ending::Cancelled { let_go: true },
    };
    if let Err(failure) = proven {
        info!("there is no storage for it; nothing is made of it");
        return Ending::Failed(failure);
    }
    let ending = work_on(bench, attempt, work, brief, adopt, events, cancel).await;
    if matches!(ending, Ending::Done { .. })
        && let Err(failure) = prove(bench).await
    {
        // What was published may lie below a mount point.
        return Ending::Failed(failure);
    }
    ending
}

/// Proves that the roots are the storage that the job was submitted to.
async fn prove(bench: &Workbench) -> Result<(), Failure> {
    let roots = bench.roots.clone();
    let asked: Vec<String> = roots.proven().map(str::to_owned).collect();
    let proven = bench.calls.run(asked, move || roots.prove()).await;
    Ok(proven.map_err(|error| Failure::new(FailureKind::Storage, chain(&error)))??)
}

async fn work_on(
    bench: &Workbench,
    attempt: &str,
    work: Work,
    brief: Brief,
    adopt: bool,
    events: &mpsc::Sender<Event>,
    cancel: &CancellationToken,
) -> Ending {
    match work {
        Work::Chunk(chunk) => render(bench, attempt, &chunk, brief, adopt, events, cancel).await,
        Work::Assembly(assembly) => {
            let (roots, id, events) = (bench.roots.clone(), attempt.to_owned(), events.clone());
            // Whoever is given up must not go on when storage answers again: another may have it by then.
            let (stop, done) = (cancel.child_token(), Arc::new(AtomicU64::new(0)));
            let _given_up = stop.clone().drop_guard();
            let placed = done.clone();
            let work = move || {
                let tell = teller(&events, &id);
                sequence::assemble(&roots, &id, &assembly, sequence::Watched::new(&stop, &tell, placed))
            };
            let ending = tokio::select! {
                ending = chore("assembly", work) => ending,
                failure = stands_still(&done, bench.stall) => Ending::Failed(failure),
            };
            if cancel.is_cancelled() { Ending::Cancelled { let_go: true } } else { ending }
        }
        Work::Deliver(deliver) => {
            let (tell, told) = (teller(events, attempt), AtomicU64::new(0));
            let tell = |what| {
                told.fetch_add(1, Ordering::Relaxed);
                tell(what);
            };
            let delivered = delivery::deliver(bench, attempt, &deliver, &tell);
            tokio::select! {
                delivered = delivered => match delivered {
                    Ok(()) => Ending::Done { seconds: 0.0, published: None },
                    Err(failure) => Ending::Failed(failure),
                },
                failure = stands_still(&told, bench.stall) => Ending::Failed(failure),
                // ffmpeg is killed with it.
                () = cancel.cancelled() => Ending::Cancelled { let_go: true },
            }
        }
        Work::CleanUp(clean_up) => {
            let roots = bench.roots.clone();
            let work = move || sequence::clean_up(&roots, &clean_up.work_dir);
            let uncounted = AtomicU64::new(0);
            tokio::select! {
                ending = chore("clean-up", work) => ending,
                failure = stands_still(&uncounted, bench.stall) => Ending::Failed(failure),
            }
        }
    }
}

/// Ends once nothing has been counted for `stall`: a hung mount would keep the attempt, and its lease, for ever.
async fn stands_still(done: &AtomicU64, stall: Duration) -> Failure {
    let mut before = done.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(stall).await;
        let now = done.load(Ordering::Relaxed);
        if now == before {
            let message = format!(
                "storage has not answered for {} s; look whether its server is up, or raise stall_seconds",
                stall.as_secs()
            );
            return Failure::new(FailureKind::Storage, message);
        }
        before = now;
    }
}

async fn render(
    bench: &Workbench,
    attempt: &str,
    chunk: &v1::Chunk,
    brief: Brief,
    adopt: bool,
    events: &mpsc::Sender<Event>,
    cancel: &CancellationToken,
) -> Ending {
    let (Some(workflow), Some(job)) = (brief.workflow, brief.job) else {
        let message = "the chunk's job or workflow was not sent, or cannot be used";
        return Ending::Failed(Failure::new(FailureKind::Internal, message));
    };
    let task = match ChunkTask::read(attempt, chunk, &job, workflow) {
        Ok(task) => Arc::new(task),
        Err(failure) => return Ending::Failed(failure),
    };
    let tell = teller(events, attempt);
    chunk::render(bench, &task, adopt, &tell, cancel).await
}

/// Takes what an attempt tells to its node.
fn teller<'a>(events: &'a mpsc::Sender<Event>, attempt: &'a str) -> impl Fn(Told) + Send + Sync + 'a {
    move |told| {
        // A full queue loses progress, which is told again.
        let _ = events.try_send(Event::Told { attempt: attempt.to_owned(), told });
    }
}

/// Storage blocks: it gets a thread of its own.
async fn chore(what: &str, work: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Ending {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => Ending::Done { seconds: 0.0, published: None },
        Ok(Err(failure)) => Ending::Failed(failure),
        Err(_) => {
            Ending::Failed(Failure::new(FailureKind::Internal, format!("the {what} ended without a result")))
        }
    }
}
