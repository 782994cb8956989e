//! Graphs as people save them in ComfyUI's editor: with subgraphs, nodes that only the editor knows, values that no class
//! declares, movies.

use hearth_workflows::{Workflow, import::import, signatures::Signatures};
use serde_json::{Value, json};

fn signatures() -> Signatures {
    let class = |required: Value, order: &[&str], output: &[&str], is_output: bool| {
        json!({
            "input": { "required": required }, "input_order": { "required": order }, "output": output,
            "output_node": is_output, "python_module": "nodes",
        })
    };
    let image = || json!(["IMAGE"]);
    Signatures::read(&json!({
        "VHS_LoadImagesPath": class(
            json!({ "directory": ["STRING", {}], "image_load_cap": ["INT", {}], "skip_first_images": ["INT", {}],
                "select_every_nth": ["INT", {}] }),
            &["directory", "image_load_cap", "skip_first_images", "select_every_nth"], &["IMAGE", "MASK", "INT"], false,
        ),
        "VHS_LoadVideo": class(
            json!({ "video": [["a.mp4"], { "video_upload": true }], "force_rate": ["FLOAT", { "default": 0 }],
                "custom_width": ["INT", { "default": 0 }], "custom_height": ["INT", { "default": 0 }] }),
            &["video", "force_rate", "custom_width", "custom_height"], &["IMAGE", "INT", "AUDIO", "VHS_VIDEOINFO"], false,
        ),
        "LoadVideo": class(json!({ "file": [["a.mp4"], { "video_upload": true }] }), &["file"], &["VIDEO"], false),
        "GetVideoComponents": class(json!({ "video": ["VIDEO"] }), &["video"], &["IMAGE", "AUDIO", "FLOAT"], false),
        "CreateVideo": class(json!({ "images": image(), "fps": ["FLOAT", {}] }), &["images", "fps"], &["VIDEO"], false),
        "SaveVideo": class(
            json!({ "video": ["VIDEO"], "filename_prefix": ["STRING", {}],
                "codec": ["COMFY_DYNAMICCOMBO_V3", { "options": [
                    { "key": "auto", "inputs": { "required": {} } },
                    { "key": "h264", "inputs": { "required": { "crf": ["INT", {}] } } },
                ] }] }),
            &["video", "filename_prefix", "codec"], &[], true,
        ),
        "VHS_VideoCombine": class(
            json!({ "images": image(), "frame_rate": ["FLOAT", { "default": 8 }], "filename_prefix": ["STRING", {}] }),
            &["images", "frame_rate", "filename_prefix"], &[], true,
        ),
        "SaveImage": class(
            json!({ "images": image(), "filename_prefix": ["STRING", { "default": "ComfyUI" }] }),
            &["images", "filename_prefix"], &[], true,
        ),
        "Sharpen": class(
            json!({ "image": image(), "amount": ["FLOAT", { "default": 1.0, "min": 0, "max": 5 }],
                "seed": ["INT", { "default": 0, "control_after_generate": true }], "hard": ["BOOLEAN", { "default": false }],
                "late": ["INT", { "default": 7 }] }),
            &["image", "amount", "seed", "hard", "late"], &["IMAGE"], false,
        ),
    }))
}

fn graph(nodes: Value, links: Value) -> Value {
    json!({ "nodes": nodes, "links": links, "version": 0.4 })
}

fn node(id: u32, class: &str, inputs: Value, outputs: Value, values: Value) -> Value {
    json!({ "id": id, "type": class, "mode": 0, "inputs": inputs, "outputs": outputs, "widgets_values": values })
}

fn image_in(link: u32) -> Value {
    json!([{ "name": "image", "type": "IMAGE", "link": link }])
}

fn image_out() -> Value {
    json!([{ "name": "IMAGE", "type": "IMAGE" }])
}

fn loader() -> Value {
    node(1, "VHS_LoadImagesPath", json!([]), image_out(), json!(["", 0, 0, 1]))
}

fn saver(link: u32) -> Value {
    node(
        9,
        "SaveImage",
        json!([{ "name": "images", "type": "IMAGE", "link": link }]),
        json!([]),
        json!(["sharp"]),
    )
}

fn made(graph: &Value) -> (Workflow, String) {
    let draft = import("made", "made.json", &graph.to_string(), Some(&signatures()));
    let draft = draft.unwrap_or_else(|error| panic!("{error}"));
    (draft.workflow, draft.notes.join("\n"))
}

fn inputs(workflow: &Workflow, id: &str) -> Value {
    let node =
        workflow.graph().get(id).unwrap_or_else(|| panic!("no node {id} in {}", workflow.graph().ids()));
    Value::Object(node.inputs.clone())
}

#[test]
fn values_have_the_names_that_the_class_gives_them_whatever_the_editor_puts_between() {
    let sharpen = |values: Value| node(2, "Sharpen", image_in(1), image_out(), values);
    let with = |values| {
        graph(
            json!([loader(), sharpen(values), saver(2)]),
            json!([[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 9, 0, "IMAGE"]]),
        )
    };
    let expected = json!({ "image": ["1", 0], "amount": 0.5, "seed": 3, "hard": true, "late": 7 });
    // A word behind the seed, and a class that has grown since.
    let (workflow, notes) = made(&with(json!([0.5, 3, "randomize", true])));
    assert_eq!(inputs(&workflow, "2"), expected);
    assert!(notes.contains("late: not in the file, taken as declared"), "{notes}");
    // Text for true, and a button of the package's own.
    let (workflow, _) = made(&with(json!([0.5, 3, "fixed", "True", 7, null, ""])));
    assert_eq!(inputs(&workflow, "2"), expected);
    // More than there is.
    let (_, notes) = made(&with(json!([0.5, 3, "fixed", true, 7, 12])));
    assert!(notes.contains("1 values more than its class has widgets"), "{notes}");
    // Another version of the class.
    let refused =
        import("x", "x.json", &with(json!(["soft", 3, "fixed", true])).to_string(), Some(&signatures()));
    let refused = refused.expect_err("refused").to_string();
    assert!(refused.contains("node 2 (Sharpen): \"soft\" cannot be amount"), "{refused}");
}

#[test]
fn what_only_the_editor_knows_is_resolved_or_dropped() {
    let mut muted = node(5, "Sharpen", image_in(1), image_out(), json!([1.0, 1, "fixed", false, 7]));
    muted["mode"] = json!(2);
    let mut bypassed = node(6, "Sharpen", image_in(4), image_out(), json!([1.0, 1, "fixed", false, 7]));
    bypassed["mode"] = json!(4);
    let nodes = json!([
        loader(),
        node(2, "SetNode", image_in(1), json!([{ "name": "*", "type": "*" }]), json!(["plate"])),
        node(3, "GetNode", json!([]), image_out(), json!(["plate"])),
        node(4, "Reroute", json!([{ "name": "", "type": "*", "link": 3 }]), image_out(), Value::Null),
        muted,
        bypassed,
        node(7, "MarkdownNote", json!([]), json!([]), json!(["read me"])),
        node(8, "Label (rgthree)", json!([]), json!([]), json!([])),
        saver(6),
    ]);
    let links = json!([
        [1, 1, 0, 2, 0, "IMAGE"],
        [3, 3, 0, 4, 0, "*"],
        [4, 4, 0, 6, 0, "IMAGE"],
        [6, 6, 0, 9, 0, "IMAGE"],
    ]);
    let (workflow, _) = made(&graph(nodes, links));
    assert_eq!(workflow.graph().ids(), "1, 9");
    assert_eq!(inputs(&workflow, "9")["images"], json!(["1", 0]));
}

/// An instance within an instance, each with values of its own for what lies inside.
#[test]
fn subgraphs_are_expanded_with_the_values_of_their_instances() {
    let amount = json!({ "name": "amount", "type": "FLOAT", "widget": { "name": "amount" }, "link": 12 });
    let inner = json!({
        "id": "inner", "name": "Inner",
        "inputs": [{ "name": "image", "type": "IMAGE", "linkIds": [11] }, { "name": "how_much", "type": "FLOAT", "linkIds": [12] }],
        "outputs": [{ "name": "IMAGE", "type": "IMAGE", "linkIds": [13] }],
        "nodes": [node(3, "Sharpen", json!([{ "name": "image", "type": "IMAGE", "link": 11 }, amount]), image_out(),
            json!([0.1, 5, "fixed", false, 7]))],
        "links": [
            { "id": 11, "origin_id": -10, "origin_slot": 0, "target_id": 3, "target_slot": 0, "type": "IMAGE" },
            { "id": 12, "origin_id": -10, "origin_slot": 1, "target_id": 3, "target_slot": 1, "type": "FLOAT" },
            { "id": 13, "origin_id": 3, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE" },
        ],
    });
    let mut inside = node(
        4,
        "inner",
        json!([{ "name": "image", "type": "IMAGE", "link": 21 }]),
        image_out(),
        json!([0.2]),
    );
    inside["properties"] = json!({ "proxyWidgets": [["3", "seed"]] });
    inside["widgets_values"] = json!([99]);
    let outer = json!({
        "id": "outer", "name": "Outer",
        "inputs": [{ "name": "image", "type": "IMAGE", "linkIds": [21] }],
        "outputs": [{ "name": "IMAGE", "type": "IMAGE", "linkIds": [22] }],
        "nodes": [inside],
        "links": [
            { "id": 21, "origin_id": -10, "origin_slot": 0, "target_id": 4, "target_slot": 0, "type": "IMAGE" },
            { "id": 22, "origin_id": 4, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE" },
        ],
    });
    let one =
        node(5, "outer", json!([{ "name": "image", "type": "IMAGE", "link": 1 }]), image_out(), json!([]));
    // Without proxies its values are those of the inputs that lead to a widget.
    let two =
        node(6, "inner", json!([{ "name": "image", "type": "IMAGE", "link": 2 }]), image_out(), json!([0.7]));
    let mut whole = graph(
        json!([loader(), one, two, saver(3)]),
        json!([[1, 1, 0, 5, 0, "IMAGE"], [2, 5, 0, 6, 0, "IMAGE"], [3, 6, 0, 9, 0, "IMAGE"]]),
    );
    whole["definitions"] = json!({ "subgraphs": [outer, inner] });
    let (workflow, _) = made(&whole);
    assert_eq!(workflow.graph().ids(), "1, 5:4:3, 6:3, 9");
    assert_eq!(
        inputs(&workflow, "5:4:3"),
        json!({ "image": ["1", 0], "amount": 0.1, "seed": 99, "hard": false, "late": 7 })
    );
    assert_eq!(
        inputs(&workflow, "6:3"),
        json!({ "image": ["5:4:3", 0], "amount": 0.7, "seed": 5, "hard": false, "late": 7 })
    );
    // One that holds itself.
    whole["definitions"]["subgraphs"][1]["nodes"][0]["type"] = json!("inner");
    let refused = import("x", "x.json", &whole.to_string(), Some(&signatures())).expect_err("refused");
    assert!(refused.to_string().contains("too deep in each other, or in themselves"), "{refused}");
}

#[test]
fn movies_become_frames_in_and_frames_out() {
    let nodes = json!([
        node(
            1,
            "VHS_LoadVideo",
            json!([]),
            json!([]),
            json!({ "video": "shot.mp4", "force_rate": 0, "custom_width": 512, "custom_height": 0, "videopreview": {} })
        ),
        node(
            9,
            "VHS_VideoCombine",
            json!([{ "name": "images", "type": "IMAGE", "link": 1 }]),
            json!([]),
            json!({ "frame_rate": 24, "filename_prefix": "out/normal", "crf": 19 })
        ),
    ]);
    let (workflow, notes) = made(&graph(nodes, json!([[1, 1, 0, 9, 0, "IMAGE"]])));
    assert_eq!(workflow.manifest().clip.as_ref().map(|clip| clip.node.as_str()), Some("1"));
    assert_eq!(workflow.manifest().passes[0].name, "normal");
    assert_eq!(inputs(&workflow, "9")["images"], json!(["1_scaled", 0]));
    assert!(notes.contains("it loads a folder of frames instead"), "{notes}");

    let nodes = json!([
        node(1, "LoadVideo", json!([]), json!([]), json!(["shot.mp4", "image"])),
        node(
            2,
            "GetVideoComponents",
            json!([{ "name": "video", "type": "VIDEO", "link": 1 }]),
            json!([]),
            json!([])
        ),
        node(
            3,
            "CreateVideo",
            json!([{ "name": "images", "type": "IMAGE", "link": 2 },
            { "name": "fps", "type": "FLOAT", "widget": { "name": "fps" }, "link": 3 }]),
            json!([]),
            json!([24])
        ),
        node(
            9,
            "SaveVideo",
            json!([{ "name": "video", "type": "VIDEO", "link": 4 }]),
            json!([]),
            json!(["video/x", "h264", 19])
        ),
    ]);
    let links = json!([
        [1, 1, 0, 2, 0, "VIDEO"],
        [2, 2, 0, 3, 0, "IMAGE"],
        [3, 2, 2, 3, 1, "FLOAT"],
        [4, 3, 0, 9, 0, "VIDEO"],
    ]);
    let (workflow, _) = made(&graph(nodes, links));
    assert_eq!(workflow.graph().ids(), "2, 9");
    assert_eq!(workflow.graph().get("9").expect("there").class_type, "SaveImage");
}

#[test]
fn what_to_install_is_told_by_package() {
    let mut foreign = node(2, "Denoise", image_in(1), image_out(), json!([1, 2]));
    foreign["properties"] = json!({ "aux_id": "someone/ComfyUI-Denoise", "ver": "1.2" });
    let nodes = json!([loader(), foreign, saver(2)]);
    let links = json!([[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 9, 0, "IMAGE"]]);
    let mut whole = graph(nodes, links);
    let refused =
        import("x", "x.json", &whole.to_string(), Some(&signatures())).expect_err("refused").to_string();
    assert!(refused.contains("install someone/ComfyUI-Denoise, for Denoise"), "{refused}");
    // The file itself can say how the values are called: then there is a manifest, too.
    whole["nodes"][1]["inputs"] = json!([
        { "name": "image", "type": "IMAGE", "link": 1 },
        { "name": "radius", "type": "INT", "widget": { "name": "radius" }, "link": null },
        { "name": "rounds", "type": "INT", "widget": { "name": "rounds" }, "link": null },
    ]);
    let (workflow, notes) = made(&whole);
    assert_eq!(inputs(&workflow, "2"), json!({ "image": ["1", 0], "radius": 1, "rounds": 2 }));
    assert!(notes.contains("install someone/ComfyUI-Denoise, for Denoise"), "{notes}");
}

#[test]
fn a_service_s_wrapping_is_taken_off() {
    let api = json!({
        "1": { "class_type": "VHS_LoadImagesPath", "inputs": { "directory": "x" } },
        "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "x" } },
    });
    for wrapped in [json!({ "input": { "workflow": api } }), json!({ "prompt": api })] {
        assert_eq!(made(&wrapped).0.graph().ids(), "1, 2");
    }
}
