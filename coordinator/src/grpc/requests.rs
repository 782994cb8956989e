//! Requests on their way to the farm: everything that can be known to be wrong with them is found here, and what is left
//! is a command.

use std::{collections::BTreeSet, path::PathBuf, pin::pin, sync::Arc};

use futures_util::{StreamExt as _, stream};
use hearth_proto::{trace, v1};
use hearth_storage::{Calls, Roots};
use tonic::{Code, Status};
use tracing::info;

use super::{
    MESSAGE,
    clients::{FarmService, invalid, look, no_storage, priority_from, root_of, status, unknown},
    convert, presets, shortened,
};
use crate::{
    driver::DriverError,
    farm::{Answer, Command, JobId, JobView, PresetId, Submission},
    submission::{self, Maker, SubmissionError, check_text},
    version::Versions,
};

/// Jobs of one batch, without the takes and deliveries that they bring.
const MAX_BATCH: usize = 1_000;

/// Lines of what was left out of a batch that are answered.
const MOST_LEFT_OUT: usize = 100;

/// Jobs of one batch whose clips are looked at at a time.
const AT_ONCE: usize = 16;

/// A request, and what the farm knows about it.
struct Prepared {
    request: v1::SubmitJobRequest,
    /// The preset that was put into it, where that is somebody's.
    preset: Option<PresetId>,
    /// Of the clip, if a job makes it.
    maker: Option<Maker>,
    traceparent: String,
    roots: Arc<Roots>,
    calls: Calls,
    folders: Arc<Vec<PathBuf>>,
}

impl Prepared {
    /// Holds it against library and storage.
    async fn check(self) -> Result<Submission, Status> {
        let Self { request, preset, maker, traceparent, roots, calls, folders } = self;
        let touched = [root_of(&request.clip), root_of(&request.output)];
        let touched = touched.into_iter().filter(|root| !root.is_empty());
        let look = move || submission::check(request, traceparent, &folders, &roots, maker.as_ref());
        let checked = calls.run(touched, look).await.map_err(|error| no_storage(&error))?;
        let mut checked = checked.map_err(|error| invalid(&error))?;
        if let Some(first) = checked.jobs.first_mut() {
            first.preset = preset;
        }
        Ok(checked)
    }
}

impl FarmService {
    /// Whether this coordinator may decide; else where the leader is.
    pub(super) fn leads(&self) -> Result<(), Status> {
        self.driver.refusal().map_or(Ok(()), |error| Err(status(error)))
    }

    pub(super) async fn job(&self, id: JobId) -> Result<v1::Job, Status> {
        let (tag, view) = look(self, id).await?;
        Ok(convert::job(&tag, view))
    }

    pub(super) async fn submit(
        &self,
        request: v1::SubmitJobRequest,
    ) -> Result<v1::SubmitJobResponse, Status> {
        // A client that lost the answer asks again: the output it made itself must not be held against it.
        if let Some(job) = self.known(&request.request_id).await? {
            let jobs = self.batch(job).await?;
            return Ok(v1::SubmitJobResponse {
                job: jobs.first().cloned(),
                already_submitted: true,
                jobs,
                warnings: Vec::new(),
            });
        }
        // Before every frame of the clip is looked at.
        self.leads()?;
        let warnings = self.of_show(request.show.clone()).await?;
        let checked = self.check(request).await?;
        let (jobs, already_submitted) = self.take(checked).await?;
        Ok(v1::SubmitJobResponse { job: jobs.first().cloned(), already_submitted, jobs, warnings })
    }

    /// What may be a slip in the show's name.
    pub(super) async fn of_show(&self, show: String) -> Result<Vec<String>, Status> {
        let new = show.clone();
        let like = self.driver.read(move |farm| farm.show_like(&show)).await.map_err(status)?;
        Ok(like
            .map(|like| format!("show '{new}' is new on this farm; is '{like}' meant?"))
            .into_iter()
            .collect())
    }

    pub(super) async fn change_preset(
        &self,
        request: v1::ChangePresetRequest,
    ) -> Result<v1::ChangePresetResponse, Status> {
        let id = presets::id(request.name.as_ref()).map_err(|error| invalid(&error))?;
        let folders = self.folders.clone();
        let change = request.change.ok_or_else(|| Status::invalid_argument("no change given"))?;
        let checked = tokio::task::spawn_blocking(move || presets::change(change, &folders)).await;
        let change = checked.unwrap_or(Err(SubmissionError::Aborted)).map_err(|error| invalid(&error))?;
        self.driver.command(Command::ChangePreset(id.clone(), change)).await.map_err(status)?;
        let read =
            self.driver.read(move |farm| farm.presets().get(&id).map(|preset| presets::message(&id, preset)));
        Ok(v1::ChangePresetResponse { preset: read.await.map_err(status)? })
    }

    /// Puts what a preset of the user or the show sets into the request; one that ships with the workflow is left to
    /// the check of the rest. Which preset it was.
    pub(super) async fn with_preset(
        &self,
        request: &mut v1::SubmitJobRequest,
    ) -> Result<Option<PresetId>, Status> {
        if request.preset.is_empty() {
            return Ok(None);
        }
        let wanted = presets::Wanted::of(request).map_err(|error| invalid(&error))?;
        let found = self.driver.read(move |farm| wanted.find(farm.presets())).await.map_err(status)?;
        match found {
            presets::Found::Version(id, version) => {
                presets::apply(request, &id, version).map_err(|error| invalid(&error))?;
                Ok(Some(id))
            }
            presets::Found::Shipped => Ok(None),
            presets::Found::Nothing(told) => Err(Status::not_found(told)),
        }
    }

    /// All of the batch, or none of it: what is wrong with any of its jobs is told together.
    pub(super) async fn submit_all(
        &self,
        request: v1::SubmitBatchRequest,
    ) -> Result<v1::SubmitBatchResponse, Status> {
        if let Some(job) = self.known(&request.request_id).await? {
            let jobs = self.batch(job).await?;
            return Ok(v1::SubmitBatchResponse { jobs, already_submitted: true, left_out: Vec::new() });
        }
        self.leads()?;
        // The first job answers for all of them when a client that lost the answer asks again.
        check_text("request id", &request.request_id).map_err(|error| invalid(&error))?;
        let mut jobs = request.jobs;
        jobs.iter_mut().for_each(|job| job.request_id.clear());
        let (mut checked, wrong) = self.check_each(jobs).await?;
        if checked.is_empty() || !wrong.is_empty() && !request.leave_out_wrong {
            return Err(refused(checked.len(), &wrong));
        }
        let first = checked.iter_mut().find_map(|submission| submission.jobs.first_mut());
        first.into_iter().for_each(|job| job.spec.request_id.clone_from(&request.request_id));
        let (jobs, already_submitted) = self.take(Submission::together(checked)).await?;
        let more = wrong.len().saturating_sub(MOST_LEFT_OUT);
        let mut left_out: Vec<String> = wrong.into_iter().take(MOST_LEFT_OUT).collect();
        left_out.extend((more > 0).then(|| format!("and {more} more")));
        Ok(v1::SubmitBatchResponse { jobs, already_submitted, left_out })
    }

    /// Tries what has failed of a batch again; where nothing has, what was cancelled goes on.
    pub(super) async fn retry_all(&self, id: JobId) -> Result<Vec<v1::Job>, Status> {
        let jobs = self.known_batch(id).await?;
        let cancelled: Vec<u64> =
            jobs.iter().filter(|job| job.state() == v1::JobState::Cancelled).map(|job| job.job_id).collect();
        let has_failed = |job: &v1::Job| matches!(job.state(), v1::JobState::Failed | v1::JobState::Partial);
        if !jobs.iter().any(has_failed) {
            return self.control_all(id, Command::Retry).await;
        }
        // Somebody has cancelled those on purpose, perhaps.
        self.control_some(id, |job| !cancelled.contains(&job.0), Command::Retry).await
    }

    /// Does to every job of a batch what can still be done to it; refused only when that is nothing.
    pub(super) async fn control_all(
        &self,
        id: JobId,
        command: impl Fn(JobId) -> Command,
    ) -> Result<Vec<v1::Job>, Status> {
        self.control_some(id, |_| true, command).await
    }

    /// The same, to those that are wanted.
    async fn control_some(
        &self,
        id: JobId,
        wanted: impl Fn(&JobId) -> bool,
        command: impl Fn(JobId) -> Command,
    ) -> Result<Vec<v1::Job>, Status> {
        let ids = self.known_batch(id).await?.into_iter().map(|job| JobId(job.job_id)).filter(wanted);
        let (mut done, mut refused) = (false, None);
        for id in ids {
            match self.driver.command(command(id)).await {
                Ok(_) => done = true,
                Err(error @ DriverError::Refused(_)) => refused = refused.or(Some(error)),
                Err(error) => return Err(status(error)),
            }
        }
        match refused.filter(|_| !done) {
            Some(error) => Err(status(error)),
            None => self.batch(id).await,
        }
    }

    /// Everything that can be known to be wrong with a job, before it is one.
    pub(super) async fn check(&self, request: v1::SubmitJobRequest) -> Result<Submission, Status> {
        self.prepare(request, &mut Vec::new()).await?.check().await
    }

    /// Everything that can be known to be wrong with the jobs of a batch; one that is wrong refuses all of them.
    pub(super) async fn check_all(&self, jobs: Vec<v1::SubmitJobRequest>) -> Result<Vec<Submission>, Status> {
        let (checked, wrong) = self.check_each(jobs).await?;
        if wrong.is_empty() { Ok(checked) } else { Err(refused(checked.len(), &wrong)) }
    }

    /// The jobs that can be submitted, and a line for each that cannot.
    async fn check_each(
        &self,
        jobs: Vec<v1::SubmitJobRequest>,
    ) -> Result<(Vec<Submission>, Vec<String>), Status> {
        let count = jobs.len();
        if count == 0 || count > MAX_BATCH {
            let message = format!("{count} jobs in one batch; give 1 to {MAX_BATCH}");
            return Err(Status::invalid_argument(message));
        }
        let mut clips = Vec::with_capacity(count);
        let mut prepared = Vec::with_capacity(count);
        let mut outputs = Vec::new();
        for job in jobs {
            clips.push(if job.clip.is_empty() { job.output.clone() } else { job.clip.clone() });
            prepared.push(self.prepare(job, &mut outputs).await);
        }
        let checks = prepared.into_iter().map(|prepared| async move { prepared?.check().await });
        let mut checks = pin!(stream::iter(checks).buffered(AT_ONCE));
        let (mut checked, mut wrong) = (Vec::with_capacity(count), Vec::new());
        for (index, clip) in clips.into_iter().enumerate() {
            match checks.next().await {
                Some(Ok(submission)) => checked.push(submission),
                // Nobody leads, or the store is away: nothing is wrong with the jobs.
                Some(Err(status)) if status.code() == Code::Unavailable => return Err(status),
                Some(Err(status)) => {
                    let line = format!("job {} ({clip}): {}", index + 1, status.message());
                    wrong.push(shortened(line, MESSAGE / 4));
                }
                None => return Err(Status::internal("a job was not looked at")),
            }
        }
        Ok((checked, wrong))
    }

    /// What only the farm knows about a request. `outputs`: what other jobs of the same submission will make.
    async fn prepare(
        &self,
        mut request: v1::SubmitJobRequest,
        outputs: &mut Vec<String>,
    ) -> Result<Prepared, Status> {
        let traceparent = trace::traceparent_of(&tracing::Span::current());
        let preset = self.with_preset(&mut request).await?;
        if !request.anyway {
            let (pool, limits) = (request.pool.clone(), request.limits.clone());
            let unknown =
                self.driver.read(move |farm| farm.unknown_name(&pool, &limits)).await.map_err(status)?;
            unknown.map_or(Ok(()), |unknown| Err(invalid(&unknown)))?;
        }
        if let Some(versions) = Versions::of(&request.output) {
            request.output = self.next_version(versions, outputs).await?;
        }
        outputs.push(request.output.clone());
        let maker = match &request.clip_of {
            Some(clip) => {
                Some(Maker::of(look(self, JobId(clip.job_id)).await?.1).map_err(|error| invalid(&error))?)
            }
            None => None,
        };
        let (roots, calls, folders) = (self.roots.clone(), self.calls.clone(), self.folders.clone());
        Ok(Prepared { request, preset, maker, traceparent, roots, calls, folders })
    }

    /// Hands a checked submission to the farm: its jobs, and whether they were there before.
    pub(super) async fn take(&self, checked: Submission) -> Result<(Vec<v1::Job>, bool), Status> {
        let checked = self.marked(checked).await?;
        let answer = self.driver.command(Command::Submit(Box::new(checked))).await.map_err(status)?;
        let Answer::Submitted { job, already } = answer else {
            return Err(Status::internal("a submission was answered as something else"));
        };
        info!(job = job.0, "submitted");
        Ok((self.batch(job).await?, already))
    }

    /// The submission with the ids of the storage that it is for.
    async fn marked(&self, mut checked: Submission) -> Result<Submission, Status> {
        let names: BTreeSet<String> =
            checked.jobs.iter().flat_map(|job| job.spec.roots()).map(str::to_owned).collect();
        let (roots, asked) = (self.roots.clone(), names.clone());
        let found = self.calls.run(names.clone(), move || submission::ids(&asked, &roots)).await;
        let mut ids = found.map_err(|error| no_storage(&error))?;
        let without: BTreeSet<String> = names.into_iter().filter(|root| !ids.contains_key(root)).collect();
        if !without.is_empty() {
            let asked = without.clone();
            let known = self.driver.read(move |farm| farm.storage_of(&asked)).await.map_err(status)?;
            let (roots, asked) = (self.roots.clone(), without.clone());
            let make = move || submission::make_ids(&asked, &roots, &known);
            let made = self.calls.run(without, make).await.map_err(|error| no_storage(&error))?;
            ids.extend(made.map_err(|error| invalid(&error))?);
        }
        submission::note_ids(&mut checked, &ids);
        Ok(checked)
    }

    /// The jobs that were submitted with this one.
    pub(super) async fn batch(&self, id: JobId) -> Result<Vec<v1::Job>, Status> {
        let read = self.driver.read(move |farm| (farm.tag().clone(), farm.batch(id)));
        let (tag, views) = read.await.map_err(status)?;
        Ok(views.into_iter().map(|view| convert::job(&tag, view)).collect())
    }

    /// The same, refused if there are none.
    pub(super) async fn known_batch(&self, id: JobId) -> Result<Vec<v1::Job>, Status> {
        let jobs = self.batch(id).await?;
        if jobs.is_empty() { Err(unknown(self, id)) } else { Ok(jobs) }
    }

    pub(super) async fn known(&self, request_id: &str) -> Result<Option<JobId>, Status> {
        if request_id.is_empty() {
            return Ok(None);
        }
        let request_id = request_id.to_owned();
        self.driver.read(move |farm| farm.requested(&request_id)).await.map_err(status)
    }

    pub(super) async fn deliver(&self, request: v1::DeliverRequest) -> Result<v1::DeliverResponse, Status> {
        use v1::deliver_request::Source;
        let traceparent = trace::traceparent_of(&tracing::Span::current());
        if let Some(job) = self.known(&request.request_id).await? {
            return Ok(v1::DeliverResponse { jobs: self.batch(job).await?, already_submitted: true });
        }
        self.leads()?;
        let roots = self.roots.clone();
        let source = request.source.clone();
        let made = match source {
            Some(Source::JobId(job)) => {
                let id = JobId(job);
                let (_, JobView { spec, workflow, priority, .. }) = look(self, id).await?;
                let priority = match request.priority {
                    Some(value) => priority_from(value)?,
                    None => priority,
                };
                let workflow = workflow
                    .ok_or_else(|| Status::invalid_argument("a delivery cannot be delivered again"))?;
                let root = spec.output.root().to_owned();
                let look = move || {
                    submission::check_delivery_of_job(&request, id, (&spec, &workflow), priority, &roots)
                };
                self.calls.run([root], look).await
            }
            Some(Source::Clip(clip)) => {
                let root = root_of(&clip);
                let look = move || submission::check_delivery_of_clip(&request, &clip, traceparent, &roots);
                self.calls.run([root], look).await
            }
            None => return Err(Status::invalid_argument("give a job or a clip to deliver")),
        };
        let checked = made.map_err(|error| no_storage(&error))?.map_err(|error| invalid(&error))?;
        let (jobs, already_submitted) = self.take(checked).await?;
        Ok(v1::DeliverResponse { jobs, already_submitted })
    }

    /// The output of the next version. Two who ask at once may get the same: the second is refused, and asks again.
    pub(super) async fn next_version(
        &self,
        versions: Versions,
        outputs: &[String],
    ) -> Result<String, Status> {
        let prefix = versions.prefix().to_owned();
        let mut taken = self.driver.read(move |farm| farm.outputs_like(&prefix)).await.map_err(status)?;
        taken.extend(outputs.iter().filter(|output| output.starts_with(versions.prefix())).cloned());
        let roots = self.roots.clone();
        let root = root_of(versions.prefix());
        let next = self.calls.run([root], move || versions.next(&roots, &taken)).await;
        let next = next.map_err(|error| no_storage(&error))?;
        next.map(|output| output.to_string()).map_err(|error| invalid(&error))
    }
}

/// Why a batch is not submitted: as many of the lines as a message has room for.
fn refused(right: usize, wrong: &[String]) -> Status {
    let count = right + wrong.len();
    let others = if right > 0 { "; --leave-out-wrong submits the others" } else { "" };
    let mut message =
        format!("nothing was submitted, since of {count} jobs {} are wrong{others}", wrong.len());
    let mut told = 0;
    for line in wrong {
        if message.len() + line.len() > MESSAGE {
            break;
        }
        message.push('\n');
        message.push_str(line);
        told += 1;
    }
    if told < wrong.len() {
        message.push_str(&format!("\nand {} more", wrong.len() - told));
    }
    Status::invalid_argument(message)
}
