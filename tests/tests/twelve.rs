//! Every workflow that ships with Hearth, end to end on a farm whose ComfyUIs stand in for the models: in chunks it
//! makes the same pictures as in one piece, under the same names, as many as it should.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use hearth_agent::Transfer;
use hearth_client::v1::{self, JobState};
use hearth_pictures::{Raster, Samples};
use hearth_tests::{
    clips,
    farm::{Farm, Setup, finish, request},
};
use hearth_workflows::luts::LOOKS;

/// What is run of a workflow, and what must come of it.
struct Case {
    workflow: &'static str,
    clip: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    /// Frames in a chunk; 0: it is never split.
    chunk: u32,
    /// Pictures of each pass.
    passes: &'static [(&'static str, usize)],
    /// Their size.
    size: (u32, u32),
}

const PLATE: (u32, u32) = (48, 32);

const CASES: &[Case] = &[
    Case {
        workflow: "temporal-coherence",
        clip: "png",
        parameters: &[("width", "256"), ("steps", "2")],
        chunk: 0,
        passes: &[("", 12)],
        size: (256, 170),
    },
    Case {
        workflow: "film-look",
        clip: "exr",
        parameters: &[("grain", "1"), ("temperature", "10"), ("lut", "plates/show.cube")],
        chunk: 5,
        passes: &[("", 12)],
        size: PLATE,
    },
    Case { workflow: "film-look", clip: "png", parameters: &[], chunk: 1, passes: &[("", 12)], size: PLATE },
    Case {
        workflow: "rife-interpolation",
        clip: "exr",
        parameters: &[("factor", "4")],
        chunk: 8,
        passes: &[("", 45)],
        size: PLATE,
    },
    Case {
        workflow: "rife-interpolation",
        clip: "png",
        parameters: &[("factor", "5/2")],
        chunk: 7,
        passes: &[("", 28)],
        size: PLATE,
    },
    Case {
        workflow: "chroma-key",
        clip: "exr",
        parameters: &[],
        chunk: 5,
        passes: &[("key", 12), ("matte", 12)],
        size: PLATE,
    },
    Case {
        workflow: "3d-maps",
        clip: "png",
        parameters: &[("resolution", "64")],
        chunk: 5,
        passes: &[("depth", 12), ("normal", 12), ("ao", 12)],
        size: PLATE,
    },
    Case {
        workflow: "flux-upscale",
        clip: "png",
        parameters: &[("factor", "2"), ("steps", "2")],
        chunk: 5,
        passes: &[("", 12)],
        size: (96, 64),
    },
    Case {
        workflow: "style-transfer",
        clip: "png",
        parameters: &[
            ("megapixels", "0.25"),
            ("steps", "2"),
            ("prompt", "oil painting"),
            ("reference", "plates/reference.exr"),
        ],
        chunk: 5,
        passes: &[("", 12)],
        size: (624, 416),
    },
    Case {
        workflow: "background-replacement",
        clip: "png",
        parameters: &[("background", "plates/background.png")],
        chunk: 5,
        passes: &[("beauty", 12), ("matte", 12)],
        size: PLATE,
    },
    Case {
        workflow: "background-plate",
        clip: "",
        parameters: &[("width", "256"), ("height", "256"), ("steps", "2")],
        chunk: 0,
        passes: &[("", 1)],
        size: (256, 256),
    },
    Case {
        workflow: "face-restoration",
        clip: "png",
        parameters: &[],
        chunk: 5,
        passes: &[("", 12)],
        size: PLATE,
    },
    Case {
        workflow: "multi-format-export",
        clip: "exr",
        parameters: &[("preview_width", "24")],
        chunk: 5,
        passes: &[("exr", 12)],
        size: PLATE,
    },
    Case {
        workflow: "temporal-super-resolution",
        clip: "long",
        parameters: &[("short_side", "256")],
        chunk: 12,
        passes: &[("", 61)],
        size: (384, 256),
    },
    Case {
        workflow: "cosmos-video",
        clip: "",
        parameters: &[
            ("width", "256"),
            ("height", "256"),
            ("frames", "10"),
            ("steps", "2"),
            ("camera", "pan-left"),
            ("start", "plates/background.png"),
        ],
        chunk: 0,
        passes: &[("", 10)],
        size: (256, 256),
    },
];

fn ask(case: &Case, output: &str, chunk_frames: u32) -> v1::SubmitJobRequest {
    let extension = if case.clip == "exr" { "exr" } else { "png" };
    let clip = if case.clip.is_empty() {
        String::new()
    } else {
        format!("plates/{}/plate.%04d.{extension}", case.clip)
    };
    let texts = case.parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    v1::SubmitJobRequest {
        clip,
        chunk_frames,
        parameters: texts.collect::<HashMap<_, _>>(),
        no_deliveries: true,
        ..request("", case.workflow, output)
    }
}

/// Every picture below the folder by its name.
fn pictures(folder: &Path) -> BTreeMap<String, Raster> {
    let read = |path: std::path::PathBuf| hearth_pictures::read(&path).expect("a picture");
    clips::files(folder).into_iter().map(|(name, path)| (name, read(path))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_workflow_makes_the_same_in_chunks_as_in_one_piece() {
    let farm =
        Farm::start(Setup { simulators: vec![hearth_simulator::Config::default(); 3], ..Setup::default() })
            .await;
    clips::make(&farm.path("plates/png"), 1001..=1012, PLATE.0, PLATE.1);
    clips::make_exr(&farm.path("plates/exr"), 1001..=1012, PLATE.0, PLATE.1);
    clips::make(&farm.path("plates/long"), 1001..=1061, PLATE.0, PLATE.1);
    clips::draw(7, 64, 64).save(farm.path("plates/background.png")).expect("a picture");
    std::fs::write(farm.path("plates/show.cube"), LOOKS[0].cube()).expect("a table");
    std::fs::copy(farm.path("plates/exr/plate.1003.exr"), farm.path("plates/reference.exr")).expect("a copy");

    let mut jobs = Vec::new();
    for (index, case) in CASES.iter().enumerate() {
        for (kind, chunk) in [("whole", 1_000), ("split", case.chunk)] {
            let output = format!("{index}-{kind}");
            let answer = farm.client.submit(ask(case, &output, chunk)).await;
            let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", case.workflow));
            jobs.push((case, output, answer.job.expect("a job").job_id));
        }
    }
    for (case, output, id) in &jobs {
        let (job, failures) = finish(&farm.client, *id).await;
        assert_eq!(job.state(), JobState::Done, "{}, {output}: {failures:?}", case.workflow);
        assert!(failures.is_empty(), "{}, {output}: {failures:?}", case.workflow);
    }
    for (index, case) in CASES.iter().enumerate() {
        let name = case.workflow;
        let whole = pictures(&farm.path(&format!("comps/{index}-whole")));
        let split = pictures(&farm.path(&format!("comps/{index}-split")));
        for (pass, count) in case.passes {
            let of_pass: Vec<_> = whole.iter().filter(|(file, _)| file.starts_with(pass)).collect();
            assert_eq!(of_pass.len(), *count, "{name}: {:?}", whole.keys());
            for (file, picture) in of_pass {
                assert_eq!((picture.display.width, picture.display.height), case.size, "{name}: {file}");
            }
        }
        assert_eq!(split.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>(), "{name}");
        for (file, picture) in &whole {
            assert!(split[file] == *picture, "{name}: {file} is another picture in chunks");
        }
        let distinct = whole.values().zip(whole.values().skip(1)).filter(|(one, next)| one != next).count();
        assert!(whole.len() < 2 || distinct > whole.len() / 2, "{name}: its pictures are all alike");
    }
    assert_eq!(clips::leftovers(&farm.path("comps")), Vec::<String>::new());
    farm.stop().await;
}

/// Nothing is shared: what comes in is uploaded, and what is saved to a path is found where ComfyUI keeps its results.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_saved_to_paths_is_the_same_over_http() {
    let mut made = Vec::new();
    for transfer in [Transfer::Shared, Transfer::Http] {
        let shared_output = transfer == Transfer::Shared;
        let farm = Farm::start(Setup { transfer, shared_output, ..Setup::default() }).await;
        clips::make(&farm.path("plates/png"), 1001..=1012, PLATE.0, PLATE.1);
        clips::make_exr(&farm.path("plates/exr"), 1001..=1012, PLATE.0, PLATE.1);
        std::fs::write(farm.path("plates/show.cube"), LOOKS[0].cube()).expect("a table");
        let by_path = ["film-look", "rife-interpolation", "chroma-key", "3d-maps", "multi-format-export"];
        for case in by_path.map(|name| CASES.iter().find(|case| case.workflow == name).expect("a case")) {
            let answer = farm.client.submit(ask(case, case.workflow, case.chunk)).await.expect("accepted");
            let (job, failures) = finish(&farm.client, answer.job.expect("a job").job_id).await;
            assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", case.workflow);
        }
        made.push(pictures(&farm.path("comps")));
        farm.stop().await;
    }
    assert!(made[0].len() > 100 && made[0] == made[1], "{:?}, {:?}", made[0].keys(), made[1].keys());
}

/// A table of the show's own changes the pictures by what is in it; what is none is refused when it is submitted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_the_show_s_own_is_what_it_says_or_refused() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/png"), 1..=2, PLATE.0, PLATE.1);
    let table = farm.path("plates/show.cube");
    let ask = |output: &str, lut: &str| v1::SubmitJobRequest {
        clip: "plates/png/plate.%04d.png".to_owned(),
        parameters: [("look", "none"), ("grain", "0"), ("vignette", "0"), ("lut", lut)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..request("", "film-look", output)
    };
    let mut made = Vec::new();
    for (output, text) in [("none", None), ("teal", Some(LOOKS[0].cube())), ("noir", Some(LOOKS[1].cube()))] {
        if let Some(text) = &text {
            std::fs::write(&table, text).expect("a table");
        }
        let (job, failures) = farm.run(ask(output, text.map_or("", |_| "plates/show.cube"))).await;
        assert_eq!(job.state(), JobState::Done, "{failures:?}");
        made.push(pictures(&farm.path(&format!("comps/{output}"))));
    }
    assert!(made[0] != made[1] && made[1] != made[2], "the table does not show");
    let half: String = LOOKS[0].cube().lines().take(1_000).map(|line| format!("{line}\n")).collect();
    std::fs::write(&table, half).expect("a table");
    std::fs::write(farm.path("plates/show.3dl"), "0 64 128\n").expect("a table");
    for (lut, why) in [
        ("plates/show.cube", "cut off or damaged"),
        ("plates/gone.cube", "No such file"),
        ("plates/show.3dl", "does not end in .cube"),
        ("plates", "names only the root"),
    ] {
        let refused = farm.client.submit(ask("refused", lut)).await.expect_err(lut).to_string();
        assert!(refused.contains(why), "{lut}: {refused}");
    }
    farm.stop().await;
}

/// Of a clip of whole numbers the key comes back straight, or multiplied by its alpha where that is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_comes_multiplied_and_without_its_matte_when_asked() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/png"), 1..=3, PLATE.0, PLATE.1);
    let mut made = Vec::new();
    for (output, parameters) in
        [("straight", &[][..]), ("multiplied", &[("premultiplied", "true"), ("matte", "false")])]
    {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let request = v1::SubmitJobRequest {
            clip: "plates/png/plate.%04d.png".to_owned(),
            parameters: parameters.collect(),
            ..request("", "chroma-key", output)
        };
        let (job, failures) = farm.run(request).await;
        assert_eq!(job.state(), JobState::Done, "{failures:?}");
        made.push(pictures(&farm.path(&format!("comps/{output}"))));
    }
    let names: Vec<_> = made[1].keys().collect();
    assert_eq!(names, ["key/plate_key.0001.png", "key/plate_key.0002.png", "key/plate_key.0003.png"]);
    assert_eq!(made[0].len(), 6);
    let samples = |picture: &Raster, name: &str| match &picture.plane(name).expect(name).samples {
        Samples::U16(samples) => samples.clone(),
        other => panic!("{} samples of another kind", other.len()),
    };
    let mut part = 0;
    for (name, multiplied) in &made[1] {
        let alpha = samples(multiplied, "A");
        for colour in ["R", "G", "B"] {
            let (straight, multiplied) = (samples(&made[0][name], colour), samples(multiplied, colour));
            for ((straight, multiplied), alpha) in straight.iter().zip(multiplied).zip(&alpha) {
                let wanted = f64::from(*straight) * f64::from(*alpha) / 65_535.0;
                // What is nearly transparent has lost its colour when it is divided.
                assert!(
                    (wanted - f64::from(multiplied)).abs() < 2.0,
                    "{name}: {straight} {alpha} {multiplied}"
                );
                part += u32::from((1_000..60_000).contains(alpha));
            }
        }
    }
    assert!(part > 100, "nothing is half transparent: the test says nothing");
    farm.stop().await;
}
