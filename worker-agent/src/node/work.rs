//! The work of one assignment, whatever it is.

use std::sync::Arc;

use hearth_proto::v1::{self, FailureKind, assignment::Work};
use hearth_workflows::Workflow;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

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

/// Does it; never fails but with an [`Ending`].
pub(super) async fn perform(
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
            let stop = cancel.clone();
            let work = move || {
                let tell = teller(&events, &id);
                sequence::assemble(&roots, &id, &assembly, sequence::Watched::new(&stop, &tell))
            };
            let ending = chore("assembly", work).await;
            if cancel.is_cancelled() { Ending::Cancelled { let_go: true } } else { ending }
        }
        Work::Deliver(deliver) => {
            let tell = teller(events, attempt);
            let delivered = delivery::deliver(bench, attempt, &deliver, &tell);
            tokio::select! {
                delivered = delivered => match delivered {
                    Ok(()) => Ending::Done { seconds: 0.0 },
                    Err(failure) => Ending::Failed(failure),
                },
                // ffmpeg is killed with it.
                () = cancel.cancelled() => Ending::Cancelled { let_go: true },
            }
        }
        Work::CleanUp(clean_up) => {
            let roots = bench.roots.clone();
            chore("clean-up", move || sequence::clean_up(&roots, &clean_up.work_dir)).await
        }
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
        Ok(Ok(())) => Ending::Done { seconds: 0.0 },
        Ok(Err(failure)) => Ending::Failed(failure),
        Err(_) => {
            Ending::Failed(Failure::new(FailureKind::Internal, format!("the {what} ended without a result")))
        }
    }
}
