//! Twenty nights in a facility where everything dies: leaders, Redis, agents, ComfyUIs, and the links between
//! them. `cargo run -p hearth-tests --bin nights` runs as many as one likes.

use hearth_tests::faults::{Expected, night};

/// `HEARTH_SEED=n` is the night of that seed; `HEARTH_NIGHTS=n` runs so many.
async fn nights(first: u64, count: u64) {
    let set = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let expected = Expected::render().await;
    if let Some(seed) = set("HEARTH_SEED") {
        println!("{}", night(seed, &expected).await);
        return;
    }
    for seed in first..first + set("HEARTH_NIGHTS").unwrap_or(count) {
        println!("replay with HEARTH_SEED={seed}");
        println!("{}", night(seed, &expected).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_nights_lose_no_frame() {
    nights(0, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_more_nights_lose_no_frame() {
    nights(100, 10).await;
}
