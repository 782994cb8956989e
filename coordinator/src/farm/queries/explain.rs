//! What people ask of a job: when will it be done, and why is it not running? Answers in one sentence, from what the
//! farm knows now.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hearth_workflows::Requirements;

use crate::farm::{
    model::{
        ids::{JobId, NodeName, Session, Timestamp},
        job::{Ended, Job, Phase},
        node::{Lack, Node},
        spec::JobSpec,
    },
    state::{Farm, limits::Bar},
};

/// Different reasons that one sentence names.
pub(in crate::farm) const TOLD: usize = 4;

/// The reason outside a finished job that keeps it from being put together or encoded.
fn hindrance(job: &Job) -> Option<String> {
    if job.hindered == 0 || !job.running.is_empty() {
        return None;
    }
    let latest = job.failures.back()?;
    Some(format!("it waits, and goes on by itself: {}", latest.message))
}

impl Farm {
    /// The same of all that waits.
    pub(in crate::farm) fn work_waiting(&self) -> f64 {
        let of_class = |(class, workflow)| self.usual_seconds(workflow) * self.classes.waiting(class) as f64;
        self.classes.ids().map(of_class).sum()
    }

    /// Why the job is not running, or how it does; one sentence.
    pub fn why(&self, id: JobId) -> Option<String> {
        let job = self.jobs.get(&id)?;
        let told = match job.phase {
            Phase::Ended(Ended::Done) => "it is done".to_owned(),
            Phase::Ended(Ended::Partial) => job.message.clone(),
            Phase::Ended(Ended::Failed) => {
                format!("it has failed: {}; `hearth retry {id}` tries it again", job.message)
            }
            Phase::Ended(Ended::Cancelled { .. }) if !job.pieces.is_empty() => format!(
                "it was cancelled; what was finished of it ({} frames) is kept for a while, in which `hearth retry` goes on with it",
                job.done.len()
            ),
            Phase::Ended(Ended::Cancelled { .. }) => "it was cancelled".to_owned(),
            _ if job.paused => format!("it is paused; `hearth resume {id}` lets it go on"),
            _ if job.surveying => {
                "the store has lost its latest writes: what is done of it is looked up on storage first"
                    .to_owned()
            }
            _ if let Some(awaited) = self.awaits_what(job) => awaited,
            Phase::Assembling | Phase::Delivering if let Some(hindrance) = hindrance(job) => hindrance,
            Phase::Assembling if job.running.is_empty() => self.why_not_delivered(
                &job.spec,
                "its frames are done, and wait for a node to put them together",
            ),
            Phase::Assembling => "its frames are done; the sequence is being put together".to_owned(),
            Phase::Delivering if job.running.is_empty() => {
                self.why_not_delivered(&job.spec, "it waits for a node that is free to encode it")
            }
            Phase::Delivering => "it is being encoded".to_owned(),
            Phase::Rendering if job.running.is_empty() => self.why_waiting(id, job),
            Phase::Rendering => self.how_it_runs(job),
        };
        Some(told)
    }

    fn how_it_runs(&self, job: &Job) -> String {
        let nodes = self.nodes_of(job);
        let named: Vec<&str> = nodes.iter().take(TOLD).map(|name| name.as_str()).collect();
        let more =
            if nodes.len() > TOLD { format!(" and {} more", nodes.len() - TOLD) } else { String::new() };
        let bar = self.bars(job).into_keys().next();
        let bar = bar.filter(|_| !job.waiting.is_empty()).map_or(String::new(), |bar| format!("; {bar}"));
        format!("it runs on {}{more}{bar}{}", named.join(", "), self.short_of_memory(job, &nodes))
    }

    /// Which of the nodes get fewer frames at a time than others would.
    fn short_of_memory(&self, job: &Job, nodes: &[&NodeName]) -> String {
        let known = job.spec.workflow().and_then(|workflow| self.workflows.get(workflow));
        let kinds: BTreeSet<&str> = nodes
            .iter()
            .filter_map(|name| Some(self.nodes.get(*name)?.capabilities.device.as_str()))
            .collect();
        let caps = known.into_iter().flat_map(|known| known.pace.caps());
        let told = caps.filter(|(kind, _)| kinds.contains(kind)).take(TOLD).map(|(kind, frames)| {
            format!(
                "; {kind} gets at most {frames} frames at a time, since more were too much for its memory (`hearth nodes refresh` has it tried again)"
            )
        });
        told.collect()
    }

    /// Why no node runs it.
    fn why_waiting(&self, id: JobId, job: &Job) -> String {
        let online: Vec<&Node> = self.nodes.values().filter(|node| node.session.is_some()).collect();
        if online.is_empty() {
            return "no node is connected to the farm".to_owned();
        }
        if online.iter().any(|node| node.session == Some(Session::ELSEWHERE)) {
            return "another coordinator leads, and knows what the nodes can run".to_owned();
        }
        let (able, lacks) = self.able(job, &online);
        if able.is_empty() {
            let mut lacks: Vec<String> = lacks.into_iter().collect();
            lacks.truncate(TOLD);
            return format!("none of {} connected nodes can run it: {}", online.len(), lacks.join("; "));
        }
        let latest = job.failures.back().map_or("", |failure| failure.message.as_str());
        let again = |until: Timestamp| {
            let seconds = until.since(self.now).as_secs_f64().ceil();
            match job.hindered {
                0 => format!("it is tried again in {seconds} s, after: {latest}"),
                _ => format!("it waits, and goes on by itself in {seconds} s if it can: {latest}"),
            }
        };
        if job.rest_until > self.now {
            return again(job.rest_until);
        }
        let until = |node: &&Node| job.avoid.get(&node.about.name).copied().filter(|until| *until > self.now);
        if let Some(first) = able.iter().map(until).min().flatten() {
            return again(first);
        }
        if let Some(until) = job.suspects.until().filter(|_| job.waiting.is_subset(&job.suspects.frames())) {
            return again(until);
        }
        // Limits bind where nobody with room may take it: those that may are busy.
        let bars: BTreeSet<String> = able
            .iter()
            .filter_map(|node| self.has_room(job, node).err())
            .map(|bar| bar.to_string())
            .collect();
        let may_begin = able.iter().any(|node| node.is_open() && self.has_room(job, node).is_ok());
        if !may_begin && !bars.is_empty() {
            return bars.into_iter().take(TOLD).collect::<Vec<_>>().join("; ");
        }
        let busy = able.iter().filter(|node| !node.chunks.is_empty()).count();
        if busy < able.len() {
            let workflow = job.spec.render().map_or("", |render| render.workflow_name.as_str());
            return format!(
                "those that have the models of {workflow} loaded end it sooner than others could begin"
            );
        }
        let ahead = self.ahead_in_show(id, job).len();
        let shows = self.queue.shows().filter(|(show, _)| **show != job.spec.show).count();
        let behind = match (ahead, shows) {
            (0, 0) => "it is next".to_owned(),
            (0, 1) => "it is the next of its show; another show has work, too".to_owned(),
            (0, shows) => format!("it is the next of its show; {shows} other shows have work, too"),
            (1, _) => "1 job of its show goes before it".to_owned(),
            (ahead, _) => format!("{ahead} jobs of its show go before it"),
        };
        let at: BTreeMap<JobId, usize> =
            able.iter().flat_map(|node| &node.chunks).fold(BTreeMap::new(), |mut at, attempt| {
                *at.entry(attempt.job).or_default() += 1;
                at
            });
        let most = at.into_iter().max_by_key(|(_, chunks)| *chunks).map(|(job, _)| job);
        let most = most.map_or(String::new(), |job| {
            format!(", {}with job {job}", if able.len() > 1 { "most of them " } else { "" })
        });
        match able.len() {
            1 => format!("the only node that can run it is busy{most}; {behind}"),
            nodes => format!("all {nodes} nodes that can run it are busy{most}; {behind}"),
        }
    }

    /// The connected nodes that could run the job now, and what the others lack.
    pub(in crate::farm) fn able<'a>(
        &self,
        job: &Job,
        online: &[&'a Node],
    ) -> (Vec<&'a Node>, BTreeSet<String>) {
        let mut lacks = BTreeSet::new();
        let mut able = Vec::new();
        for node in online {
            match self.lack_of(job, node) {
                Ok(()) => able.push(*node),
                Err(lack) => drop(lacks.insert(lack)),
            }
        }
        (able, lacks)
    }

    /// What the job needs of a ComfyUI with its parameters.
    pub(in crate::farm) fn requirements_of(&self, job: &Job) -> &Requirements {
        const NOTHING: &Requirements = &Requirements { classes: Vec::new(), models: Vec::new() };
        self.classes.needs(job.class).map_or(NOTHING, |(requirements, ..)| requirements)
    }

    /// Why the node cannot run the job now, whatever else it does.
    pub(in crate::farm) fn lack_of(&self, job: &Job, node: &Node) -> Result<(), String> {
        let known = job.spec.workflow().and_then(|workflow| self.workflows.get(workflow));
        let place = node.capabilities.lacks_place(&job.spec.pool, job.spec.roots());
        let requirements = self.requirements_of(job);
        let fit = place.and_then(|()| match (node.fits.get(&job.class), known) {
            (Some(Err(Lack::Tried(reason))), _) => Err(Lack::Tried(reason.clone())),
            (_, Some(known)) => node.capabilities.lacks(&known.workflow, requirements),
            (_, None) => Ok(()),
        });
        match fit {
            Ok(()) if node.is_ready() => Ok(()),
            Ok(()) if node.drained => Err("drained".to_owned()),
            Ok(()) if node.quarantine.is_some() => Err("in quarantine".to_owned()),
            Ok(()) => Err(format!("not ready: {}", node.reason)),
            // It has not said yet what it has.
            Err(_) if node.capabilities.classes.is_empty() && node.slots == 0 => {
                Err(format!("not ready: {}", node.reason))
            }
            Err(lack) => Err(lack.to_string()),
        }
    }

    /// What keeps nodes that could run the job from it, and how many.
    fn bars(&self, job: &Job) -> BTreeMap<String, usize> {
        let mut bars: BTreeMap<String, usize> = BTreeMap::new();
        let able =
            self.nodes.values().filter(|node| node.is_ready() && node.fits.get(&job.class) == Some(&Ok(())));
        for bar in able.filter_map(|node| self.has_room(job, node).err()) {
            *bars.entry(Bar::to_string(&bar)).or_default() += 1;
        }
        bars
    }

    /// What a job waits for, of which nothing can be handed out before.
    pub(in crate::farm) fn awaits_what(&self, job: &Job) -> Option<String> {
        let of_job = |after: JobId, awaited: &Job| match awaited.phase {
            Phase::Ended(Ended::Partial) => format!(
                "waits for frames {} of job {after}, which have failed; `hearth retry {after}` tries them again",
                awaited.failed
            ),
            Phase::Ended(Ended::Failed) => {
                format!("waits for job {after}, which has failed; `hearth retry {after}` tries it again")
            }
            _ => format!("waits for job {after}"),
        };
        let not_done = job
            .spec
            .after
            .iter()
            .filter_map(|after| Some((*after, self.jobs.get(after)?)))
            .find(|(_, awaited)| awaited.phase != Phase::Ended(Ended::Done));
        if let Some((after, awaited)) = not_done {
            return Some(of_job(after, awaited));
        }
        let nothing_yet = job.running.is_empty() && !job.waiting.is_empty() && job.open().is_empty();
        let (after, maker, missing) = self.awaited_frames(job).filter(|_| nothing_yet)?;
        Some(match maker.phase {
            Phase::Ended(_) => of_job(after, maker),
            Phase::Assembling => format!("waits for the frames of job {after} to be put together"),
            _ => format!("waits for frames {missing} of job {after}"),
        })
    }

    /// Why nobody puts together or delivers what is there; `otherwise`, when somebody soon will.
    pub(in crate::farm) fn why_not_delivered(&self, spec: &JobSpec, otherwise: &str) -> String {
        let online: Vec<_> = self.nodes.values().filter(|node| node.session.is_some()).collect();
        let mapped = |node: &&&Node| spec.roots().all(|root| node.capabilities.roots.contains(root));
        let able: Vec<_> = online.iter().filter(mapped).collect();
        if online.is_empty() {
            return "no node is connected to the farm".to_owned();
        }
        if able.is_empty() {
            let roots: Vec<&str> = spec.roots().collect();
            return format!(
                "none of {} connected nodes has storage {} mapped",
                online.len(),
                roots.join(", ")
            );
        }
        if able.iter().all(|node| node.drained || node.chore.is_some()) {
            return "every node that could is drained or at another assembly or delivery".to_owned();
        }
        otherwise.to_owned()
    }

    pub(in crate::farm) fn is_late_for_people(&self, id: JobId) -> bool {
        let Some(job) = self.jobs.get(&id) else { return false };
        let Some(deadline) = job.spec.terms.deadline else { return false };
        let expected = self.eta(id).map_or(Duration::ZERO, |eta| eta.expected);
        !job.is_ended() && self.now.after(expected) > deadline
    }
}
