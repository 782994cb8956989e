//! Driving: commands in groups, durable before anybody hears of them.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    pin::pin,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use hearth_telemetry::chain;
use tokio::{
    sync::{
        broadcast,
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{error, info, warn};

use super::{
    DriverError, DriverOptions, Message, Opened, REMEMBERED_EVENTS, Reading, SESSION_QUEUE, Standing, ToNode,
    Watch, clock::Clock, standing::Role,
};
use crate::{
    farm::{Answer, Command, Effect, Farm, JobEvent, JobId, Key, Refusal, Session, Step},
    store::{Epoch, Group, Happened, Store, StoreError},
    telemetry::Meters,
};

/// Commands applied before a commit.
const GROUP: usize = 1_024;

/// How often one who follows looks for news, and one who leads at its lease.
const BEAT: Duration = Duration::from_millis(100);

/// How often time is told to the farm.
const TICK: Duration = Duration::from_millis(500);

/// How long a commit is tried again before those who wait for it are told that the store is away.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Between two tries of a commit.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Engine<S> {
    pub(super) store: S,
    pub(super) options: DriverOptions,
    pub(super) role: Role,
    /// One who leads has the farm, one who follows a copy; `None` before anything could be loaded.
    pub(super) farm: Option<Farm>,
    /// Whether memory has what the store has not: a group could not be written.
    pub(super) ahead: bool,
    /// What of memory may not be in the store, while it is ahead.
    pub(super) unwritten: BTreeSet<Key>,
    /// What of the store cannot be read.
    pub(super) aside: BTreeSet<Key>,
    /// Whether what the store has lost is being written again.
    pub(super) restoring: bool,
    /// When the store first answered after it was away.
    pub(super) back: Option<Instant>,
    /// The store has less than this process has seen in it.
    pub(super) lost: bool,
    /// When somebody else was last seen to lead.
    pub(super) leader_seen: Option<Instant>,
    /// Counts surveys.
    pub(super) surveys: Arc<AtomicU64>,
    /// Whether the store is known to have everything.
    pub(super) settled: bool,
    /// When the store last confirmed that this coordinator leads.
    pub(super) confirmed: Instant,
    /// When the lease was last renewed by itself, and not by a commit.
    pub(super) kept: Instant,
    pub(super) ticked: Instant,
    pub(super) sessions: HashMap<Session, mpsc::Sender<ToNode>>,
    pub(super) events: broadcast::Sender<Happened>,
    pub(super) past: VecDeque<Happened>,
    pub(super) cursor: u64,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) messages: mpsc::WeakSender<Message>,
    pub(super) clock: Clock,
}

type Waiting = (oneshot::Sender<Result<Answer, DriverError>>, Result<Answer, Refusal>);

/// What waits for its group to be durable.
#[derive(Default)]
struct Pending {
    changes: BTreeSet<Key>,
    effects: Vec<Effect>,
    answers: Vec<Waiting>,
    /// Who only looks sees the group's end: by then it is durable.
    readings: Vec<Message>,
    /// Commands in it.
    commands: usize,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.commands == 0 && self.readings.is_empty()
    }
}

/// How a write went; after a failure also whether it may have been written nevertheless.
struct Written {
    result: Result<(), StoreError>,
    unsure: bool,
    /// When the last try began.
    tried: Instant,
}

impl<S: Store> Engine<S> {
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::with_capacity(GROUP);
        loop {
            let beaten = tokio::select! {
                _ = beat.tick() => true,
                got = inbox.recv_many(&mut waiting, GROUP) => {
                    if got == 0 {
                        return;
                    }
                    false
                }
            };
            if beaten {
                // Time is told last: a heartbeat that waits here already must not come too late.
                while waiting.len() < GROUP
                    && let Ok(message) = inbox.try_recv()
                {
                    waiting.push(message);
                }
            }
            let mut stop = waiting.iter().any(|message| matches!(message, Message::Stop));
            if matches!(self.role, Role::Leading { .. }) {
                stop |= self.lead(&mut waiting, &mut inbox, beaten).await;
            } else {
                waiting.drain(..).for_each(|message| self.answer(message));
                if beaten {
                    self.seek().await;
                }
            }
            if stop {
                self.end().await;
                return;
            }
        }
    }

    /// One round of a leader: until nothing waits, or the next beat is due. True when it was told to stop.
    async fn lead(
        &mut self,
        waiting: &mut Vec<Message>,
        inbox: &mut mpsc::Receiver<Message>,
        beaten: bool,
    ) -> bool {
        let started = Instant::now();
        let silent = self.confirmed.elapsed();
        // After a pause of this process somebody else may lead by now: nobody is told anything before that is
        // known.
        if silent >= self.options.lease || (beaten && self.kept.elapsed() >= self.options.lease / 3) {
            self.keep().await;
        }
        let mut stop = false;
        let mut pending = Pending::default();
        if matches!(self.role, Role::Leading { .. }) {
            waiting.drain(..).for_each(|message| {
                stop |= take(
                    &mut self.farm,
                    &mut self.sessions,
                    &self.options.meters,
                    &mut self.clock,
                    &mut pending,
                    message,
                );
            });
        } else {
            waiting.drain(..).for_each(|message| self.answer(message));
        }
        let leading = matches!(self.role, Role::Leading { .. });
        let ticked = leading && beaten && self.ticked.elapsed() >= TICK;
        if ticked {
            self.ticked = Instant::now();
            take(
                &mut self.farm,
                &mut self.sessions,
                &self.options.meters,
                &mut self.clock,
                &mut pending,
                Message::Command(Command::Tick, None),
            );
        }
        while let Role::Leading { epoch } = self.role
            && !pending.is_empty()
        {
            // While a group is written the next one is applied; but who looks must see what is durable.
            let overlap = !stop && pending.readings.is_empty() && started.elapsed() < BEAT;
            let gathering = overlap.then_some((&mut *waiting, &mut *inbox, &mut stop));
            pending = self.commit(epoch, pending, gathering).await;
        }
        pending.readings.into_iter().for_each(|message| self.answer(message));
        if ticked && let Some(farm) = &self.farm {
            self.options.meters.observe(farm);
        }
        stop
    }

    /// Commits commands of the driver's own, as one group.
    pub(super) async fn carry_out<const N: usize>(&mut self, epoch: Epoch, commands: [Command; N]) {
        let mut pending = Pending::default();
        for command in commands {
            take(
                &mut self.farm,
                &mut self.sessions,
                &self.options.meters,
                &mut self.clock,
                &mut pending,
                Message::Command(command, None),
            );
        }
        self.commit(epoch, pending, None).await;
    }

    /// Answers one who only looks; refuses everything else, since this coordinator does not lead.
    fn answer(&mut self, message: Message) {
        match message {
            Message::Read(look) => self.look(look),
            Message::Watch(sender) => {
                let watch = self.readable().map(|_| Watch {
                    past: self.past.iter().cloned().collect(),
                    cursor: self.cursor,
                    events: self.events.subscribe(),
                });
                // Whoever asked may have gone away.
                let _ = sender.send(watch);
            }
            Message::Command(_, Some(answer)) => {
                let _ = answer.send(Err(self.role.refusal()));
            }
            Message::Open(_, sender) => {
                let _ = sender.send(Err(self.role.refusal()));
            }
            Message::Command(_, None) | Message::Stop => {}
        }
    }

    fn look(&self, look: Reading) {
        look(self.readable());
    }

    /// The farm, as far as it is durable.
    fn readable(&self) -> Result<&Farm, DriverError> {
        // While the store is away, memory is ahead of it, or behind: another coordinator may know better.
        match (&self.farm, &self.role) {
            (Some(farm), Role::Leading { .. } | Role::Following { .. }) => Ok(farm),
            _ => Err(self.role.refusal()),
        }
    }

    /// Writes a group and releases what waited for it; or remembers that it could not be written. Meanwhile the
    /// next group is gathered, where it may be.
    async fn commit(
        &mut self,
        epoch: Epoch,
        pending: Pending,
        gathering: Option<(&mut Vec<Message>, &mut mpsc::Receiver<Message>, &mut bool)>,
    ) -> Pending {
        let mut next = Pending::default();
        let Some(farm) = &self.farm else { return next };
        let Pending { changes, effects, answers, readings, .. } = pending;
        let mut events = Vec::new();
        for effect in &effects {
            let Effect::Job { job, event } = effect else { continue };
            if !matches!(event, JobEvent::Changed) {
                self.cursor += 1;
                events.push(Happened { cursor: self.cursor, job: *job, event: event.clone() });
            }
        }
        if !changes.is_empty() {
            let changes = changes
                .into_iter()
                .map(|key| {
                    let record = farm.record(&key);
                    (key, record)
                })
                .collect();
            let group = Arc::new(Group { changes, events: events.clone() });
            let writing = write(&mut self.store, &self.options, epoch, group.clone());
            let Written { result, unsure, tried } = match gathering {
                None => writing.await,
                Some((waiting, inbox, stop)) => {
                    let mut writing = pin!(writing);
                    loop {
                        let open = next.readings.is_empty() && next.commands < GROUP && !*stop;
                        tokio::select! {
                            biased;
                            written = &mut writing => break written,
                            // An end of the inbox is noticed by the next round.
                            got = inbox.recv_many(waiting, GROUP - next.commands.min(GROUP - 1)), if open => {
                                if got == 0 {
                                    *stop = true;
                                }
                                for message in waiting.drain(..) {
                                    *stop |= take(&mut self.farm, &mut self.sessions, &self.options.meters, &mut self.clock, &mut next, message);
                                }
                            }
                        }
                    }
                }
            };
            if let Err(failure) = result {
                self.options.meters.commits_failed.inc();
                self.unwritten.extend(group.changes.iter().map(|(key, _)| key.clone()));
                self.unwritten.append(&mut next.changes);
                self.not_written(&failure, epoch);
                for (answer, _) in answers {
                    let _ = answer.send(Err(self.role.failed(unsure)));
                }
                // These were never sent; but a store that has lost more gets all of memory.
                for (answer, _) in next.answers.drain(..) {
                    let _ = answer.send(Err(self.role.failed(unsure)));
                }
                next.readings.extend(readings);
                return Pending { readings: next.readings, ..Pending::default() };
            }
            self.confirmed = tried;
        }
        for (answer, told) in answers {
            let _ = answer.send(told.map_err(DriverError::Refused));
        }
        let mut events = events.into_iter();
        for effect in effects {
            match effect {
                Effect::Job { job, event: JobEvent::Changed } => self.changed(job),
                Effect::Job { .. } => {
                    if let Some(happened) = events.next() {
                        self.publish(happened);
                    }
                }
                Effect::Assign { session, assignment } => {
                    self.options.meters.assigned.inc();
                    self.send(session, ToNode::Assign(assignment));
                }
                Effect::Cancel { session, attempt, reason } => {
                    self.send(session, ToNode::Cancel { attempt, reason });
                }
                Effect::Acknowledge { session, attempt } => {
                    self.send(session, ToNode::Acknowledge(attempt));
                }
            }
        }
        // With readings nothing was gathered: what they see is durable.
        readings.into_iter().for_each(|message| self.answer(message));
        next
    }

    fn send(&mut self, session: Session, message: ToNode) {
        let Some(sender) = self.sessions.get(&session) else { return };
        if let Err(failure) = sender.try_send(message) {
            if matches!(failure, TrySendError::Full(_)) {
                warn!(session = session.0, "a node does not read what it is sent: cut off");
            }
            // Dropping the sender ends the connection; its attempts live on their leases.
            self.sessions.remove(&session);
        }
    }

    /// Tells watchers to look at the job again.
    pub(super) fn changed(&mut self, job: JobId) {
        let event = JobEvent::Changed;
        // Nobody watching is no mistake.
        let _ = self.events.send(Happened { cursor: self.cursor, job, event });
    }

    pub(super) fn publish(&mut self, happened: Happened) {
        if matches!(self.role, Role::Leading { .. }) {
            match &happened.event {
                JobEvent::Changed => {}
                JobEvent::ChunkFinished { seconds, frames, .. } => {
                    self.options.meters.finished(*seconds, frames.len());
                }
                JobEvent::ChunkFailed(failure) => self.options.meters.failed(failure.kind),
            }
        }
        self.past.push_back(happened.clone());
        if self.past.len() > REMEMBERED_EVENTS {
            self.past.pop_front();
        }
        let _ = self.events.send(happened);
    }

    async fn end(&mut self) {
        if let Role::Leading { epoch } = self.role {
            match self.store.resign(epoch).await {
                Ok(()) => info!("the farm is at rest in its store"),
                Err(failure) => error!(error = %chain(&failure), "the next leader has to wait for the lease"),
            }
        }
    }
}

/// Takes a message into the group that is gathered. True when it says stop.
fn take(
    farm: &mut Option<Farm>,
    sessions: &mut HashMap<Session, mpsc::Sender<ToNode>>,
    meters: &Meters,
    clock: &mut Clock,
    pending: &mut Pending,
    message: Message,
) -> bool {
    match message {
        Message::Command(command, answer) => {
            if let Command::Gone { session, .. } = &command {
                sessions.remove(session);
            }
            let Some(farm) = farm else { return false };
            let started = Instant::now();
            let Step { changes, effects, answer: told } = farm.apply(clock.now(), command);
            meters.decision_seconds.observe(started.elapsed().as_secs_f64());
            pending.commands += 1;
            pending.changes.extend(changes);
            pending.effects.extend(effects);
            if let Some(answer) = answer {
                pending.answers.push((answer, told));
            }
        }
        Message::Open(session, sender) => {
            let Some(farm) = farm else { return false };
            let (messages, receiver) = mpsc::channel(SESSION_QUEUE);
            let opened = Opened { tag: farm.tag().clone(), messages: receiver, sender: messages.downgrade() };
            if sender.send(Ok(opened)).is_ok() {
                sessions.insert(session, messages);
            }
        }
        Message::Stop => return true,
        reading => pending.readings.push(reading),
    }
    false
}

/// Writes a group, for as long as those who wait for it can be made to wait.
async fn write<S: Store>(store: &mut S, options: &DriverOptions, epoch: Epoch, group: Arc<Group>) -> Written {
    let started = Instant::now();
    let mut unsure = false;
    loop {
        let tried = Instant::now();
        let result = store.commit(epoch, group.clone()).await;
        options.meters.commit_seconds.observe(tried.elapsed().as_secs_f64());
        let Err(failure) = &result else { return Written { result, unsure: false, tried } };
        // What is behind gets all of memory.
        unsure |= failure.may_have_been_written() || matches!(failure, StoreError::Behind);
        if matches!(failure, StoreError::Deposed | StoreError::Behind) || started.elapsed() >= PATIENCE {
            return Written { result, unsure, tried };
        }
        warn!(error = %chain(failure), "a commit failed; trying again");
        sleep(PAUSE).await;
    }
}
