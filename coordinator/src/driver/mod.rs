//! The only owner of a farm. Drains the commands that are waiting, applies them as one group, commits their
//! changes in one round trip, and only then releases effects and answers.
//!
//! Of several coordinators one leads. The others follow: they keep a copy of the farm for those who only look,
//! and tell everybody else who leads. Holds no rule of the farm.
//!
//! `engine` drives, `standing` finds out who leads and what to do when the store is away or has lost something.

mod clock;
mod engine;
mod standing;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hearth_workflows::{Workflow, parameters::ParameterTexts};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    farm::{
        Answer, Assignment, AttemptId, Command, Farm, FarmConfig, FarmTag, Found, Refusal, Session,
        Timestamp, ToSurvey,
    },
    store::{Store, StoreError},
    telemetry::Meters,
};
use engine::Engine;
use standing::Role;
pub(crate) use standing::{difference, write_all};

pub use crate::store::Happened;
pub use clock::{Clock, ClockError};

/// Commands that wait for the driver; those who send more wait themselves.
const QUEUE: usize = 8_192;

/// Messages that wait for a node's connection. More means that it does not read: it is cut off.
const SESSION_QUEUE: usize = 1_024;

/// Events remembered for watchers that come back.
const REMEMBERED_EVENTS: usize = 4_096;

/// Why a command had no effect.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(
        "the farm's store is away, nothing was changed: {why}. What runs goes on and its results are kept; try again"
    )]
    Away { why: String },
    #[error(
        "the farm's store went away while it was asked, so that nobody knows yet whether it was done: {why}. Look, or try again: what has the same request id is done once"
    )]
    Unsure { why: String },
    #[error("{}", follows(leader.as_deref()))]
    Follows { leader: Option<String> },
    #[error("the coordinator is stopping; try again")]
    Stopped,
}

fn follows(leader: Option<&str>) -> String {
    match leader {
        Some(leader) => format!("this coordinator follows; {leader} leads the farm"),
        None => "no coordinator leads the farm at the moment; try again".to_owned(),
    }
}

/// A message for a node.
#[derive(Debug, Clone)]
pub enum ToNode {
    Assign(Box<Assignment>),
    Cancel {
        attempt: AttemptId,
        reason: &'static str,
    },
    Acknowledge(AttemptId),
    /// Digests of names that the node is to tell.
    WantNames(Vec<String>),
    /// Its ComfyUI is to be asked at once what it offers.
    Refresh,
    /// Whether its ComfyUI would take the workflow with each of these settings.
    Check {
        id: u64,
        workflow: Arc<Workflow>,
        settings: Vec<ParameterTexts>,
    },
}

/// Where this coordinator stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Leading,
    /// `leader`: where clients and agents reach it, if anybody leads.
    Following {
        leader: Option<String>,
    },
    /// The store does not answer.
    Away {
        why: String,
    },
}

type Reading = Box<dyn FnOnce(Result<&Farm, DriverError>) + Send>;

enum Message {
    Command(Command, Option<oneshot::Sender<Result<Answer, DriverError>>>),
    Read(Reading),
    Watch(oneshot::Sender<Result<Watch, DriverError>>),
    Open(Session, oneshot::Sender<Result<Opened, DriverError>>),
    Stop,
}

/// Events from now on, and those remembered from before.
#[derive(Debug)]
pub struct Watch {
    pub past: Vec<Happened>,
    /// The cursor of the latest event.
    pub cursor: u64,
    pub events: broadcast::Receiver<Happened>,
}

/// A node's connection.
#[derive(Debug)]
pub struct Opened {
    pub tag: FarmTag,
    /// What the farm sends. Ends when the driver stops, does not lead any more, or finds that the connection
    /// does not keep up.
    pub messages: mpsc::Receiver<ToNode>,
    /// For what the farm has no part in. Keeps the connection from nothing.
    pub sender: mpsc::WeakSender<ToNode>,
}

/// Talks to the driver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Driver {
    messages: mpsc::Sender<Message>,
    standing: watch::Receiver<Standing>,
}

impl Driver {
    /// Carries out a command; resolves once it is durable.
    pub async fn command(&self, command: Command) -> Result<Answer, DriverError> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Command(command, Some(answer))).await?;
        answered.await.map_err(|_| DriverError::Stopped)?
    }

    /// Carries out a command whose answer nobody waits for.
    pub async fn tell(&self, command: Command) -> Result<(), DriverError> {
        self.send(Message::Command(command, None)).await
    }

    /// Looks at the farm, between two groups of commands: what is seen is durable.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Farm) -> T + Send + 'static,
    ) -> Result<T, DriverError> {
        let (seen, seeing) = oneshot::channel();
        // Whoever asked may have gone away.
        let reading: Reading = Box::new(move |farm| drop(seen.send(farm.map(look))));
        self.send(Message::Read(reading)).await?;
        seeing.await.map_err(|_| DriverError::Stopped)?
    }

    pub async fn watch(&self) -> Result<Watch, DriverError> {
        let (sender, receiver) = oneshot::channel();
        self.send(Message::Watch(sender)).await?;
        receiver.await.map_err(|_| DriverError::Stopped)?
    }

    /// Opens a node's connection.
    pub async fn open(&self, session: Session) -> Result<Opened, DriverError> {
        let (sender, receiver) = oneshot::channel();
        self.send(Message::Open(session, sender)).await?;
        receiver.await.map_err(|_| DriverError::Stopped)?
    }

    /// Why nothing can be changed here at the moment; `None`: this coordinator leads.
    pub fn refusal(&self) -> Option<DriverError> {
        match &*self.standing.borrow() {
            Standing::Leading => None,
            Standing::Following { leader } => Some(DriverError::Follows { leader: leader.clone() }),
            Standing::Away { why } => Some(DriverError::Away { why: why.clone() }),
        }
    }

    /// Where this coordinator stands, now and whenever that changes.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Commits what is waiting, lets another lead, and ends.
    pub async fn stop(&self) {
        // It has stopped already when this fails.
        let _ = self.send(Message::Stop).await;
    }

    async fn send(&self, message: Message) -> Result<(), DriverError> {
        self.messages.send(message).await.map_err(|_| DriverError::Stopped)
    }
}

/// Reads what lies on storage of a job. Blocks.
pub type Survey = Arc<dyn Fn(&FarmTag, &ToSurvey) -> (Vec<Found>, bool) + Send + Sync>;

/// What the driver needs beside the store.
pub struct DriverOptions {
    pub farm: FarmConfig,
    /// The name of a farm that has to be made.
    pub tag: FarmTag,
    /// How long a leader is believed without being heard of.
    pub lease: Duration,
    pub meters: Arc<Meters>,
    pub survey: Survey,
}

impl std::fmt::Debug for DriverOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DriverOptions").field("farm", &self.farm).finish_non_exhaustive()
    }
}

/// Leads or follows until stopped. Fails when the store is one that no waiting will help.
pub async fn start<S: Store>(
    store: S,
    options: DriverOptions,
    clock: Clock,
) -> Result<(Driver, impl Future<Output = ()> + Send), StoreError> {
    let (messages, inbox) = mpsc::channel(QUEUE);
    let (events, _) = broadcast::channel(REMEMBERED_EVENTS);
    let (standing, told) = watch::channel(Standing::Following { leader: None });
    let mut engine = Engine {
        store,
        options,
        role: Role::Following { leader: None },
        farm: None,
        ahead: false,
        unwritten: BTreeSet::new(),
        aside: BTreeSet::new(),
        restoring: false,
        back: None,
        lost: false,
        leader_seen: None,
        surveys: Arc::default(),
        kept: Instant::now(),
        settled: false,
        confirmed: Instant::now(),
        ticked: Instant::now(),
        sessions: HashMap::new(),
        events,
        past: VecDeque::new(),
        cursor: 0,
        standing,
        messages: messages.downgrade(),
        clock,
    };
    engine.begin().await?;
    Ok((Driver { messages, standing: told }, engine.run(inbox)))
}

/// What the system's clock says, for programs that look at a farm once.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}
