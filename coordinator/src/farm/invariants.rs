//! What must hold after every step. The simulation and the tests check it; nothing else needs it.

use hearth_workflows::FrameSet;

use crate::farm::{
    model::{
        attempt::Work,
        command::{AssignedWork, Assignment, Effect, Step},
        ids::{JobId, Timestamp},
        job::{Ended, Job, Phase},
        node::Node,
    },
    scheduler::carve::may_prefetch,
    state::Farm,
};

/// Checks every invariant of the farm; the text says which is broken, and where.
pub fn check(farm: &Farm) -> Result<(), String> {
    for (id, job) in &farm.jobs {
        check_frames(farm, *id, job).map_err(|what| format!("job {id}: {what}"))?;
        check_queues(farm, *id, job).map_err(|what| format!("job {id}: {what}"))?;
    }
    check_nodes(farm)?;
    for id in farm.behind.all() {
        if farm.attempts.get(id).is_none_or(|held| held.begun.is_some() || !held.work.is_chunk()) {
            return Err(format!("attempt {id} does not wait behind another"));
        }
    }
    if farm.leases.len() != farm.attempts.len() {
        return Err(format!("{} leases for {} attempts", farm.leases.len(), farm.attempts.len()));
    }
    for (id, attempt) in &farm.attempts {
        if !farm.leases.contains(&(attempt.lease_until, *id)) {
            return Err(format!("attempt {id} has no lease"));
        }
        let running = farm.jobs.get(&id.job).is_some_and(|job| job.running.contains(id));
        if !running {
            return Err(format!("attempt {id} is not among its job's"));
        }
    }
    Ok(())
}

/// Checks what a step has handed out: no more than the node has slots for, nothing that it cannot run, nothing
/// of a paused job. With `by_rank` also that no better-ranked job was passed over; a step in which frames came
/// back after something was handed out (time passing, a node's hello) cannot be judged by its end.
pub fn check_handed_out(farm: &Farm, now: Timestamp, step: &Step, by_rank: bool) -> Result<(), String> {
    // Withdrawn attempts have freed a node after it was given something.
    let by_rank = by_rank && !step.effects.iter().any(|effect| matches!(effect, Effect::Cancel { .. }));
    for effect in &step.effects {
        let Effect::Assign { session, assignment } = effect else { continue };
        let id = assignment.attempt;
        let needs_input = matches!(assignment.work, AssignedWork::Delivery | AssignedWork::Chunk(_));
        if needs_input && !(farm.may_begin(&assignment.spec) && has_source(farm, assignment)) {
            return Err(format!("attempt {id} works on what is not there yet"));
        }
        if !matches!(assignment.work, AssignedWork::Chunk(_)) {
            continue;
        }
        let node = farm.nodes.values().find(|node| node.session == Some(*session));
        let (Some(node), Some(job)) = (node, farm.jobs.get(&id.job)) else {
            return Err(format!("attempt {id} is of no known node or job"));
        };
        let name = &node.about.name;
        if node.chunks.len() > node.slots || node.drained {
            return Err(format!("node {name} got {id}, but holds {} of {}", node.chunks.len(), node.slots));
        }
        let Some(workflow) = &assignment.workflow else {
            return Err(format!("attempt {id} is a chunk without a workflow"));
        };
        let lack = node
            .capabilities
            .lacks(workflow, farm.requirements_of(job))
            .and(node.capabilities.lacks_place(&job.spec.pool, job.spec.roots()));
        if let Err(lack) = lack {
            return Err(format!("node {name} got {id}, but {lack}"));
        }
        if job.paused {
            return Err(format!("attempt {id} is of a paused job"));
        }
        // What nodes bring back after a while may be one too many; what is handed out is not.
        let over = |(name, count): (&String, usize)| {
            farm.config.limits.get(name).is_some_and(|policy| policy.farm > 0 && count > policy.farm)
        };
        if job
            .spec
            .terms
            .limits
            .iter()
            .any(|limit| farm.in_use.all().any(|held| held.0 == limit && over(held)))
        {
            return Err(format!("attempt {id} uses more of a limit than there is"));
        }
        let most = job.spec.terms.max_nodes;
        if most > 0 && farm.nodes_of(job).len() > most {
            return Err(format!("attempt {id} gives its job more than {most} nodes"));
        }
        // A chunk that is late elsewhere goes before.
        let is_spare = farm.attempts.get(&id).is_some_and(|held| matches!(held.work, Work::Spare { .. }));
        // What has failed is tried by somebody else as soon as possible.
        let has_failed = match &assignment.work {
            AssignedWork::Chunk(frames) => frames.first().is_some_and(|frame| job.tries_of(frame) > 0),
            _ => false,
        };
        let by_rank = by_rank && !is_spare && !has_failed && job.spec.terms.min_nodes == 0;
        let passed = farm.queue.jobs().filter_map(|(_, id)| farm.jobs.get(&id).map(|job| (id, job)));
        // Within a show; and a node need not load other models for a handful of frames that others are at, which is
        // seen by class.
        let mut better = passed.filter(|(_, other)| {
            let alone = |workflow| farm.workflows.get(workflow).is_some_and(|known| known.loaded_on == 0);
            by_rank
                && (other.spec.urgent && !job.spec.urgent
                    || other.spec.urgent == job.spec.urgent
                        && other.spec.show == job.spec.show
                        && other.spec.user == job.spec.user
                        && other.priority > job.priority)
                && (other.class == job.class || other.spec.workflow().is_some_and(alone))
        });
        if let Some((other, _)) = better.find(|(_, other)| could_have(farm, now, node, other)) {
            return Err(format!("node {name} got {id}, though job {other} ranks higher and waits"));
        }
    }
    Ok(())
}

/// Whether every frame that a chunk loads of a clip that is still being made is done.
fn has_source(farm: &Farm, assignment: &Assignment) -> bool {
    let (AssignedWork::Chunk(own), Some(source), Some(workflow)) =
        (&assignment.work, &assignment.source, &assignment.workflow)
    else {
        return true;
    };
    let Some(render) = assignment.spec.render() else { return false };
    let Some(maker) = farm.jobs.get(&source.job) else { return false };
    let plan = render.split(workflow).plan(own, render.clip_range, workflow.manifest().shape());
    plan.loaded.iter().all(|frame| {
        // What was found broken since is made again.
        source.pieces.iter().any(|piece| piece.frames.contains(*frame)) || maker.tries_of(*frame) > 0
    })
}

/// Whether the node could have been given a chunk of the job.
fn could_have(farm: &Farm, now: Timestamp, node: &Node, job: &Job) -> bool {
    let Some(render) = job.spec.render() else { return false };
    let Some(known) = farm.workflows.get(&render.workflow) else { return false };
    let name = &node.about.name;
    let left_alone = job.rest_until > now || job.avoid.get(name).is_some_and(|until| *until > now);
    let fits = node.capabilities.lacks_place(&job.spec.pool, job.spec.roots()).is_ok()
        && node.capabilities.lacks(&known.workflow, farm.requirements_of(job)).is_ok()
        && !matches!(node.fits.get(&job.class), Some(Err(_)));
    // One that has a chunk by now had none before, or had room for one more.
    // Suspects are for some nodes and not for others.
    let has_suspects = !job.suspects.is_empty();
    // What had no room then may have some now.
    let unlimited = job.spec.terms.limits.is_empty()
        && job.spec.terms.max_nodes == 0
        && farm.policy(&job.spec.show).max_nodes == 0;
    fits && !left_alone
        && !has_suspects
        && unlimited
        && node.chunks.len() > 1
        && may_prefetch(farm, job, node)
}

/// Every frame is in exactly one of waiting, running, done, failed; done is exactly what the pieces say.
fn check_frames(farm: &Farm, id: JobId, job: &Job) -> Result<(), String> {
    let mut running = FrameSet::new();
    for attempt in &job.running {
        let held = farm.attempts.get(attempt).ok_or(format!("attempt {attempt} is unknown"))?;
        if let Work::Chunk(frames) = &held.work {
            if frames.is_empty() {
                return Err(format!("attempt {attempt} answers for nothing"));
            }
            running.insert_all(frames);
        }
    }
    let sets = [&job.waiting, &running, &job.done, &job.failed];
    let mut union = FrameSet::new();
    sets.iter().for_each(|set| union.insert_all(set));
    // Sets that overlap have more frames together than their union; attempts that overlap, too.
    let chunks = job.running.iter().filter_map(|attempt| farm.attempts.get(attempt)?.work.frames());
    let running_sum: u64 = chunks.map(FrameSet::len).sum();
    let sum = job.waiting.len() + running_sum + job.done.len() + job.failed.len();
    if union != job.spec.frames || sum != union.len() {
        return Err(format!(
            "frames {:?} are not split into waiting {:?}, running {running:?}, done {:?}, failed {:?}",
            job.spec.frames, job.waiting, job.done, job.failed
        ));
    }
    if !job.suspects.frames().is_subset(&job.waiting) {
        return Err(format!("suspects {:?} do not wait: {:?}", job.suspects.frames(), job.waiting));
    }
    let mut pieces = FrameSet::new();
    let mut piece_sum = 0;
    for (number, piece) in &job.pieces {
        if *number >= job.next_attempt {
            return Err(format!("piece {number} has a number that was never given out"));
        }
        piece_sum += piece.frames.len();
        pieces.insert_all(&piece.frames);
    }
    let kept = job.phase != Phase::Ended(Ended::Done) && job.spec.render().is_some();
    if kept && (pieces != job.done || piece_sum != job.done.len()) {
        return Err(format!("done {:?} is not what the pieces say: {pieces:?}", job.done));
    }
    match job.phase {
        Phase::Rendering if job.spec.render().is_some() => Ok(()),
        Phase::Delivering if job.done.is_empty() && job.failed.is_empty() => Ok(()),
        Phase::Ended(Ended::Done) if job.done == job.spec.frames => Ok(()),
        Phase::Assembling | Phase::Ended(Ended::Partial)
            if job.waiting.is_empty() && running.is_empty() && !job.done.is_empty() =>
        {
            Ok(())
        }
        Phase::Ended(Ended::Failed) if job.running.is_empty() => Ok(()),
        Phase::Ended(Ended::Cancelled { cleaned: true }) if running.is_empty() && job.done.is_empty() => {
            Ok(())
        }
        Phase::Ended(Ended::Cancelled { cleaned: false })
            if running.is_empty()
                && (job.pieces.is_empty() || farm.kept.iter().any(|(_, kept)| *kept == id)) =>
        {
            Ok(())
        }
        phase => Err(format!("in {phase:?} with done {:?}, running {running:?}", job.done)),
    }
    .map_err(|what| format!("{what} (farm {}, job {id})", farm.tag.0))
}

fn check_queues(farm: &Farm, id: JobId, job: &Job) -> Result<(), String> {
    let queued = farm.queue.jobs().any(|(_, queued)| queued == id);
    let wanted = job.wants_chunk() && farm.may_begin(&job.spec) && !job.open().is_empty();
    if queued != wanted {
        return Err(format!("queued: {queued}, though wants a chunk: {wanted}"));
    }
    let chore = farm.chores.iter().any(|rank| rank.job == id);
    let wanted = job.wants_chore() && farm.may_begin(&job.spec);
    if chore != wanted {
        return Err(format!("queued for a chore: {chore}, though wants one: {wanted}"));
    }
    if job.is_ended() != job.ended.is_some() {
        return Err("its end and the time of its end disagree".to_owned());
    }
    Ok(())
}

/// Nodes, attempts and the set of open nodes agree.
fn check_nodes(farm: &Farm) -> Result<(), String> {
    let mut held = 0;
    for (name, node) in &farm.nodes {
        held += node.chunks.len() + usize::from(node.chore.is_some());
        if node.is_open() != node.open_at.is_some() {
            return Err(format!("node {name}: open or not is kept wrong"));
        }
        for attempt in node.chunks.iter().chain(&node.chore) {
            if farm.attempts.get(attempt).is_none_or(|held| held.node != *name) {
                return Err(format!("node {name} holds attempt {attempt}, which is not its own"));
            }
        }
    }
    if held != farm.attempts.len() {
        return Err(format!("nodes hold {held} of {} attempts", farm.attempts.len()));
    }
    Ok(())
}
