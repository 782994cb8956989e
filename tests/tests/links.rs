//! Somebody swaps links on storage while a farm works there: nothing from outside a root is ever read into a result, and
//! nothing is written outside.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use hearth_agent::Transfer;
use hearth_client::v1;
use hearth_simulator::Config;
use hearth_tests::{
    clips,
    farm::{Farm, Setup, assert_right, finish, request},
    reference::unsplit,
};
use hearth_workflows::{FrameRange, library::Library};
use image::Rgb;
use rustix::fs::{CWD, RenameFlags, renameat_with};

const FRAMES: i64 = 24;

/// What all of a picture outside is.
const OUTSIDE: Rgb<u8> = Rgb([255, 0, 255]);

/// Swaps a folder for a link to another one and back, over and over. The two are exchanged in one step: the name is never
/// free, so nobody has a reason to make the folder anew.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<u64>,
}

impl Swapper {
    fn start(folder: PathBuf, outside: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let away = folder.with_extension("away");
        symlink(&outside, &away).expect("linked");
        let swaps = move || {
            let exchange =
                || renameat_with(CWD, &folder, CWD, &away, RenameFlags::EXCHANGE).expect("exchanged");
            let mut swaps = 0;
            while !stopped.load(Ordering::Relaxed) {
                exchange();
                thread::sleep(Duration::from_micros(300));
                exchange();
                swaps += 1;
                thread::sleep(Duration::from_micros(1_500));
            }
            swaps
        };
        Self { stop, thread: thread::spawn(swaps) }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("swapped to the end")
    }
}

/// The same clip with other pixels.
fn make_outside(folder: &Path) {
    fs::create_dir_all(folder).expect("folder");
    for frame in 1..=FRAMES {
        let picture = image::RgbImage::from_pixel(32, 20, OUTSIDE);
        picture.save(folder.join(format!("plate.{frame:04}.png"))).expect("saved");
    }
}

async fn survives(transfer: Transfer) {
    let setup = Setup {
        simulators: vec![Config::default(); 2],
        transfer,
        tune_coordinator: Box::new(|config| config.max_tries = 20),
        ..Setup::default()
    };
    let farm = Farm::start(setup).await;
    let clip = farm.path("plates/sh010");
    clips::make(&clip, 1..=FRAMES, 32, 20);
    let (outside_clip, outside_output) = (farm.path("outside/clip"), farm.path("outside/output"));
    make_outside(&outside_clip);
    fs::create_dir_all(&outside_output).expect("folder");
    fs::create_dir_all(farm.path("comps/sh010")).expect("folder");
    let ask = |name: &str| v1::SubmitJobRequest {
        chunk_frames: 2,
        ..request("sh010", "resize-sharpen", &format!("sh010/{name}"))
    };
    let mut jobs = Vec::new();
    for number in 0..3 {
        jobs.push(
            farm.client.submit(ask(&format!("v{number}"))).await.expect("accepted").job.expect("a job"),
        );
    }
    let clips_swapped = Swapper::start(clip.clone(), outside_clip);
    let outputs_swapped = Swapper::start(farm.path("comps/sh010"), outside_output.clone());
    for job in &jobs {
        // Whether a frame was there when it was looked for is another matter.
        finish(&farm.client, job.job_id).await;
    }
    let swaps = clips_swapped.stop().min(outputs_swapped.stop());
    assert!(swaps > 20, "{swaps} swaps");
    assert_eq!(fs::read_dir(&outside_output).expect("there").count(), 0, "written outside");
    for job in &jobs {
        let output = farm.path(&job.output);
        for (name, picture) in if output.is_dir() { clips::read(&output) } else { BTreeMap::new() } {
            assert!(picture.to_rgb8().pixels().any(|pixel| *pixel != OUTSIDE), "{name} was read outside");
        }
    }
    // In peace it goes on as ever. Beside it lies, perhaps, what is kept of a job that ended without some frames.
    let (job, failures) = farm.run(ask("peace/v1")).await;
    let library = Library::read::<&str>(&[]);
    let workflow = library.get("resize-sharpen").expect("shipped");
    let expected =
        unsplit(workflow, &BTreeMap::new(), &clip, FrameRange::new(1, FRAMES).expect("range")).await;
    assert_eq!(job.state(), v1::JobState::Done, "{failures:?}");
    assert_right(&farm.path("comps/sh010/peace"), "v1", &expected);
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swapped_links_lead_nowhere_on_shared_storage() {
    survives(Transfer::Shared).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swapped_links_lead_nowhere_over_http() {
    survives(Transfer::Http).await;
}
