//! Looks for what a node says that it has put in its place. A job is done when its sequence lies on storage, not
//! when somebody says so.

use std::{sync::Arc, time::Duration};

use hearth_storage::{Calls, Roots, RootsError, manifest::SequenceManifest};
use hearth_workflows::FrameSet;
use tracing::warn;

use crate::{
    driver::{Driver, DriverError},
    farm::{Command, FailureKind, FarmTag, JobState, Outcome, Task},
};

/// Looks before a node is not believed, and the pause between them: other hosts see a rename late on NFS.
const LOOKS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

/// The means to look.
#[derive(Debug, Clone)]
pub struct Proof {
    pub driver: Driver,
    pub calls: Calls,
    pub roots: Arc<Roots>,
}

/// Where the result of a chore must be.
#[derive(Debug, Clone)]
struct Place {
    root: String,
    output: hearth_workflows::RootPath,
    /// The job in a sequence's manifest, and its frames; `None` for a delivery.
    job: Option<(String, FrameSet)>,
}

impl Proof {
    /// Passes on that an assembly or a delivery has succeeded, or that it has not, since nothing is there. A root that
    /// this coordinator has not mapped cannot be looked at: then the node is believed.
    ///
    /// # Errors
    /// When the farm is not to be had.
    pub(super) async fn tell(self, tag: FarmTag, result: Command) -> Result<(), DriverError> {
        let Command::Result { session, node, attempt, frames, outcome } = result else {
            return self.driver.tell(result).await;
        };
        let id = attempt.job;
        let place = self
            .driver
            .read(move |farm| {
                let view = farm.job(id)?;
                let job = match (&view.spec.task, view.state) {
                    // A clean-up leaves nothing to look at.
                    (_, JobState::Cancelled) => return None,
                    // Whatever the job is at by now: nothing but its sequence proves that there is one.
                    (Task::Render(_), _) => {
                        Some((view.spec.work_dir(&tag.0, id.0).to_string(), view.spec.frames.clone()))
                    }
                    (Task::Deliver(_), _) => None,
                };
                let output = view.spec.output.clone();
                Some(Place { root: output.root().to_owned(), output, job })
            })
            .await?;
        let outcome = match place {
            Some(place) if !self.is_there(&place).await => {
                warn!(%attempt, output = %place.output, "is said to be in its place, and is not");
                let message = format!(
                    "{node} says that {} is in its place, but the coordinator does not find it; look whether both have the same storage mounted",
                    place.output
                );
                Outcome::Failed { kind: FailureKind::Storage, message, frames: FrameSet::new() }
            }
            _ => outcome,
        };
        self.driver.tell(Command::Result { session, node, attempt, frames, outcome }).await
    }

    async fn is_there(&self, place: &Place) -> bool {
        for look in 1..=LOOKS {
            let (roots, place) = (self.roots.clone(), place.clone());
            let root = place.root.clone();
            let seen = self.calls.run([root], move || {
                let output = match roots.resolve(&place.output) {
                    Err(RootsError::Unknown { .. }) => return true,
                    // A root that cannot be reached just now is no proof of anything.
                    Err(_) => return false,
                    Ok(output) => output,
                };
                match &place.job {
                    Some((job, frames)) => SequenceManifest::read(&output)
                        .is_some_and(|found| found.job == *job && found.frames() == *frames),
                    None => output.symlink_metadata().is_ok(),
                }
            });
            // Storage that does not answer is no proof of anything: the attempt is tried again.
            if seen.await.unwrap_or(false) {
                return true;
            }
            if look < LOOKS {
                tokio::time::sleep(PAUSE).await;
            }
        }
        false
    }
}
