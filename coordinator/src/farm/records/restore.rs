//! From records back to a farm: the whole of it after a start, or what has changed, for those who follow.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hearth_workflows::{Workflow, WorkflowId};

use crate::farm::{
    model::{
        attempt::{Attempt, Estimate, Work},
        command::Step,
        ids::{AttemptId, FarmTag, JobId, NodeName, Session, Timestamp},
        job::{Ended, Job, Phase, Piece},
        key::{Key, Record, RecordError, SCHEMA},
        node::{Node, NodeAbout},
        spec::JobSpec,
    },
    records::{AttemptRecord, JobRecord, MetaRecord, NodeRecord, WorkflowRecord, decode, missing},
    state::{
        Farm, FarmConfig,
        pace::{Pace, PaceRecord},
        share::SharesRecord,
    },
};

/// Records that are set aside at most. More are no accident to a record, but to the store.
const MOST_ASIDE: usize = 100;

impl Farm {
    /// The farm that `records` describe, at the time `now`, as the coordinator that wrote them has it: whoever
    /// takes over from it applies [`crate::farm::Command::Disconnected`] first. `None` when there are no records: a
    /// new farm.
    pub fn restore(
        now: Timestamp,
        config: FarmConfig,
        records: &BTreeMap<Key, Record>,
    ) -> Result<Option<Self>, RecordError> {
        if !records.contains_key(&Key::Meta) {
            return Ok(None);
        }
        let mut farm = Farm::new(config, FarmTag(String::new()));
        farm.absorb(now, records.iter().map(|(key, record)| (key, Some(record))))?;
        Ok(Some(farm))
    }

    /// The same, but what cannot be read is set aside, with all of the job that it belongs to: one broken record does
    /// not keep everybody else waiting. It stays in the store as it is. The errors name it.
    ///
    /// # Errors
    /// When the farm's own record cannot be read, or a newer Hearth has written it, or very much is broken.
    pub fn restore_readable(
        now: Timestamp,
        config: &FarmConfig,
        records: &BTreeMap<Key, Record>,
    ) -> Result<(Option<Self>, Vec<RecordError>), RecordError> {
        let mut aside = Vec::new();
        let mut readable = None;
        loop {
            let error = match Self::restore(now, config.clone(), readable.as_ref().unwrap_or(records)) {
                Ok(farm) => return Ok((farm, aside)),
                Err(error) => error,
            };
            let Some(key) = error.key().filter(|_| aside.len() < MOST_ASIDE) else { return Err(error) };
            let readable = readable.get_or_insert_with(|| records.clone());
            let carried = |(other, record): (&Key, &Record)| {
                if key.carries(other, record) { other.job() } else { None }
            };
            let jobs: BTreeSet<JobId> = readable.iter().filter_map(carried).collect();
            readable.retain(|other, record| {
                !key.carries(other, record) && other.job().is_none_or(|job| !jobs.contains(&job))
            });
            aside.push(error);
        }
    }

    /// Takes over what has changed, in the order of keys; `None`: the record is gone. That order brings
    /// workflows before specs, specs before jobs, jobs before pieces and attempts.
    pub fn absorb<'a>(
        &mut self,
        now: Timestamp,
        changes: impl IntoIterator<Item = (&'a Key, Option<&'a Record>)>,
    ) -> Result<BTreeSet<JobId>, RecordError> {
        let mut specs: BTreeMap<JobId, JobSpec> = BTreeMap::new();
        let mut touched = BTreeSet::new();
        for (key, record) in changes {
            match (key, record) {
                (Key::Meta, Some(record)) => {
                    let meta: MetaRecord = decode(key, record)?;
                    if meta.schema > SCHEMA {
                        return Err(RecordError::NewerSchema { found: meta.schema });
                    }
                    (self.tag, self.next_job) = (meta.tag, meta.next_job);
                }
                (Key::Shares, Some(record)) => {
                    let record: SharesRecord = decode(key, record)?;
                    self.shares.restore(record.clone());
                    self.kept_shares = Some(record);
                }
                (Key::Workflow(id), Some(record)) => self.absorb_workflow(key, id, record)?,
                (Key::Workflow(id), None) => {
                    self.workflows.remove(id);
                }
                (Key::Pace(id), Some(record)) => {
                    let record: PaceRecord = decode(key, record)?;
                    if let Some(known) = self.workflows.get_mut(id) {
                        known.pace = Pace::restored(record.clone());
                        known.kept = Some(record);
                    }
                }
                (Key::Spec(id), Some(record)) => {
                    specs.insert(*id, decode(key, record)?);
                }
                (Key::Job(id), Some(record)) => {
                    touched.insert(*id);
                    self.absorb_job(key, *id, specs.remove(id), record)?;
                }
                (Key::Job(id), None) => {
                    touched.insert(*id);
                    self.drop_job(*id);
                }
                (Key::Piece(id), record) => self.absorb_piece(key, *id, record)?,
                (Key::Attempt(id), record) => {
                    touched.insert(id.job);
                    self.absorb_attempt(now, key, *id, record)?;
                }
                (Key::Node(name), Some(record)) => self.absorb_node(now, key, name, record)?,
                (Key::Node(name), None) => self.drop_node(name),
                (Key::Preset(id), Some(record)) => {
                    self.presets.insert(id.clone(), decode(key, record)?);
                }
                (Key::Preset(id), None) => {
                    self.presets.remove(id);
                }
                (Key::Meta | Key::Shares | Key::Pace(_) | Key::Spec(_), None) => {}
            }
        }
        for id in &touched {
            self.follow(*id);
            self.rank(*id);
            self.dependents_of(*id).into_iter().for_each(|id| self.rank(id));
        }
        Ok(touched)
    }

    fn absorb_workflow(&mut self, key: &Key, id: &WorkflowId, record: &Record) -> Result<(), RecordError> {
        let WorkflowRecord { name, manifest, graph } = decode(key, record)?;
        let workflow = Workflow::parse(&name, &manifest, &graph)
            .map_err(|source| RecordError::Workflow { key: key.to_string(), source: Box::new(source) })?;
        let jobs = self.jobs.values().filter(|job| job.spec.workflow() == Some(id)).count();
        self.know(id.clone(), Arc::new(workflow));
        if let Some(known) = self.workflows.get_mut(id) {
            known.jobs = jobs;
        }
        Ok(())
    }

    /// `spec` comes with a new job, and with one that was edited.
    fn absorb_job(
        &mut self,
        key: &Key,
        id: JobId,
        spec: Option<JobSpec>,
        record: &Record,
    ) -> Result<(), RecordError> {
        let record: JobRecord = decode(key, record)?;
        self.unrank(id);
        if self.jobs.contains_key(&id) {
            if let Some(spec) = spec {
                self.replace_spec(id, spec);
            }
        } else {
            let spec = spec.ok_or_else(|| missing(key, "its spec"))?;
            if let Some(workflow) = spec.workflow().filter(|workflow| !self.workflows.contains_key(*workflow))
            {
                return Err(missing(key, &format!("workflow {workflow}")));
            }
            let (class, variant) = self.index(id, &spec);
            let job = Job::new(spec, record.priority, record.submitted);
            self.jobs.insert(id, Job { class, variant, ..job });
        }
        self.unkeep(id);
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        if let Some(before) = job.ended {
            self.ended.remove(&(before, id));
        }
        job.priority = record.priority;
        job.phase = record.phase;
        job.paused = record.paused;
        job.waiting = record.waiting;
        job.failed = record.failed;
        job.tries = record.tries;
        job.chore_tries = record.chore_tries;
        job.next_attempt = record.next_attempt;
        job.failures = record.failures.into();
        job.lost = record.lost;
        job.makers = record.makers;
        job.message = record.message;
        job.submitted = record.submitted;
        job.started = record.started;
        job.ended = record.ended;
        if job.phase == Phase::Ended(Ended::Done) {
            job.done = job.spec.frames.clone();
        }
        let output = job.spec.output.as_str();
        match job.ended {
            Some(ended) => {
                self.ended.insert((ended, id));
                if job.phase == Phase::Ended(Ended::Cancelled { cleaned: false }) {
                    self.kept.insert((ended.after(self.config.keep_cancelled), id));
                }
                if self.outputs.get(output) == Some(&id) {
                    self.outputs.remove(output);
                }
            }
            None => {
                self.outputs.insert(output.to_owned(), id);
            }
        }
        Ok(())
    }

    fn drop_job(&mut self, id: JobId) {
        self.unrank(id);
        self.unkeep(id);
        let Some(job) = self.jobs.remove(&id) else { return };
        if let Some(ended) = job.ended {
            self.ended.remove(&(ended, id));
        }
        self.unindex(id, &job);
        if self.outputs.get(job.spec.output.as_str()) == Some(&id) {
            self.outputs.remove(job.spec.output.as_str());
        }
    }

    fn absorb_piece(&mut self, key: &Key, id: AttemptId, record: Option<&Record>) -> Result<(), RecordError> {
        let piece: Option<Piece> = record.map(|record| decode(key, record)).transpose()?;
        let Some(job) = self.jobs.get_mut(&id.job) else {
            return if piece.is_some() { Err(missing(key, "its job")) } else { Ok(()) };
        };
        let before = job.pieces.remove(&id.number);
        if job.phase != Phase::Ended(Ended::Done)
            && let Some(before) = before
        {
            job.done.remove_all(&before.frames);
        }
        if let Some(piece) = piece {
            job.done.insert_all(&piece.frames);
            job.pieces.insert(id.number, piece);
        }
        Ok(())
    }

    fn absorb_attempt(
        &mut self,
        now: Timestamp,
        key: &Key,
        id: AttemptId,
        record: Option<&Record>,
    ) -> Result<(), RecordError> {
        let progress = self.attempts.get(&id).and_then(|attempt| attempt.progress.clone());
        self.release(now, id, &mut Step::default());
        let Some(record) = record else { return Ok(()) };
        let AttemptRecord { node: name, work, assigned } = decode(key, record)?;
        let job = self.jobs.get_mut(&id.job).ok_or_else(|| missing(key, "its job"))?;
        job.running.insert(id);
        if work.is_chunk() {
            self.chunk_begins(id.job, &name);
        }
        let node = self.absorbed_node(now, &name);
        match work {
            Work::Chunk(_) | Work::Spare { .. } => {
                node.chunks.insert(id);
            }
            Work::Assembly | Work::Delivery | Work::CleanUp => node.chore = Some(id),
        }
        if let Work::Spare { of, .. } = &work
            && let Some(late) = self.attempts.get_mut(&AttemptId { number: *of, ..id })
        {
            late.spare = Some(id.number);
        }
        let lease_until = now.after(self.config.lease);
        self.reopen(&name);
        self.enter(
            id,
            Attempt {
                node: name,
                work,
                assigned,
                lease_until,
                progress,
                estimate: Estimate::default(),
                spare: None,
                begun: None,
            },
        );
        Ok(())
    }

    fn absorb_node(
        &mut self,
        now: Timestamp,
        key: &Key,
        name: &NodeName,
        record: &Record,
    ) -> Result<(), RecordError> {
        let record: NodeRecord = decode(key, record)?;
        let node = self.absorbed_node(now, name);
        node.drained = record.drained;
        node.quarantine = record.quarantine;
        node.session = record.online.then_some(Session::ELSEWHERE);
        node.about.host = record.host;
        node.about.agent_version = record.agent_version;
        node.slots = record.slots;
        node.reason = record.reason;
        node.capabilities.pools = record.pools;
        node.capabilities.roots = record.roots.into_iter().collect();
        node.capabilities.device = record.device;
        node.capabilities.vram_bytes = record.vram_bytes;
        node.capabilities.comfyui_version = record.comfyui_version;
        self.reopen(name);
        Ok(())
    }

    fn absorbed_node(&mut self, now: Timestamp, name: &NodeName) -> &mut Node {
        self.nodes.entry(name.clone()).or_insert_with(|| {
            let about = NodeAbout {
                name: name.clone(),
                host: String::new(),
                agent_version: String::new(),
                instance: String::new(),
            };
            Node::new(about, now)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::{Capabilities, Command};

    #[test]
    fn what_cannot_be_read_is_named_and_set_aside() {
        let mut farm = Farm::new(FarmConfig::default(), FarmTag("abcd".to_owned()));
        let mut records = BTreeMap::new();
        for (session, name) in [(Session(1), "a"), (Session(2), "b")] {
            let about = Box::new(NodeAbout {
                name: name.into(),
                host: name.to_owned(),
                agent_version: String::new(),
                instance: String::new(),
            });
            let capabilities = Box::new(Capabilities::default());
            let (slots, reason, held) = (1, String::new(), Vec::new());
            farm.apply(Timestamp(1), Command::Hello { session, about, capabilities, slots, reason, held });
            let key = Key::Node(name.into());
            records.insert(key.clone(), farm.record(&key).expect("a record"));
        }
        records.insert(Key::Meta, farm.record(&Key::Meta).expect("a record"));
        let whole = records.clone();
        let restored = |records: &BTreeMap<Key, Record>| {
            Farm::restore_readable(Timestamp(2), &FarmConfig::default(), records)
        };
        assert!(restored(&whole).expect("readable").1.is_empty());
        records.insert(Key::Node("b".into()), Record(r#"{"host": 1e999}"#.to_owned()));
        // A job whose spec is lost.
        records.insert(Key::Job(JobId(7)), Record("{}".to_owned()));
        records.insert(Key::Attempt(AttemptId { job: JobId(7), number: 1 }), Record("{}".to_owned()));
        let (farm, aside) = restored(&records).expect("the rest is readable");
        assert_eq!(farm.expect("a farm").nodes().len(), 1);
        let told: Vec<String> = aside.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("job:7") && told[1].contains("node:b"), "{told:?}");
        // Without its own record there is no farm.
        records.insert(Key::Meta, Record("{}".to_owned()));
        assert!(restored(&records).is_err());
    }
}
