//! What is written of the workflows that ship with Hearth is what their manifests say: the tables in their READMEs,
//! and `docs/workflows.md`, which is made of them. `HEARTH_UPDATE=1` writes both anew.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use hearth_workflows::{
    Workflow, library,
    library::Library,
    parameters::{Parameter, ParameterTexts, ParameterType},
};

const BEGIN: &str = "<!-- generated: needs, parameters, presets -->\n";
const END: &str = "<!-- end -->";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// Holds `path` against what it should be, or writes it.
fn hold(path: &Path, wanted: &str) {
    if env::var_os("HEARTH_UPDATE").is_some() {
        fs::write(path, wanted).expect("written");
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    assert!(found == wanted, "{} is out of date; HEARTH_UPDATE=1 writes it anew", path.display());
}

/// Without what would end a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn range(parameter: &Parameter) -> String {
    match (parameter.min, parameter.max) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("{min} or more"),
        (None, Some(max)) => format!("{max} or less"),
        (None, None) if !parameter.choices.is_empty() => parameter.choices.join(", "),
        (None, None) if !parameter.extensions.is_empty() => format!(".{}", parameter.extensions.join(", .")),
        (None, None) => parameter.kind.name().to_owned(),
    }
}

fn tables(workflow: &Workflow) -> String {
    let (manifest, mut text) = (workflow.manifest(), String::new());
    let split = manifest.split(&ParameterTexts::new()).expect("a split");
    let passes: Vec<&str> = manifest.passes.iter().map(|pass| pass.name.as_str()).collect();
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            writeln!(text, "- {name}: {value}").expect("written");
        }
    };
    fact("split", format!("`{split}`"));
    fact("passes", passes.join(", "));
    let deliveries = manifest.deliveries.iter();
    fact(
        "delivers",
        deliveries.map(|one| format!("{} of {}", one.format, one.pass)).collect::<Vec<_>>().join(", "),
    );
    let packages: Vec<String> = manifest
        .needs
        .packages
        .keys()
        .map(|package| format!("[{package}](https://github.com/{package})"))
        .collect();
    fact("node packages", if packages.is_empty() { "none".to_owned() } else { packages.join(", ") });
    let mut models: Vec<String> = manifest.needs.models.iter().map(|model| format!("`{model}`")).collect();
    for (name, parameter) in &manifest.parameters {
        let Some(folder) = &parameter.model else { continue };
        let files = parameter.values.values().filter_map(toml::Value::as_str);
        let files: Vec<String> = files.map(|file| format!("`{folder}/{file}`")).collect();
        models.push(format!("by `{name}` one of {}", files.join(", ")));
    }
    fact("models", models.join(", "));
    if manifest.needs.vram_gib > 0.0 {
        fact("GPU memory", format!("{} GiB", manifest.needs.vram_gib));
    }
    if !manifest.parameters.is_empty() {
        text.push_str("\n| parameter | default | range | |\n| --- | --- | --- | --- |\n");
        for (name, parameter) in &manifest.parameters {
            let default = match (parameter.kind, parameter.default_text()) {
                (ParameterType::Picture | ParameterType::File, _) if parameter.is_required_place() => {
                    "must be given".to_owned()
                }
                (_, text) if text.is_empty() => "none".to_owned(),
                (_, text) => format!("`{text}`"),
            };
            let (range, help) = (cell(&range(parameter)), cell(&parameter.help));
            writeln!(text, "| `{name}` | {} | {range} | {help} |", cell(&default)).expect("written");
        }
    }
    if !manifest.presets.is_empty() {
        text.push_str("\n| preset | | sets |\n| --- | --- | --- |\n");
        for (name, preset) in &manifest.presets {
            let sets: Vec<String> =
                preset.parameters.iter().map(|(name, value)| format!("`{name}={value}`")).collect();
            writeln!(text, "| `{name}` | {} | {} |", cell(&preset.help), cell(&sets.join(" ")))
                .expect("written");
        }
    }
    text
}

/// The README with its generated part as it should be.
fn readme(workflow: &Workflow) -> String {
    let text = library::readme(workflow.name()).expect("it ships with Hearth");
    let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("{}: no {BEGIN}", workflow.name()));
    let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("{}: no {END}", workflow.name()));
    for part in ["# ", "## How it is split", "## Example", "## What to expect", "hearth submit"] {
        assert!(text.contains(part), "{}: its README has no '{part}'", workflow.name());
    }
    format!("{before}{BEGIN}\n{}\n{END}{after}", tables(workflow))
}

#[test]
fn what_is_written_of_the_workflows_is_what_they_are() {
    let library = Library::read::<&str>(&[]);
    let mut all = "# Workflows that ship with Hearth\n\n\
        <!-- Generated from workflows/library by `HEARTH_UPDATE=1 cargo nextest run -p hearth-tests --test docs`. -->\n\n\
        How to bring one of your own: [manifest.md](manifest.md).\n\n\
        | workflow | | split |\n| --- | --- | --- |\n"
        .to_owned();
    for workflow in library.workflows.values() {
        let (name, manifest) = (workflow.name(), workflow.manifest());
        let anchor = manifest.workflow.title.to_lowercase().replace(' ', "-").replace('/', "");
        let split = manifest.split(&ParameterTexts::new()).expect("a split");
        writeln!(all, "| [`{name}`](#{anchor}) | {} | {split} |", cell(&manifest.workflow.purpose))
            .expect("written");
    }
    for workflow in library.workflows.values() {
        let text = readme(workflow);
        hold(&root().join("workflows/library").join(workflow.name()).join("README.md"), &text);
        // One level down, and the name beside the title.
        all.push('\n');
        let mut in_code = false;
        for line in text.lines().filter(|line| !line.starts_with("<!--")) {
            in_code ^= line.starts_with("```");
            let is_title = !in_code && line.starts_with("# ");
            let deeper = if line.starts_with('#') && !in_code { "#" } else { "" };
            writeln!(all, "{deeper}{line}").expect("written");
            if is_title {
                writeln!(all, "\n`hearth submit -w {}`", workflow.name()).expect("written");
            }
        }
    }
    hold(&root().join("docs/workflows.md"), &collapsed(&all));
}

/// Without two empty lines in a row.
fn collapsed(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        if !(line.is_empty() && lines.last().is_some_and(|last| last.is_empty())) {
            lines.push(line);
        }
    }
    format!("{}\n", lines.join("\n").trim_end())
}
