//! The workflows that ship with Hearth, held against what the real node classes declare (recorded from a ComfyUI
//! 0.19.3): with defaults and with every preset, and bound for chunks of many kinds.

use std::collections::BTreeMap;

use hearth_simulator::nodes::all_object_info;
use hearth_workflows::{
    FrameRange, Workflow, WorkflowError, bind,
    graph::Graph,
    library::Library,
    parameters::{ParameterTexts, ParameterType},
    signatures::{InputKind, Signatures, What},
};
use serde_json::{Value, json};

fn signatures() -> Signatures {
    Signatures::read(&all_object_info(&hearth_simulator::Config::default()))
}

fn shipped() -> Vec<Workflow> {
    let library = Library::read::<&str>(&[]);
    assert!(library.errors.is_empty(), "{:?}", library.errors);
    library.workflows.into_values().collect()
}

/// Defaults, every preset, every choice of every parameter, and what is switched off switched on and the other way.
fn settings(workflow: &Workflow) -> Vec<(String, ParameterTexts)> {
    let manifest = workflow.manifest();
    let mut all = vec![("defaults".to_owned(), ParameterTexts::new())];
    all.extend(manifest.presets.iter().map(|(name, preset)| (name.clone(), preset.parameters.clone())));
    for (name, parameter) in &manifest.parameters {
        let mut values: Vec<String> = parameter.choices.clone();
        values.extend([parameter.min, parameter.max].into_iter().flatten().map(|bound| bound.to_string()));
        match parameter.kind {
            ParameterType::Bool => values.extend(["true".to_owned(), "false".to_owned()]),
            ParameterType::Picture => values.extend(["plates/ref.png".to_owned()]),
            ParameterType::File => values.extend([format!("plates/ref.{}", parameter.extensions[0])]),
            _ => {}
        }
        let one = |value: String| (format!("{name}={value}"), ParameterTexts::from([(name.clone(), value)]));
        all.extend(values.into_iter().map(one));
    }
    // A picture that everybody must give.
    for (_, texts) in &mut all {
        for (name, parameter) in &manifest.parameters {
            if parameter.kind == ParameterType::Picture && parameter.bypass.is_empty() {
                texts.entry(name.clone()).or_insert_with(|| "plates/ref.png".to_owned());
            }
        }
    }
    all
}

/// The prompt for the frames `own` of a clip of 100.
fn bound(workflow: &Workflow, texts: &ParameterTexts, own: &str) -> Result<Graph, WorkflowError> {
    let clip = FrameRange::new(1001, 1100).expect("a range");
    bind::sample(workflow, texts, &own.parse().expect("frames"), clip, "/stage/chunk")
}

fn told(mismatches: &[hearth_workflows::signatures::Mismatch]) -> String {
    mismatches.iter().map(|mismatch| hearth_telemetry::chain(mismatch)).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_template_is_what_its_nodes_declare() {
    let signatures = signatures();
    for workflow in shipped() {
        let name = workflow.name();
        let wrong = signatures.check(workflow.graph());
        assert!(wrong.is_empty(), "{name}:\n{}", told(&wrong));
        for class in workflow.needed_classes() {
            let signature = signatures.get(class).unwrap_or_else(|| panic!("{name}: no class {class}"));
            let packages = &workflow.manifest().needs.packages;
            let of = packages.iter().find(|(_, classes)| classes.iter().any(|one| one == class));
            let named = of.map(|(package, _)| package.rsplit('/').next().unwrap_or_default());
            assert_eq!(named, signature.package(), "{name}: package of {class}");
        }
    }
}

#[test]
fn every_template_binds_for_any_chunk_and_any_setting() {
    let signatures = signatures();
    for workflow in shipped() {
        for (setting, texts) in settings(&workflow) {
            for own in ["1001", "1001-1012", "1040-1047", "1099-1100", "1001-1030x3"] {
                let name = format!("{}, {setting}, frames {own}", workflow.name());
                let graph = bound(&workflow, &texts, own).unwrap_or_else(|error| panic!("{name}: {error}"));
                let wrong = signatures.check(&graph);
                assert!(wrong.is_empty(), "{name}:\n{}", told(&wrong));
                let known = hearth_simulator::Config::default().models;
                for model in workflow.needed_models(&texts) {
                    let (folder, file) = model.split_once('/').expect("folder/file");
                    assert!(known[folder].iter().any(|one| one == file), "{name}: {model}");
                }
            }
        }
    }
}

/// A wrong input name, type, range, choice, class, slot and link, each in every template that has such an input.
#[test]
fn every_mistake_in_every_template_is_found() {
    let signatures = signatures();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for workflow in shipped() {
        let text: Value = serde_json::from_str(workflow.graph_text()).expect("JSON");
        for (id, node) in workflow.graph().nodes() {
            let signature = signatures.get(&node.class_type).expect("a class");
            let mut expect = |mistake: &'static str, changed: Value, is: fn(&What) -> bool| {
                let graph = Graph::parse(workflow.name(), &changed.to_string()).expect("still a graph");
                let wrong = signatures.check(&graph);
                let hit = wrong.iter().any(|mismatch| is(&mismatch.what));
                assert!(hit, "{}, node {id}: {mistake} is not found: {}", workflow.name(), told(&wrong));
                *found.entry(mistake).or_default() += 1;
            };
            let with = |input: &str, value: Value| {
                let mut changed = text.clone();
                changed[id]["inputs"][input] = value;
                changed
            };
            let mut class = text.clone();
            class[id]["class_type"] = "NoSuchNode".into();
            expect("a class", class, |what| matches!(what, What::NoClass));
            expect("a name", with("imgae", json!(1)), |what| matches!(what, What::Undeclared { .. }));
            for (name, input) in &signature.inputs {
                let Some(value) = node.inputs.get(name) else { continue };
                if input.is_required {
                    let mut missing = text.clone();
                    missing[id]["inputs"].as_object_mut().expect("inputs").remove(name);
                    expect("a missing input", missing, |what| matches!(what, What::Missing));
                }
                if value.is_array() {
                    let source = value[0].clone();
                    expect("a slot", with(name, json!([source, 9])), |what| {
                        matches!(what, What::Slot { .. })
                    });
                    let other = workflow.graph().nodes().iter().find(|(_, other)| {
                        let outputs = &signatures.get(&other.class_type).expect("a class").outputs;
                        outputs.first().is_some_and(|first| {
                            // Anything fits into `*`, and `*` into anything.
                            first != "*"
                                && !matches!(&input.kind, InputKind::Link(types)
                                    if types.contains(first) || types.iter().any(|wanted| wanted == "*"))
                                && !matches!(
                                    (&input.kind, first.as_str()),
                                    (InputKind::Text, "STRING") | (InputKind::Int { .. }, "INT")
                                )
                        })
                    });
                    if let Some((other, _)) = other.filter(|(other, _)| *other != id) {
                        let mut changed = with(name, json!([other, 0]));
                        // No circle: the other one stands alone.
                        changed[other]["inputs"] = json!({});
                        expect("a link", changed, |what| matches!(what, What::Link { .. }));
                    }
                    continue;
                }
                match &input.kind {
                    InputKind::Int { min, max } | InputKind::Float { min, max } => {
                        expect("a type", with(name, json!("many")), |what| matches!(what, What::Type { .. }));
                        for beyond in [min - 1.0, max + 1.0].into_iter().filter(|bound| bound.abs() < 1e15) {
                            let value =
                                if beyond.fract() == 0.0 { json!(beyond as i64) } else { json!(beyond) };
                            expect("a range", with(name, value), |what| matches!(what, What::Range { .. }));
                        }
                    }
                    InputKind::Bool | InputKind::Text | InputKind::InputFile => {
                        expect("a type", with(name, json!(7)), |what| matches!(what, What::Type { .. }));
                    }
                    InputKind::Choice(_) => {
                        let wrong = json!("no such choice");
                        expect("a choice", with(name, wrong), |what| matches!(what, What::Choice { .. }));
                    }
                    InputKind::Link(_) => {
                        panic!("{}: node {id}, input {name} is no link", workflow.name());
                    }
                }
            }
        }
    }
    for mistake in
        ["a class", "a name", "a missing input", "a slot", "a link", "a type", "a range", "a choice"]
    {
        assert!(found.get(mistake).is_some_and(|count| *count >= 15), "{mistake}: {found:?}");
    }
}
