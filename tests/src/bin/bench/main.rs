//! Measures what Hearth promises about speed, in one run on one machine, and prints a table for
//! `docs/performance.md`.
//!
//! ```text
//! cargo build --release --workspace --bins
//! cargo run --release -p hearth-tests --bin bench            everything
//! cargo run --release -p hearth-tests --bin bench core gaps  only some of: clips core decision dispatch gaps memory pictures scale takeover
//! perf record -g target/release/bench profile                dispatch through Redis alone
//! ```

mod bullmq;
mod clips;
mod core;
mod decision;
mod dispatch;
mod gaps;
mod memory;
mod pictures;
mod scale;
mod takeover;

use std::env;

/// One line of the table.
struct Figure {
    what: String,
    value: String,
    /// What it is held against, measured in the same run where it is a limit of the machine.
    against: String,
}

impl Figure {
    fn new(what: impl Into<String>, value: impl Into<String>, against: impl Into<String>) -> Self {
        Self { what: what.into(), value: value.into(), against: against.into() }
    }
}

fn main() {
    let wanted: Vec<String> = env::args().skip(1).collect();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    println!("| what | measured | held against |");
    println!("| --- | --- | --- |");
    let tell = |figures: Vec<Figure>| {
        for figure in figures {
            println!("| {} | {} | {} |", figure.what, figure.value, figure.against);
        }
    };
    if is_wanted("core") {
        tell(core::measure());
    }
    if is_wanted("clips") {
        tell(runtime.block_on(clips::measure()));
    }
    if is_wanted("decision") {
        tell(decision::measure());
    }
    if is_wanted("dispatch") {
        tell(runtime.block_on(dispatch::measure()));
    }
    if wanted.iter().any(|name| name == "profile") {
        println!("{:.0} durable chunk cycles/s through Redis", runtime.block_on(dispatch::through_redis(2)));
    }
    if is_wanted("gaps") {
        tell(runtime.block_on(gaps::measure()));
    }
    if is_wanted("scale") {
        tell(runtime.block_on(scale::measure()));
    }
    if is_wanted("takeover") {
        tell(runtime.block_on(takeover::measure()));
    }
    if is_wanted("pictures") {
        tell(pictures::measure());
    }
    if is_wanted("memory") {
        tell(runtime.block_on(memory::measure()));
    }
}
