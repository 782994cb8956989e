//! Blocking work on storage, a few calls a root at a time.
//!
//! A hard NFS mount whose server is gone hangs every call for ever, and nothing can end such a call. Without a bound,
//! those of one dead root take every thread, and with them all that has nothing to do with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Why a call on storage brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error(
        "storage root {root} does not answer: {calls} calls to it hang; look whether its server is up, and try again"
    )]
    Hangs { root: String, calls: usize },
    #[error(
        "storage {roots} has not answered for {patience:?}; look whether its server is up, and try again"
    )]
    TooLate { roots: String, patience: Duration },
    #[error("storage could not be read; the log says more")]
    Panicked,
}

/// The calls that run, by root. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Calls {
    running: Arc<Mutex<BTreeMap<String, Arc<Semaphore>>>>,
    at_most: usize,
    patience: Duration,
}

impl Calls {
    /// At most `at_most` calls to a root at a time; each is waited for no longer than `patience`.
    pub fn new(at_most: usize, patience: Duration) -> Self {
        Self { running: Arc::default(), at_most, patience }
    }

    /// Runs `work`, which touches these roots, on a thread of its own.
    ///
    /// # Errors
    /// When a root's calls all hang, or this one does.
    pub async fn run<T: Send + 'static>(
        &self,
        roots: impl IntoIterator<Item = impl Into<String>>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CallError> {
        // Sorted, so that two calls never wait for each other.
        let roots: BTreeSet<String> = roots.into_iter().map(Into::into).collect();
        let named = roots.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let whole = async {
            let mut permits: Vec<OwnedSemaphorePermit> = Vec::new();
            for root in roots {
                let calls = self.calls_to(&root);
                let permit = tokio::time::timeout(self.patience / 2, calls.acquire_owned()).await;
                match permit {
                    Ok(Ok(permit)) => permits.push(permit),
                    Ok(Err(_)) | Err(_) => return Err(CallError::Hangs { root, calls: self.at_most }),
                }
            }
            let work = move || {
                let done = work();
                // Only now: a call that hangs keeps its place.
                drop(permits);
                done
            };
            tokio::task::spawn_blocking(work).await.map_err(|_| CallError::Panicked)
        };
        match tokio::time::timeout(self.patience, whole).await {
            Ok(done) => done,
            Err(_) => Err(CallError::TooLate { roots: named, patience: self.patience }),
        }
    }

    fn calls_to(&self, root: &str) -> Arc<Semaphore> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Roots are named by whoever asks: those that nobody is at are forgotten.
        running.retain(|_, calls| calls.available_permits() < self.at_most || Arc::strong_count(calls) > 1);
        running.entry(root.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.at_most))).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_root_that_hangs_takes_its_own_calls_and_no_others() {
        let patience = Duration::from_millis(50);
        let calls = Calls::new(2, patience);
        let mut hung = Vec::new();
        for _ in 0..2 {
            let (release, wait) = mpsc::channel::<()>();
            hung.push(release);
            let late = calls.run(["plates"], move || wait.recv().is_ok()).await;
            assert_eq!(late, Err(CallError::TooLate { roots: "plates".to_owned(), patience }));
        }
        let refused = calls.run(["plates", "comps"], || ()).await;
        assert_eq!(refused, Err(CallError::Hangs { root: "plates".to_owned(), calls: 2 }));
        assert_eq!(calls.run(["comps"], || 7).await, Ok(7));
        drop(hung);
        assert_eq!(calls.run(["plates"], || 8).await, Ok(8), "storage that is back is used again");
    }
}
