//! The law of the house: with enough handles, any split of a clip gives the same pixels as no split, bit for
//! bit.

use std::collections::BTreeMap;

use hearth_tests::{clips, reference::Reference};
use hearth_workflows::{FrameRange, Workflow};
use proptest::{prelude::*, test_runner::TestRunner};

/// The mean over `radius` neighbours on each side, with handles to match.
fn temporal_mean(radius: u32, handles: u32) -> Workflow {
    let manifest = format!(
        r#"
        [workflow]
        title = "Temporal mean"
        purpose = "Test"
        [clip]
        node = "1"
        load = "image"
        [split]
        kind = "handles"
        head = {handles}
        tail = {handles}
        [[pass]]
        name = "beauty"
        node = "3"
        "#
    );
    let graph = format!(
        r#"{{
        "1": {{ "class_type": "LoadImage", "inputs": {{ "image": "x" }} }},
        "2": {{ "class_type": "SimulatorTemporalMean", "inputs": {{ "image": ["1", 0], "radius": {radius} }} }},
        "3": {{ "class_type": "SaveImage", "inputs": {{ "images": ["2", 0], "filename_prefix": "x" }} }}
        }}"#
    );
    Workflow::parse("temporal-mean", &manifest, &graph).expect("valid")
}

/// Whether rendering in chunks of these sizes gives what rendering in one piece gives.
async fn same(reference: &Reference, workflow: &Workflow, len: i64, sizes: &[u64]) -> bool {
    let dir = tempfile::tempdir().expect("tempdir");
    clips::make(dir.path(), 1..=len, 24, 16);
    let clip = FrameRange::new(1, len).expect("range");
    let none = BTreeMap::new();
    let whole = reference.render(workflow, &none, dir.path(), &clip.into(), clip).await;
    let split = workflow.manifest().split(&none).expect("a split");
    let mut waiting = split.results(&clip.into());
    let mut pieces = BTreeMap::new();
    for size in sizes.iter().cycle() {
        if waiting.is_empty() {
            break;
        }
        let own = split.carve(&mut waiting, *size, workflow.manifest().shape());
        let made = reference.render(workflow, &none, dir.path(), &own, clip).await;
        pieces.extend(made["beauty"].clone());
    }
    pieces == whole["beauty"]
}

#[test]
fn any_split_with_enough_handles_is_the_unsplit_render() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let reference = runtime.block_on(Reference::start());
    let library = hearth_workflows::library::Library::read::<&str>(&[]);
    let shipped = library.get("temporal-smooth").expect("shipped").clone();
    let cases = (0_u32..4, 2_i64..24, prop::collection::vec(1_u64..9, 1..8));
    let mut runner = TestRunner::new(ProptestConfig { cases: 48, ..ProptestConfig::default() });
    runner
        .run(&cases, |(radius, len, sizes)| {
            let workflow = temporal_mean(radius, radius);
            prop_assert!(runtime.block_on(same(&reference, &workflow, len, &sizes)), "radius {}", radius);
            prop_assert!(runtime.block_on(same(&reference, &shipped, len, &sizes)), "shipped");
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));

    // The test can fail: with a handle too few the cut shows.
    let short = temporal_mean(2, 1);
    assert!(!runtime.block_on(same(&reference, &short, 12, &[4])), "a missing handle must show");
}
