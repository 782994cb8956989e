//! Who leads: finding out, taking over, stepping down, and what to do about a store that is away or has lost
//! something.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use hearth_telemetry::chain;
use tracing::{error, info, warn};

use super::{DriverError, Message, Standing, engine::Engine};
use crate::{
    farm::{Command, Farm, JobFilter, Key, Record},
    store::{Changed, Epoch, Group, Lead, News, Store, StoreError, Trust},
};

/// Records written at once where everything is written.
const WRITTEN_AT_ONCE: usize = 20_000;

/// Jobs surveyed at a time: storage is slow, but there are many jobs.
const SURVEYED_AT_ONCE: usize = 8;

/// What a coordinator is at the moment.
#[derive(Debug, Clone)]
pub(super) enum Role {
    Leading {
        epoch: Epoch,
    },
    Following {
        leader: Option<String>,
    },
    /// The store does not answer. `led`: this coordinator led when it went away, and may still do.
    Away {
        why: String,
        led: Option<Epoch>,
    },
}

impl Role {
    /// Why nothing can be changed here.
    pub(super) fn refusal(&self) -> DriverError {
        match self {
            Self::Leading { .. } => DriverError::Stopped,
            Self::Following { leader } => DriverError::Follows { leader: leader.clone() },
            Self::Away { why, .. } => DriverError::Away { why: why.clone() },
        }
    }

    /// The same for one whose command was under way; `unsure`: it may have been written.
    pub(super) fn failed(&self, unsure: bool) -> DriverError {
        match self {
            Self::Away { why, .. } if unsure => DriverError::Unsure { why: why.clone() },
            other => other.refusal(),
        }
    }
}

impl<S: Store> Engine<S> {
    /// The first look at the store. Fails when no waiting will help.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        self.cursor = self.clock.now().0 << 20;
        match self.try_to_lead().await {
            Err(failure) if !failure.may_pass() => Err(failure),
            Err(failure) => {
                self.away(&failure, None);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// One step towards knowing who leads; for one who does not.
    pub(super) async fn seek(&mut self) {
        let sought = match &self.role {
            Role::Leading { .. } => Ok(()),
            Role::Following { .. } | Role::Away { led: None, .. } => self.follow().await,
            Role::Away { led: Some(epoch), .. } => self.resume(*epoch).await,
        };
        if let Err(failure) = sought {
            let led = match (&self.role, &failure) {
                (_, StoreError::Deposed) => return self.step_down(),
                (Role::Away { led, .. }, _) => *led,
                _ => None,
            };
            self.away(&failure, led);
        }
    }

    async fn follow(&mut self) -> Result<(), StoreError> {
        let News { leader, changed } = self.store.follow().await?;
        let back = *self.back.get_or_insert_with(Instant::now);
        if leader.is_some() {
            self.leader_seen = Some(Instant::now());
        }
        match changed {
            Changed::Some(group) if self.farm.is_some() => {
                if let Err(failure) = self.absorb(&group) {
                    warn!(error = %chain(&failure), "a change makes no sense here: everything is loaded again");
                    self.farm = None;
                } else if leader.is_some() && group.changes.iter().any(|(key, _)| *key == Key::Meta) {
                    // A leader that writes the farm again writes its own record last.
                    self.lost = false;
                }
            }
            Changed::Some(_) | Changed::Everything => self.copy().await?,
            // Its leader writes it again; or this process will, when it leads.
            Changed::Behind => self.lost = true,
        }
        let lease = self.options.lease;
        match leader {
            Some(leader) => {
                self.stand(Role::Following { leader: Some(leader) });
                Ok(())
            }
            // Who remembers nothing lets those go first who may remember what the store has lost.
            None if self.farm.is_none() && back.elapsed() < lease => {
                self.stand(Role::Following { leader: None });
                Ok(())
            }
            // The store has lost its data with its leader's lease. That leader still lives, as far as anybody knows, has
            // what was acknowledged a moment ago, and writes it back: whoever leads from an older copy would lose that. It
            // notices within a lease, and gets another one to be seen by those who look now and then.
            None if (self.lost || self.farm.is_none())
                && self.leader_seen.is_some_and(|seen| seen.elapsed() < 2 * lease) =>
            {
                self.stand(Role::Following { leader: None });
                Ok(())
            }
            None => self.try_to_lead().await,
        }
    }

    /// Loads a copy of the farm that another leads.
    async fn copy(&mut self) -> Result<(), StoreError> {
        // Whatever happens below, an older copy does not fit what is told next.
        let older = self.farm.take();
        let mut records = self.store.load().await?;
        if !records.contains_key(&Key::Meta) {
            // There is no farm in it: it has lost the one that is remembered here.
            self.lost |= older.is_some();
            self.farm = older;
            return Ok(());
        }
        // What was written while it was loaded may be there in part; the look makes it whole.
        let Changed::Some(group) = self.store.follow().await?.changed else { return Ok(()) };
        for (key, record) in group.changes {
            match record {
                Some(record) => records.insert(key, record),
                None => records.remove(&key),
            };
        }
        self.farm = self.restored(&records)?;
        self.lost = false;
        if let Some(farm) = &self.farm {
            let jobs: Vec<_> = farm.jobs(&JobFilter { limit: usize::MAX, ..JobFilter::default() }).0;
            jobs.into_iter().for_each(|job| self.changed(job.id));
        }
        Ok(())
    }

    /// The farm in the store, but for what of it cannot be read.
    fn restored(&mut self, records: &BTreeMap<Key, Record>) -> Result<Option<Farm>, StoreError> {
        let now = self.clock.now();
        let (farm, aside) = Farm::restore_readable(now, &self.options.farm, records)?;
        self.aside.clear();
        if !aside.is_empty() {
            let read: BTreeSet<Key> = farm.iter().flat_map(Farm::keys).collect();
            self.aside.extend(records.keys().filter(|key| !read.contains(*key)).cloned());
        }
        for failure in aside {
            error!(
                error = %chain(&failure),
                "set aside, with all of its job; it stays in the store, and `hearth farm export` shows it"
            );
        }
        Ok(farm)
    }

    fn absorb(&mut self, group: &Group) -> Result<(), StoreError> {
        let Some(farm) = &mut self.farm else { return Ok(()) };
        let touched =
            farm.absorb(self.clock.now(), group.changes.iter().map(|(key, record)| (key, record.as_ref())))?;
        for happened in &group.events {
            self.cursor = self.cursor.max(happened.cursor);
            self.publish(happened.clone());
        }
        touched.into_iter().for_each(|job| self.changed(job));
        Ok(())
    }

    async fn try_to_lead(&mut self) -> Result<(), StoreError> {
        let tried = Instant::now();
        match self.store.lead().await? {
            Lead::Theirs { address } => {
                if self.farm.is_none() {
                    self.copy().await?;
                }
                self.stand(Role::Following { leader: Some(address) });
                Ok(())
            }
            Lead::Ours { epoch, trust } => {
                self.confirmed = tried;
                self.take_over(epoch, trust).await
            }
        }
    }

    /// Becomes the leader of the farm that is in the store; of the one that it remembers itself, where the store
    /// has less; of a new one, where there is none.
    async fn take_over(&mut self, epoch: Epoch, trust: Trust) -> Result<(), StoreError> {
        let records = self.store.load().await?;
        // It has lost the farm that is remembered here, whatever has been written to it since.
        let emptied = self.lost && !records.contains_key(&Key::Meta);
        if (trust == Trust::Behind || self.restoring || emptied) && self.farm.is_some() {
            self.restore_store(epoch, &records).await?;
        } else {
            self.farm = None;
            let config = self.options.farm.clone();
            let farm = match self.restored(&records)? {
                Some(farm) => farm,
                None => {
                    let farm = Farm::new(config, self.options.tag.clone());
                    write_all(&mut self.store, epoch, difference(&farm, &records)).await?;
                    farm
                }
            };
            self.farm = Some(farm);
        }
        self.cursor = self.cursor.max(self.clock.now().0 << 20) + 1;
        self.settled = trust == Trust::Whole;
        self.in_step();
        self.lost = false;
        self.stand(Role::Leading { epoch });
        if trust == Trust::Whole {
            self.carry_out(epoch, [Command::Disconnected]).await;
        } else {
            warn!("the store may have lost its latest writes: every open job is looked up on storage first");
            // In one group: what is distrusted once stays so, whatever happens to the store in between.
            self.carry_out(epoch, [Command::Disconnected, Command::Distrust]).await;
            self.survey();
        }
        if let Some(farm) = &self.farm {
            let jobs = farm.jobs(&JobFilter::default()).1;
            info!(farm = %farm.tag().0, epoch = epoch.0, jobs, "leading");
        }
        Ok(())
    }

    /// Writes into the store what it has lost and this process still knows.
    async fn restore_store(
        &mut self,
        epoch: Epoch,
        records: &BTreeMap<Key, Record>,
    ) -> Result<(), StoreError> {
        let Some(farm) = &self.farm else { return Ok(()) };
        let mut lost = difference(farm, records);
        // What could not be read stays as it is: somebody may mend it.
        lost.retain(|(key, record)| record.is_some() || !self.aside.contains(key));
        warn!(
            records = lost.len(),
            "the store has lost records that are remembered here: writing them again"
        );
        // Until all of it is there, what is in the store is no farm.
        self.restoring = true;
        write_all(&mut self.store, epoch, lost).await?;
        self.restoring = false;
        Ok(())
    }

    /// The store is back, and this coordinator led when it went away.
    async fn resume(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        let tried = Instant::now();
        let mut epoch = match self.store.catch_up(epoch).await {
            Ok(()) if self.restoring => self.lead_again().await?,
            // Those who asked were told that nothing was changed, or that nobody knows: memory goes back to what
            // is durable.
            Ok(()) if self.ahead => {
                let records = self.store.load().await?;
                if self.has_lost(&records) {
                    // Somebody has removed some of it: what was acknowledged is here alone.
                    self.restore_store(epoch, &records).await?;
                } else if self.settled {
                    self.farm = self.restored(&records)?;
                } else {
                    return self.take_over(epoch, Trust::Suspect).await;
                }
                epoch
            }
            Ok(()) => epoch,
            Err(StoreError::Behind) => self.lead_again().await?,
            Err(failure) => return Err(failure),
        };
        self.in_step();
        match self.store.keep(epoch, self.settled, self.jobs()).await {
            // Somebody has removed some of it meanwhile.
            Err(StoreError::Behind) => epoch = self.lead_again().await?,
            kept => kept?,
        }
        self.confirmed = tried;
        self.stand(Role::Leading { epoch });
        info!("the store is back; the farm goes on");
        self.carry_out(epoch, [Command::Disconnected]).await;
        // What surveys found while nothing could be written was not heard.
        self.survey();
        Ok(())
    }

    /// Memory and store are the same again.
    fn in_step(&mut self) {
        self.ahead = false;
        self.unwritten.clear();
    }

    /// Whether the store lacks something that was durable.
    fn has_lost(&self, records: &BTreeMap<Key, Record>) -> bool {
        let Some(farm) = &self.farm else { return false };
        farm.keys().iter().any(|key| !records.contains_key(key) && !self.unwritten.contains(key))
    }

    /// How many jobs the store has, as far as this process knows.
    fn jobs(&self) -> usize {
        self.farm.as_ref().filter(|_| !self.ahead).map_or(0, Farm::job_count)
    }

    /// The store has less than this leader has written. Unless another leads by now, it gets back what it lost.
    async fn lead_again(&mut self) -> Result<Epoch, StoreError> {
        let Lead::Ours { epoch, .. } = self.store.lead().await? else { return Err(StoreError::Deposed) };
        let records = self.store.load().await?;
        self.restore_store(epoch, &records).await?;
        Ok(epoch)
    }

    /// Renews the lease, or finds out that this coordinator does not lead any more.
    pub(super) async fn keep(&mut self) {
        let Role::Leading { epoch } = self.role else { return };
        if !self.settled && self.farm.as_ref().is_some_and(|farm| farm.to_survey().is_empty()) {
            info!("every job was looked up; the store is trusted again");
            self.settled = true;
        }
        let tried = Instant::now();
        let mut kept = self.store.keep(epoch, self.settled, self.jobs()).await;
        if !matches!(kept, Ok(()) | Err(StoreError::Deposed | StoreError::Behind)) {
            // Once more: a connection that was cut is made anew.
            kept = self.store.keep(epoch, self.settled, self.jobs()).await;
        }
        if matches!(kept, Err(StoreError::Behind)) {
            kept = self.lead_again().await.map(|epoch| self.stand(Role::Leading { epoch }));
        }
        match kept {
            Ok(()) => (self.confirmed, self.kept) = (tried, tried),
            Err(failure) => self.lost_store(&failure, epoch),
        }
    }

    /// A group is in memory and not in the store.
    pub(super) fn not_written(&mut self, failure: &StoreError, epoch: Epoch) {
        self.ahead = true;
        self.lost_store(failure, epoch);
    }

    fn lost_store(&mut self, failure: &StoreError, epoch: Epoch) {
        match failure {
            StoreError::Deposed => self.step_down(),
            failure => self.away(failure, Some(epoch)),
        }
    }

    /// Another leads: what is in memory here is worth nothing any more.
    fn step_down(&mut self) {
        warn!("another coordinator leads by now; following it");
        self.farm = None;
        self.in_step();
        self.restoring = false;
        self.sessions.clear();
        self.stand(Role::Following { leader: None });
    }

    /// Nothing can be written. Nodes are cut off: they keep their results, and come back with them.
    fn away(&mut self, failure: &StoreError, led: Option<Epoch>) {
        let why = chain(failure);
        let known = matches!(&self.role, Role::Away { why: before, .. } if *before == why);
        if !known {
            error!(error = why, "the store is away; trying until it is back");
        }
        self.sessions.clear();
        self.back = None;
        self.stand(Role::Away { why, led });
    }

    fn stand(&mut self, role: Role) {
        let standing = match &role {
            Role::Leading { .. } => Standing::Leading,
            Role::Following { leader } => Standing::Following { leader: leader.clone() },
            Role::Away { why, .. } => Standing::Away { why: why.clone() },
        };
        self.options.meters.stands(&standing);
        self.standing.send_if_modified(|before| std::mem::replace(before, standing.clone()) != standing);
        self.role = role;
    }

    /// Has every job that waits for it looked up on storage; the answers come as commands.
    fn survey(&self) {
        let Some(farm) = &self.farm else { return };
        let (jobs, survey, messages) = (farm.to_survey(), self.options.survey.clone(), self.messages.clone());
        let (jobs, tag) = (Arc::new(std::sync::Mutex::new(jobs)), farm.tag().clone());
        // Those of an earlier survey stop, and are not heard any more.
        let (current, mine) = (self.surveys.clone(), self.surveys.fetch_add(1, Ordering::Relaxed) + 1);
        for _ in 0..SURVEYED_AT_ONCE {
            let (jobs, survey, messages) = (jobs.clone(), survey.clone(), messages.clone());
            let (tag, current) = (tag.clone(), current.clone());
            tokio::task::spawn_blocking(move || {
                loop {
                    let next = jobs.lock().ok().and_then(|mut jobs| jobs.pop());
                    let (Some(next), Some(messages)) = (next, messages.upgrade()) else { return };
                    if current.load(Ordering::Relaxed) != mine {
                        return;
                    }
                    let (found, assembled) = survey(&tag, &next);
                    if current.load(Ordering::Relaxed) != mine {
                        return;
                    }
                    let command = Command::Surveyed { job: next.job, found, assembled };
                    if messages.blocking_send(Message::Command(command, None)).is_err() {
                        return;
                    }
                }
            });
        }
    }
}

/// What has to be written to make `records` those of the farm.
pub(crate) fn difference(farm: &Farm, records: &BTreeMap<Key, Record>) -> Vec<(Key, Option<Record>)> {
    let ours: BTreeMap<Key, Record> =
        farm.keys().into_iter().filter_map(|key| farm.record(&key).map(|record| (key, record))).collect();
    let gone = records.keys().filter(|key| !ours.contains_key(key)).map(|key| (key.clone(), None));
    let mut all: Vec<_> = gone.collect();
    let changed = ours.into_iter().filter(|(key, record)| records.get(key) != Some(record));
    all.extend(changed.map(|(key, record)| (key, Some(record))));
    all
}

/// Writes in pieces. Meta goes last: a store without it is no farm yet, and is begun again.
pub(crate) async fn write_all<S: Store>(
    store: &mut S,
    epoch: Epoch,
    mut changes: Vec<(Key, Option<Record>)>,
) -> Result<(), StoreError> {
    changes.sort_by(|(a, _), (b, _)| b.cmp(a));
    for some in changes.chunks(WRITTEN_AT_ONCE) {
        let group = Group { changes: some.to_vec(), events: Vec::new() };
        store.commit(epoch, Arc::new(group)).await?;
    }
    Ok(())
}
