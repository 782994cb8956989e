//! The scheduling laboratory: the farm's own rules against those of others, on drawn facilities in virtual time.
//!
//! ```text
//! cargo run --release -p hearth-tests --bin lab                       the table of docs/scheduling.md
//! cargo run --release -p hearth-tests --bin lab -- --plots docs/images and its pictures
//! cargo run --release -p hearth-tests --bin lab -- --seeds 10         fewer facilities than 100
//! cargo run --release -p hearth-tests --bin lab -- --seed 7           one
//! cargo run --release -p hearth-tests --bin lab -- --from 101         others than 1 to 100
//! ```

mod baselines;
mod engine;
mod hearth;
mod measure;
mod plot;
mod workload;

use std::{env, error::Error, fs, path::Path, thread};

use baselines::{Baseline, Kind};
use engine::{Scheduler, play};
use hearth::Hearth;
use measure::Figures;
use workload::Workload;

const NODES: usize = 64;
const JOBS: usize = 40;

/// Jobs come within so many hours, and are work for so many.
const HOURS: f64 = 2.5;
const BUSY: f64 = 4.0;

const NAMES: [&str; 4] = ["Hearth", "FIFO, fixed chunks", "even split", "random"];

/// A figure of a run, and which of the runs is told: 0.5 is the median.
type Line = (&'static str, fn(&Figures) -> f64, f64, &'static str);

const LINES: [Line; 15] = [
    ("makespan through its lower bound, median", |f| f.makespan, 0.5, "at most 1.05"),
    ("makespan through its lower bound, 95 of 100", |f| f.makespan, 0.95, ""),
    ("GPUs in use while frames wait, median", |f| f.utilisation, 0.5, "at least 0.98"),
    ("part of their time that is loading", |f| f.loading, 0.5, ""),
    ("… thrown away: failed, lost or rendered twice", |f| f.wasted, 0.5, ""),
    ("… handles", |f| f.handles, 0.5, ""),
    ("part of all time in which GPUs have nothing", |f| f.idle, 0.5, ""),
    ("seconds of a chunk, mean", |f| f.chunk, 0.5, ""),
    ("model switches, median", |f| f.switches, 0.5, "a third of FIFO's"),
    ("seconds from submission to the first frame, mean", |f| f.wait_mean, 0.5, ""),
    ("… 95 of 100", |f| f.wait_p95, 0.5, ""),
    ("… of an urgent job, 95 of 100", |f| f.urgent_wait, 0.95, "one chunk"),
    ("seconds from the last frame handed out to the end", |f| f.tail, 0.5, ""),
    ("least part of its due that a show had in an hour, of all runs", |f| f.least_share, 0.0, "at least 0.9"),
    ("hours in which a show had less than 0.9 of its due, 95 of 100", |f| f.short_hours, 0.95, ""),
];

fn schedulers(workload: &Workload, seed: u64) -> [Box<dyn Scheduler + '_>; 4] {
    [
        Box::new(Hearth::new(workload)),
        Box::new(Baseline::new(Kind::Fixed, workload, seed)),
        Box::new(Baseline::new(Kind::Even, workload, seed)),
        Box::new(Baseline::new(Kind::Random, workload, seed)),
    ]
}

fn run(seed: u64) -> [Figures; 4] {
    let workload = Workload::draw(seed, NODES, JOBS, HOURS, BUSY);
    let mut schedulers = schedulers(&workload, seed);
    schedulers.each_mut().map(|scheduler| Figures::of(&workload, &play(&workload, seed, scheduler.as_mut())))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let number = |name: &str| option(name)?.parse::<u64>().ok();
    let seeds: Vec<u64> = match number("--seed") {
        Some(seed) => vec![seed],
        None => (number("--from").unwrap_or(1)..).take(number("--seeds").unwrap_or(100) as usize).collect(),
    };
    let share = seeds.len().div_ceil(thread::available_parallelism().map_or(1, usize::from));
    let all: Vec<[Figures; 4]> = thread::scope(|scope| {
        let parts: Vec<_> = seeds
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(|seed| run(*seed)).collect::<Vec<_>>()))
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    println!("| {} facilities, {NODES} GPUs, {JOBS} jobs | {} | to reach |", seeds.len(), NAMES.join(" | "));
    println!("| --- |{} --- |", " --- |".repeat(NAMES.len()));
    for line in &LINES {
        let values: Vec<String> = values(&all, line).iter().map(|value| format!("{value:.3}")).collect();
        println!("| {} | {} | {} |", line.0, values.join(" | "), line.3);
    }
    match option("--plots") {
        Some(folder) => plots(Path::new(folder), &all, seeds[0]),
        None => Ok(()),
    }
}

/// The figure of each scheduler.
fn values(all: &[[Figures; 4]], (_, of, at, _): &Line) -> Vec<f64> {
    (0..NAMES.len())
        .map(|scheduler| {
            let mut values: Vec<f64> = all.iter().map(|figures| of(&figures[scheduler])).collect();
            values.sort_by(f64::total_cmp);
            // Not below nothing, as the sum of nothing is.
            values[((values.len() - 1) as f64 * at) as usize].max(0.0)
        })
        .collect()
}

fn plots(folder: &Path, all: &[[Figures; 4]], seed: u64) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let title = "Makespan through its lower bound, median; the line is 1.05";
    plot::bars(&folder.join("makespan.svg"), title, &NAMES, &values(all, &LINES[0]), Some(1.05))?;
    let title = "Model switches, median";
    plot::bars(&folder.join("switches.svg"), title, &NAMES, &values(all, &LINES[8]), None)?;
    let workload = Workload::draw(seed, NODES, JOBS, HOURS, BUSY);
    let mut schedulers = schedulers(&workload, seed);
    for (scheduler, name, file) in [(0, NAMES[0], "shows-hearth.svg"), (1, NAMES[1], "shows-fifo.svg")] {
        let run = play(&workload, seed, schedulers[scheduler].as_mut());
        let title = format!("{name}: which show has the GPUs (facility {seed})");
        plot::shows(&folder.join(file), &title, &workload, &run, 4.5)?;
    }
    println!("\npictures in {}", folder.display());
    Ok(())
}
