//! The threads on which pictures are decoded, converted and checked: few, and always the same.
//!
//! A picture is tens of megabytes, and the system's allocator keeps what a thread has had for that thread: on the
//! runtime's many threads the agent's memory would be a multiple of what it needs.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// Does work on its own threads, as much at a time as it has of them. Cheap to clone; the threads end with the
/// last of it.
#[derive(Debug, Clone)]
pub struct Darkroom(mpsc::Sender<Work>);

impl Darkroom {
    /// With so many threads.
    pub fn open(threads: u32) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Work>();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads.max(1) {
            let receiver = receiver.clone();
            let work = move || {
                loop {
                    let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    match next {
                        Ok(work) => work(),
                        Err(mpsc::RecvError) => return,
                    }
                }
            };
            thread::Builder::new().name(format!("pictures-{number}")).spawn(work)?;
        }
        Ok(Self(sender))
    }

    /// Does `work`; `None` when it has panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        let work = move || {
            // A panic in one picture must not cost a thread.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            if let Ok(done) = done {
                // Whoever wanted it may have been cancelled.
                let _ = sender.send(done);
            }
        };
        // Callers bound what waits: each has a few pictures under way.
        self.0.send(Box::new(work)).ok()?;
        receiver.await.ok()
    }
}
