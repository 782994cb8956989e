//! Presets at the command line: kept by a person, shared by a show, with every version that there was, and still there
//! when the coordinator comes back.

use std::{path::Path, process::Command};

use hearth_client::v1;
use hearth_tests::{
    clips,
    farm::{Farm, Setup, finish},
};
use serde_json::Value;

/// `hearth`, as `user`.
struct Desk<'a> {
    user: &'a str,
    url: String,
    folder: &'a Path,
}

impl Desk<'_> {
    fn run(&self, line: &str) -> (Option<i32>, String) {
        let program = Path::new(env!("CARGO_BIN_EXE_comfyui")).with_file_name("hearth");
        let output = Command::new(program)
            .current_dir(self.folder)
            .env_remove("HEARTH_SHOW")
            .env("USER", self.user)
            .env("HEARTH_COORDINATOR", &self.url)
            .args(line.split(' ').map(|word| word.replace('_', " ")))
            .output()
            .expect("hearth runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("UTF-8"))
    }

    fn does(&self, line: &str) -> String {
        let (code, text) = self.run(line);
        assert_eq!(code, Some(0), "{line}: {text}");
        text
    }

    fn is_refused(&self, line: &str, told: &str) {
        let (code, text) = self.run(line);
        assert!(code == Some(1) && text.contains(told), "{line}: {text}");
    }

    async fn submits(&self, farm: &Farm, line: &str) -> v1::Job {
        let text = self.does(&format!("--json submit {line}"));
        let job: Value = serde_json::from_str(text.lines().next().unwrap_or_default()).expect("JSON");
        finish(&farm.client, job["job"].as_u64().expect("a number")).await.0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presets_are_kept_shared_and_had_back() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/sh010"), 1001..=1002, 48, 32);
    let files = tempfile::tempdir().expect("a folder");
    let url = format!("http://{}", farm.coordinator.address);
    let anna = Desk { user: "anna", url: url.clone(), folder: files.path() };
    let ben = Desk { user: "ben", url, folder: files.path() };

    // What would not fit its workflow is not kept.
    anna.is_refused("preset save soft -w film-look -p grian=0.3", "has no parameter 'grian'");
    anna.is_refused("preset save soft -w film-look -p grain=30", "30 is out of range; give 0 to 2");
    anna.is_refused("preset save soft -w film-lok -p grain=0.3", "no workflow 'film-lok'");
    anna.is_refused("preset save a/b -w film-look -p grain=0.3", "cannot name a preset");

    assert_eq!(
        anna.does("preset save soft -w film-look -p grain=0.3 -p look=noir --note for_the_rain"),
        "preset soft is saved, version 1\n"
    );
    assert_eq!(anna.does("preset save soft -w film-look -p grain=0.6"), "preset soft is saved, version 2\n");
    assert_eq!(anna.does("preset diff soft"), "grain: 0.3 -> 0.6\nlook: noir -> not set\n");
    assert_eq!(anna.does("preset diff soft@2 soft@1"), "grain: 0.6 -> 0.3\nlook: not set -> noir\n");

    // It brings its workflow, and what is said beside it goes before it.
    let clip = "plates/sh010/plate.%04d.png";
    let job = anna.submits(&farm, &format!("{clip} --preset soft -p vignette=0 -o comps/one")).await;
    assert_eq!(job.workflow, "film-look");
    assert_eq!((job.parameters["grain"].as_str(), job.parameters["vignette"].as_str()), ("0.6", "0"));
    let job = anna.submits(&farm, &format!("{clip} --preset soft@1 -w film-look -o comps/two")).await;
    assert_eq!((job.parameters["grain"].as_str(), job.parameters["look"].as_str()), ("0.3", "noir"));
    anna.is_refused(
        &format!("submit {clip} --preset soft -w chroma-key -o comps/x"),
        "is of workflow film-look",
    );
    anna.is_refused(&format!("submit {clip} --preset soft@9 -o comps/x"), "no such version; it has 1, 2");

    // One's own are one's own; those of a show are everybody's who works on it.
    ben.is_refused(&format!("submit {clip} --preset soft -o comps/x"), "no preset soft");
    ben.does("preset save soft --job 2 --show dune");
    let job = ben.submits(&farm, &format!("{clip} --show dune --preset soft -o comps/three")).await;
    assert_eq!(job.parameters["look"], "noir");
    let own = anna.submits(&farm, &format!("{clip} --show dune --preset soft -o comps/four")).await;
    assert_eq!(own.parameters["grain"], "0.6", "one's own goes first");
    let shared = anna.submits(&farm, &format!("{clip} --show dune --preset show:soft -o comps/five")).await;
    assert_eq!(shared.parameters["grain"], "0.3");
    // One that ships with the workflow is found as well.
    let shipped = ben.submits(&farm, &format!("{clip} -w film-look --preset war -o comps/six")).await;
    assert_eq!(shipped.parameters["look"], "bleach-bypass");

    assert_eq!(anna.does("preset restore soft@1"), "preset soft is saved, version 3\n");
    anna.does("preset save hard -w chroma-key -p feather=0");
    anna.does("preset favourite hard");
    let listed = anna.does("preset list");
    let names: Vec<&str> = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["hard", "soft"], "favourites first: {listed}");
    assert!(listed.contains("hard *"), "{listed}");
    anna.does("preset export soft@2 -o soft.toml");
    assert_eq!(ben.does("preset import soft.toml gentle"), "preset gentle is saved, version 1\n");
    assert!(ben.does("preset show gentle").contains("grain=0.6"));
    anna.does("preset delete hard");
    anna.is_refused("preset delete hard", "no preset user/anna/hard");

    // All of it is there when the coordinator comes back.
    let before = anna.does("--json preset list --all");
    let soft = anna.does("--json preset show soft");
    let Farm { dir, coordinator, agent, simulators, .. } = farm;
    agent.stop().await.expect("stopped");
    coordinator.stop().await.expect("stopped");
    for simulator in simulators {
        simulator.stop().await;
    }
    let farm = Farm::start_in(dir, Setup::default()).await;
    let anna = Desk { url: format!("http://{}", farm.coordinator.address), ..anna };
    assert_eq!(anna.does("--json preset list --all"), before);
    assert_eq!(anna.does("--json preset show soft"), soft);
    let soft: Value = serde_json::from_str(&soft).expect("JSON");
    assert_eq!(soft["versions"].as_array().map(Vec::len), Some(3));
    assert!(soft["used_unix_ms"]["anna"].as_i64().is_some_and(|at| at > 0));
    // A list tells the latest alone.
    let all: Value = serde_json::from_str(&before).expect("JSON");
    assert!(
        all.as_array().expect("a list").iter().all(|one| one["versions"].as_array().map(Vec::len) == Some(1))
    );
    farm.stop().await;
}
