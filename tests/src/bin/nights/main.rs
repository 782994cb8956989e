//! Nights in a facility where everything dies, one after another, for as long as one likes.
//!
//! ```text
//! cargo build --workspace --bins
//! cargo run -p hearth-tests --bin nights -- 500        500 nights from a random seed
//! cargo run -p hearth-tests --bin nights -- 1 7        the night with seed 7 again
//! ```

use std::{collections::BTreeMap, env, time::Instant};

use hearth_tests::faults::{Expected, Night, night};

/// Nights at a time: most of a night is waiting.
const AT_ONCE: usize = 3;

#[tokio::main]
async fn main() {
    let mut arguments = env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
    let nights = arguments.next().unwrap_or(20);
    let first = arguments.next().unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("{nights} nights from seed {first}");
    let expected = Expected::render().await;
    let started = Instant::now();
    let (mut seeds, mut running) = (first..first + nights, tokio::task::JoinSet::new());
    let mut all: Vec<Night> = Vec::new();
    let mut failed = Vec::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(seed) = seeds.next()
        {
            let expected = expected.clone();
            running.spawn(
                async move { (seed, tokio::spawn(async move { night(seed, &expected).await }).await) },
            );
        }
        let Some(ended) = running.join_next().await else { break };
        let (seed, ended) = ended.expect("joined");
        match ended {
            Ok(night) => {
                println!("{night}");
                all.push(night);
            }
            Err(_) => {
                println!("seed {seed}: FAILED");
                failed.push(seed);
            }
        }
    }
    let mut faults: BTreeMap<&str, u32> = BTreeMap::new();
    all.iter()
        .flat_map(|night| &night.faults)
        .for_each(|(name, count)| *faults.entry(name).or_default() += count);
    let sum = |of: fn(&Night) -> u64| all.iter().map(of).sum::<u64>();
    println!(
        "{} of {nights} nights right in {:.0} s: {} frames, {} rendered more than once, faults {faults:?}; failed seeds {failed:?}",
        all.len(),
        started.elapsed().as_secs_f64(),
        sum(|night| night.frames),
        sum(|night| night.again),
    );
    assert!(failed.is_empty());
}
