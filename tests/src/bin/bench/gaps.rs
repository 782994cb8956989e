//! How long a GPU is idle between two chunks: the simulator tells how long its worker waited.

use std::time::Duration;

use hearth_agent::Transfer;
use hearth_client::v1;
use hearth_simulator::Config;
use hearth_tests::{
    clips,
    farm::{Farm, Setup, request},
};

use crate::Figure;

const FRAMES: i64 = 400;

pub(crate) async fn measure() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (transfer, shared_output, name) in
        [(Transfer::Shared, true, "shared file system"), (Transfer::Http, false, "HTTP upload and view")]
    {
        let simulators = vec![Config { seconds_per_frame: 0.02, ..Config::default() }; 2];
        let farm = Farm::start(Setup { simulators, transfer, shared_output, ..Setup::default() }).await;
        clips::make(&farm.path("plates/clip"), 1..=FRAMES, 480, 270);
        let submission = v1::SubmitJobRequest { chunk_frames: 4, ..request("clip", "resize-sharpen", "out") };
        let (job, failures) = farm.run(submission).await;
        assert_eq!(job.state(), v1::JobState::Done, "{failures:?}");
        let mut gaps: Vec<Duration> =
            farm.simulators.iter().flat_map(hearth_simulator::Simulator::idle_gaps).collect();
        gaps.sort();
        let at = |part: f64| gaps[(gaps.len() as f64 * part) as usize].as_secs_f64() * 1000.0;
        let what = format!("idle gap of a node between two of {} chunks, {name}", gaps.len() + 2);
        let value = format!("median {:.2} ms, 95 % {:.2} ms", at(0.5), at(0.95));
        figures.push(Figure::new(what, value, "median under 5 ms"));
        farm.stop().await;
    }
    figures
}
