//! What can be done with a farm's store from outside: look whether it is whole, carry it from one store to
//! another, make it again from what lies on storage. Never touches a store that a coordinator leads.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use hearth_storage::RootsError;
use hearth_workflows::WorkflowError;
use serde::{Deserialize, Serialize};

use crate::{
    Config,
    driver::{difference, now, write_all},
    farm::{Command, Farm, JobFilter, Key, Record, RecordError, invariants},
    flags::FarmTool,
    recovery::{self, JobManifest},
    store::{Changed, Embedded, Group, Lead, Redis, RedisAddress, Store, StoreAddress, StoreError},
    survey::survey,
};

/// Version of the exported file.
const EXPORT: u32 = 1;

/// Times that a farm is read again while a leader changes it.
const LOOKS: usize = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why a tool did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is no farm in {store}; look at `store`, and at `store_prefix` for a Redis")]
    NoFarm { store: String },
    #[error("{store} has a farm already; give an empty store, or another `store_prefix`")]
    NotEmpty { store: String },
    #[error("the coordinator at {address} leads this farm; stop every coordinator first")]
    Led { address: String },
    #[error("the farm changes faster than it can be read; try again when less is going on")]
    TooBusy,
    #[error("cannot read or write {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}, line {line}: this is no exported farm")]
    NotExported { path: PathBuf, line: usize, source: serde_json::Error },
    #[error("{path} was exported by a newer Hearth (format {found}, this one knows {EXPORT}); update Hearth")]
    NewerExport { path: PathBuf, found: u32 },
    #[error("the exported farm is not whole: {what}")]
    Broken { what: String },
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(
        "nothing was recovered; name the storage roots with --roots or HEARTH_ROOTS, as name=/path,name=/path"
    )]
    Roots(#[from] RootsError),
    #[error("no unfinished job lies in {folders}; are these the folders beside the jobs' outputs?")]
    NothingThere { folders: String },
    #[error(
        "jobs of several farms lie there ({farms}); recover them one after the other, each from its own folders"
    )]
    SeveralFarms { farms: String },
    #[error("the workflow of {path} cannot be used any more")]
    Workflow { path: PathBuf, source: Box<WorkflowError> },
}

#[derive(Serialize, Deserialize)]
struct Header {
    hearth_farm: u32,
    hearth_version: String,
    records: usize,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    record: serde_json::Value,
}

/// Does it, on the store that the settings name.
pub async fn run(tool: FarmTool, config: &Config) -> Result<ExitCode, ToolError> {
    match &config.store {
        StoreAddress::File(path) => on(tool, config, Embedded::open(path)?).await,
        StoreAddress::Redis(address) => {
            let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
            on(tool, config, Redis::new(RedisAddress::clone(address), config.redis(nobody))?).await
        }
    }
}

async fn on<S: Store>(tool: FarmTool, config: &Config, mut store: S) -> Result<ExitCode, ToolError> {
    match tool {
        FarmTool::Check { json } => check(config, &mut store, json).await,
        FarmTool::Export { file } => export(config, &mut store, &file).await,
        FarmTool::Import { file } => import(config, &mut store, &file).await,
        FarmTool::Recover { folders } => recover(config, &mut store, &folders).await,
    }
}

/// Every record as it stands at one moment, also while a leader is at work.
async fn records<S: Store>(config: &Config, store: &mut S) -> Result<BTreeMap<Key, Record>, ToolError> {
    for _ in 0..LOOKS {
        let mut records = store.load().await?;
        let group = match store.follow().await?.changed {
            Changed::Some(group) => group,
            // A store with one process: nobody else can have changed anything.
            Changed::Everything if matches!(config.store, StoreAddress::File(_)) => Group::default(),
            Changed::Everything | Changed::Behind => continue,
        };
        for (key, record) in group.changes {
            match record {
                Some(record) => records.insert(key, record),
                None => records.remove(&key),
            };
        }
        if records.contains_key(&Key::Meta) {
            return Ok(records);
        }
        return Err(ToolError::NoFarm { store: config.store.to_string() });
    }
    Err(ToolError::TooBusy)
}

async fn check<S: Store>(config: &Config, store: &mut S, json: bool) -> Result<ExitCode, ToolError> {
    let mut records = records(config, store).await?;
    let mut indexes = store.check_indexes(&records).await?;
    for _ in 0..LOOKS {
        if indexes.is_empty() {
            break;
        }
        // They were read a moment after the records: a leader may have changed both meanwhile.
        tokio::time::sleep(LOOK_AGAIN).await;
        records = self::records(config, store).await?;
        indexes = store.check_indexes(&records).await?;
    }
    let mut wrong = Vec::new();
    let (mut jobs, mut open, mut frames, mut tag) = (0, 0, 0, String::new());
    match Farm::restore(now(), config.farm(), &records) {
        Ok(Some(farm)) => {
            wrong.extend(invariants::check(&farm).err());
            let all = farm.jobs(&JobFilter { limit: usize::MAX, ..JobFilter::default() }).0;
            (jobs, tag) = (all.len(), farm.tag().0.clone());
            open = all.iter().filter(|job| job.ended.is_none()).count();
            frames = all.iter().map(|job| job.spec.frames.len()).sum();
        }
        Ok(None) => return Err(ToolError::NoFarm { store: config.store.to_string() }),
        Err(error) => wrong.push(hearth_telemetry::chain(&error)),
    }
    wrong.extend(indexes);
    if json {
        let told = serde_json::json!({
            "farm": tag, "records": records.len(), "jobs": jobs, "open_jobs": open, "frames": frames,
            "whole": wrong.is_empty(), "wrong": wrong,
        });
        println!("{told}");
    } else {
        println!(
            "farm {tag} in {}: {} records, {jobs} jobs ({open} open), {frames} frames",
            config.store,
            records.len()
        );
        if wrong.is_empty() {
            println!("every invariant holds");
        }
        wrong.iter().for_each(|what| println!("WRONG: {what}"));
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn export<S: Store>(config: &Config, store: &mut S, file: &Path) -> Result<ExitCode, ToolError> {
    let records = records(config, store).await?;
    let failed = |source| ToolError::File { path: file.to_owned(), source };
    let out: Box<dyn Write> = if file == Path::new("-") {
        Box::new(io::stdout())
    } else {
        Box::new(File::create(file).map_err(failed)?)
    };
    let write = |mut out: BufWriter<Box<dyn Write>>| -> io::Result<()> {
        let hearth_version = env!("CARGO_PKG_VERSION").to_owned();
        let header = Header { hearth_farm: EXPORT, hearth_version, records: records.len() };
        serde_json::to_writer(&mut out, &header)?;
        for (key, record) in &records {
            let record = serde_json::from_str(&record.0)?;
            writeln!(out)?;
            serde_json::to_writer(&mut out, &Line { key: key.to_string(), record })?;
        }
        writeln!(out)?;
        out.flush()
    };
    write(BufWriter::new(out)).map_err(failed)?;
    eprintln!("{} records exported from {}", records.len(), config.store);
    Ok(ExitCode::SUCCESS)
}

async fn import<S: Store>(config: &Config, store: &mut S, file: &Path) -> Result<ExitCode, ToolError> {
    let records = read_export(file)?;
    let farm = Farm::restore(now(), config.farm(), &records)?;
    let farm = farm.ok_or(ToolError::Broken { what: "its first record is missing".to_owned() })?;
    invariants::check(&farm).map_err(|what| ToolError::Broken { what })?;
    fill(config, store, &farm).await?;
    eprintln!("{} records imported into {}", records.len(), config.store);
    Ok(ExitCode::SUCCESS)
}

fn read_export(file: &Path) -> Result<BTreeMap<Key, Record>, ToolError> {
    let failed = |source| ToolError::File { path: file.to_owned(), source };
    let input: Box<dyn io::Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).map_err(failed)?)
    };
    let mut lines = BufReader::new(input).lines();
    let wrong = |line: usize| move |source| ToolError::NotExported { path: file.to_owned(), line, source };
    let first = lines.next().transpose().map_err(failed)?.unwrap_or_default();
    let header: Header = serde_json::from_str(&first).map_err(wrong(1))?;
    if header.hearth_farm > EXPORT {
        return Err(ToolError::NewerExport { path: file.to_owned(), found: header.hearth_farm });
    }
    let mut records = BTreeMap::new();
    for (index, line) in lines.enumerate() {
        let line: Line = serde_json::from_str(&line.map_err(failed)?).map_err(wrong(index + 2))?;
        records.insert(line.key.parse()?, Record(line.record.to_string()));
    }
    if records.len() != header.records {
        let what =
            format!("it should have {} records, and has {}; was it cut off?", header.records, records.len());
        return Err(ToolError::Broken { what });
    }
    Ok(records)
}

/// Writes a whole farm into an empty store that nobody leads.
async fn fill<S: Store>(config: &Config, store: &mut S, farm: &Farm) -> Result<(), ToolError> {
    let epoch = match store.lead().await? {
        Lead::Ours { epoch, .. } => epoch,
        Lead::Theirs { address } => return Err(ToolError::Led { address }),
    };
    let there = store.load().await?;
    let filled = if there.contains_key(&Key::Meta) {
        Err(ToolError::NotEmpty { store: config.store.to_string() })
    } else {
        write_all(store, epoch, difference(farm, &there)).await.map_err(ToolError::from)
    };
    store.resign(epoch).await?;
    filled
}

async fn recover<S: Store>(
    config: &Config,
    store: &mut S,
    folders: &[PathBuf],
) -> Result<ExitCode, ToolError> {
    let found = recovery::find(folders).map_err(|(path, source)| ToolError::File { path, source })?;
    let named = |folders: &[PathBuf]| {
        folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    let Some((_, first)) = found.first() else {
        return Err(ToolError::NothingThere { folders: named(folders) });
    };
    let mut farms: Vec<&str> = found.iter().map(|(_, job)| job.farm.0.as_str()).collect();
    farms.sort_unstable();
    farms.dedup();
    if farms.len() > 1 {
        return Err(ToolError::SeveralFarms { farms: farms.join(", ") });
    }
    let mut farm = Farm::new(config.farm(), first.farm.clone());
    for (path, JobManifest { job, spec, workflow, .. }) in &found {
        let workflow = workflow
            .parse()
            .map_err(|source| ToolError::Workflow { path: path.clone(), source: Box::new(source) })?;
        farm.recover(now(), *job, spec.clone(), workflow);
    }
    farm.apply(now(), Command::Distrust);
    for job in farm.to_survey() {
        // Nothing would be found, which is not the same as nothing being there.
        for path in [&job.work_dir, &job.output] {
            config.roots.resolve(path)?;
        }
        let (found, assembled) = survey(&config.roots, &farm.tag().clone(), &job);
        farm.apply(now(), Command::Surveyed { job: job.job, found, assembled });
    }
    for job in farm.jobs(&JobFilter { limit: usize::MAX, ..JobFilter::default() }).0 {
        eprintln!("job {}: {} of {} frames are there", job.id, job.done, job.spec.frames.len());
    }
    fill(config, store, &farm).await?;
    eprintln!("{} jobs recovered into {}; start the coordinators, and they go on", found.len(), config.store);
    Ok(ExitCode::SUCCESS)
}
