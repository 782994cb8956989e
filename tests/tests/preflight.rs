//! What would become of a job is told before it is one: what is wrong, who could run it, what it costs.

use hearth_agent::Transfer;
use hearth_client::v1::{self, JobState};
use hearth_simulator::Config;
use hearth_tests::{
    clips,
    farm::{Farm, Setup, request, source},
};

fn without(classes: &[&str], folder: &str) -> Config {
    let mut config =
        Config { without: classes.iter().map(|class| (*class).to_owned()).collect(), ..Config::default() };
    config.models.remove(folder);
    config
}

fn lacks<'a>(response: &'a v1::CheckJobResponse, node: &str) -> Vec<&'a str> {
    let has = |fit: &&v1::NodeFit| fit.nodes.iter().any(|name| name == node);
    let fit = response.nodes.iter().find(has).expect("a node of the pool");
    fit.lacks.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_told_before_a_gpu_is_touched() {
    let small = Config { vram_bytes: 4 << 30, ..Config::default() };
    let simulators = vec![Config::default(), without(&["BetterFilmGrain", "RIFE VFI"], "luts"), small];
    let farm = Farm::start(Setup { simulators, ..Setup::default() }).await;
    clips::make(&farm.path("plates/sh010"), 1001..=1012, 48, 32);

    let look = farm.client.check(request("sh010", "film-look", "look")).await.expect("it could be");
    assert!(lacks(&look, "node0").is_empty() && lacks(&look, "node2").is_empty());
    assert_eq!(
        lacks(&look, "node1"),
        [
            "node class BetterFilmGrain is not installed; it comes with spacepxl/ComfyUI-Image-Filters",
            "model luts/Cinematic_Teal_Orange.cube is missing"
        ]
    );
    assert_eq!(look.warnings, ["the clip's colour space is not said: taken for srgb"]);
    assert!(look.cost.is_none(), "nothing was measured");
    // Three channels of 16 bits.
    assert_eq!(look.output_bytes, 12 * 48 * 32 * 6);
    assert!(look.free_bytes > Some(look.output_bytes));
    // Another look is another table; without one, none is needed.
    let mut plain = request("sh010", "film-look", "plain");
    plain.parameters.insert("look".to_owned(), "none".to_owned());
    let plain = farm.client.check(plain).await.expect("it could be");
    assert_eq!(lacks(&plain, "node1").len(), 1, "only the class");

    let large = farm.client.check(request("sh010", "flux-upscale", "large")).await.expect("it could be");
    assert_eq!(lacks(&large, "node2"), ["less than 16.0 GiB of GPU memory"]);
    let nowhere = v1::SubmitJobRequest { pool: "moon".to_owned(), ..request("sh010", "film-look", "x") };
    let refused = farm.client.check(nowhere.clone()).await.expect_err("no such pool").to_string();
    assert!(refused.contains("no node is in pool 'moon'") && refused.contains("--anyway"), "{refused}");
    let limited =
        v1::SubmitJobRequest { limits: vec!["nukes".to_owned()], ..request("sh010", "film-look", "x") };
    let refused = farm.client.submit(limited).await.expect_err("no such limit").to_string();
    assert!(refused.contains("the farm has no limit 'nukes'"), "{refused}");
    let nowhere = v1::SubmitJobRequest { anyway: true, ..nowhere };
    let nowhere = farm.client.check(nowhere).await.expect("it could be");
    assert_eq!((nowhere.node_count, nowhere.nodes_elsewhere), (0, 3));
    assert!(nowhere.warnings.iter().any(|warning| warning.contains("no node of its pool is connected")));

    // The usual deliveries are told as well.
    let movies =
        farm.client.check(request("sh010", "multi-format-export", "movies")).await.expect("it could be");
    let made: Vec<&str> = movies.jobs.iter().map(|job| job.delivery.as_str()).collect();
    assert_eq!(made, ["", "prores-4444", "h264"]);

    // Its own manifest may allow what no node takes: only the node's ComfyUI knows.
    let library = hearth_workflows::library::Library::read::<&str>(&[]);
    let known = library.get("resize-sharpen").expect("it ships with Hearth");
    let generous = known.manifest_text().replace("max = 8.0", "max = 80.0");
    let mut much = v1::SubmitJobRequest {
        workflow: Some(source("generous", &generous, known.graph_text())),
        ..request("sh010", "", "much")
    };
    much.parameters.insert("scale".to_owned(), "20".to_owned());
    let told = farm.client.check(much.clone()).await.expect("its manifest allows it");
    for node in ["node0", "node1", "node2"] {
        assert_eq!(
            lacks(&told, node),
            ["node 2 (ImageScaleBy), input scale_by: 20.0 is out of range; give 0.01 to 8"]
        );
    }

    // Of takes, every one is asked for.
    much.parameters.remove("scale");
    much.wedges = vec![wedge("scale", &["2", "20"])];
    let takes = farm.client.check(much).await.expect("its manifest allows it");
    assert_eq!(lacks(&takes, "node0").len(), 1, "only the second take is too much: {takes:?}");
    assert_eq!(takes.jobs.len(), 3, "two takes and their sheet");
    let backgrounds = [1001, 1002].map(|frame| format!("plates/sh010/plate.{frame}.png"));
    let backgrounds = wedge("background", &backgrounds.each_ref().map(String::as_str));
    let over = v1::SubmitJobRequest {
        wedges: vec![backgrounds],
        ..request("sh010", "background-replacement", "over")
    };
    assert_eq!(farm.client.check(over).await.expect("pictures").jobs.len(), 3);

    // What would be refused is refused in the same words.
    for (wrong, told) in [
        (request("nowhere", "film-look", "x"), "nowhere"),
        (
            v1::SubmitJobRequest { preset: "nonsense".to_owned(), ..request("sh010", "film-look", "x") },
            "no preset",
        ),
        (request("sh010", "background-replacement", "x"), "parameter background: give a picture"),
        (
            v1::SubmitJobRequest {
                parameters: [("reference".to_owned(), "plates/none.png".to_owned())].into(),
                ..request("sh010", "style-transfer", "x")
            },
            "parameter reference: ",
        ),
        (
            v1::SubmitJobRequest {
                wedges: vec![wedge("reference", &["plates/sh010/plate.1001.png", "plates/none.png"])],
                ..request("sh010", "style-transfer", "x")
            },
            "parameter reference: ",
        ),
        (v1::SubmitJobRequest { after_job_ids: vec![99], ..request("sh010", "film-look", "x") }, "job 99"),
    ] {
        assert_refused(&farm, wrong, told).await;
    }
    assert!(farm.client.jobs(v1::ListJobsRequest::default()).await.expect("listed").jobs.is_empty());

    let (job, failures) = farm.run(request("sh010", "film-look", "look")).await;
    assert_eq!(job.state(), JobState::Done, "{failures:?}");
    let again = farm.client.check(request("sh010", "film-look", "again")).await.expect("it could be");
    let cost = again.cost.expect("measured");
    assert!(cost.chunks >= 1 && cost.gpu_seconds > 0.0, "{cost:?}");
    assert!(cost.earliest_seconds <= cost.latest_seconds && cost.earliest_seconds.is_some(), "{cost:?}");
    let wedged = v1::SubmitJobRequest {
        wedges: vec![wedge("grain", &["0", "0.5", "1"])],
        ..request("sh010", "film-look", "again")
    };
    let all = farm.client.check(wedged).await.expect("it could be").cost.expect("measured");
    assert!((all.gpu_seconds / cost.gpu_seconds - 3.0).abs() < 1e-6, "three takes: {all:?}, {cost:?}");

    // Handles are rendered, too: six chunks of two frames between two frames each.
    let (job, failures) = farm.run(request("sh010", "temporal-smooth", "smooth")).await;
    assert_eq!(job.state(), JobState::Done, "{failures:?}");
    let mut chunks = request("sh010", "temporal-smooth", "more");
    let [large, small] = [12, 2].map(|count| v1::SubmitJobRequest { chunk_frames: count, ..chunks.clone() });
    let [large, small] = [farm.client.check(large).await, farm.client.check(small).await]
        .map(|response| response.expect("it could be").cost.expect("measured"));
    assert!(small.chunks == 6 && small.gpu_seconds > 1.5 * large.gpu_seconds, "{small:?}, {large:?}");

    // A place that a job has is nobody else's; one that nothing is made at yet says so, too.
    (chunks.pool, chunks.anyway) = ("moon".to_owned(), true);
    farm.client.submit(chunks.clone()).await.expect("it waits for its pool");
    assert_refused(&farm, chunks, "already writes to").await;
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_saved_to_a_path_must_be_found_again() {
    let hides = Config { hides_folders: true, ..Config::default() };
    let simulators = vec![hides, Config::default()];
    let farm = Farm::start(Setup { simulators, transfer: Transfer::Http, ..Setup::default() }).await;
    clips::make_exr(&farm.path("plates/sh010"), 1001..=1003, 24, 16);
    let clip = "plates/sh010/plate.%04d.exr".to_owned();
    let key = v1::SubmitJobRequest { clip: clip.clone(), ..request("sh010", "chroma-key", "key") };
    let told = farm.client.check(key.clone()).await.expect("it could be");
    assert!(
        lacks(&told, "node0")[0].contains("cannot be fetched, since it is not known where its output folder")
    );
    assert!(lacks(&told, "node1").is_empty());
    let sharpen =
        v1::SubmitJobRequest { clip, allow_clipping: true, ..request("sh010", "resize-sharpen", "sharp") };
    assert!(lacks(&farm.client.check(sharpen).await.expect("it could be"), "node0").is_empty());
    let (job, failures) = farm.run(key).await;
    assert!(job.state() == JobState::Done && failures.is_empty(), "{failures:?}");
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn light_is_not_cut_off_in_silence() {
    let farm = Farm::start(Setup::default()).await;
    clips::make_exr(&farm.path("plates/sh010"), 1001..=1003, 24, 16);
    let of = |workflow, output| v1::SubmitJobRequest {
        clip: "plates/sh010/plate.%04d.exr".to_owned(),
        ..request("sh010", workflow, output)
    };
    let refused = farm.client.submit(of("resize-sharpen", "sharp")).await.expect_err("8 bits").to_string();
    assert!(refused.contains("8-bit PNG") && refused.contains("--allow-clipping"), "{refused}");
    let of_model = farm.client.submit(of("flux-upscale", "large")).await.expect_err("a model").to_string();
    assert!(of_model.contains("works on values from 0 to 1"), "{of_model}");
    for (view, told) in
        [("white=0", "white lies between 1 and 65504"), ("bright", "each part is NAME=NUMBER")]
    {
        let view = v1::SubmitJobRequest { view: view.to_owned(), ..of("resize-sharpen", "sharp") };
        let refused = farm.client.submit(view).await.expect_err("no view").to_string();
        assert!(refused.contains(told), "{refused}");
    }
    let needless = v1::SubmitJobRequest { view: "white=16".to_owned(), ..of("film-look", "look") };
    let refused = farm.client.submit(needless).await.expect_err("floats all the way").to_string();
    assert!(refused.contains("film-look cuts off no light of this clip"), "{refused}");
    let shown =
        v1::SubmitJobRequest { view: "white=16,exposure=1".to_owned(), ..of("resize-sharpen", "sharp") };
    let told = farm.client.check(shown).await.expect("it could be");
    assert!(
        told.warnings.iter().any(|warning| warning.contains("above 8 is cut off")),
        "{:?}",
        told.warnings
    );
    let allowed = v1::SubmitJobRequest { allow_clipping: true, ..of("resize-sharpen", "sharp") };
    let told = farm.client.check(allowed.clone()).await.expect("it could be");
    let warned = told.warnings.iter().any(|warning| warning.contains("cut off"));
    assert!(warned, "{:?}", told.warnings);
    assert_eq!(farm.run(allowed).await.0.state(), JobState::Done);
    // One that works on floats keeps them, and one that makes something else of the clip cuts nothing off.
    for workflow in ["chroma-key", "3d-maps"] {
        farm.client.check(of(workflow, "out")).await.expect(workflow);
    }
    let clips = |name: &'static str| {
        let library = hearth_workflows::library::Library::read::<&std::path::Path>(&[]);
        let half = hearth_workflows::format::Encoding {
            format: hearth_workflows::format::PictureFormat::ExrHalf,
            colour: hearth_workflows::format::ColourSpace::Linear,
        };
        library.get(name).expect("shipped").manifest().clips(half)
    };
    assert!(clips("resize-sharpen") && !clips("film-look") && !clips("chroma-key"));
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_that_no_node_can_run_together_run_apart() {
    let only = |table: &str| {
        let mut config = Config::default();
        config.models.insert("luts".to_owned(), vec![table.to_owned()]);
        config
    };
    let simulators = vec![only("Film_Noir_High_Contrast.cube"), only("Vintage_Kodak_Vision3.cube")];
    let farm = Farm::start(Setup { simulators, ..Setup::default() }).await;
    clips::make(&farm.path("plates/sh010"), 1001..=1002, 24, 16);
    let looks = |values: &[&str]| v1::SubmitJobRequest {
        wedges: vec![wedge("look", values)],
        ..request("sh010", "film-look", "looks")
    };
    let apart = farm.client.check(looks(&["noir", "kodak-vision3"])).await.expect("it could be");
    assert_eq!(lacks(&apart, "node0"), ["model luts/Vintage_Kodak_Vision3.cube is missing"]);
    assert_eq!(apart.warnings[0], "no node can run all of the takes, but each can run on some node");
    let never = farm.client.check(looks(&["noir", "teal-orange"])).await.expect("it could be");
    assert_eq!(never.warnings[0], "none of 2 nodes can run it; it would wait for one that can");
    let empty = farm.client.check(looks(&[])).await.expect_err("nothing to try").to_string();
    assert!(empty.contains("a wedge has no values"), "{empty}");
    farm.stop().await;
}

async fn assert_refused(farm: &Farm, wrong: v1::SubmitJobRequest, told: &str) {
    let refused = farm.client.check(wrong.clone()).await.expect_err("it cannot be").to_string();
    let submitted = farm.client.submit(wrong).await.expect_err("it cannot be").to_string();
    assert!(refused.contains(told) && refused == submitted, "{told}: {refused}, {submitted}");
}

fn wedge(parameter: &str, values: &[&str]) -> v1::Wedge {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    v1::Wedge { parameter: parameter.to_owned(), values }
}
