//! The `hearth` command against a real farm: what people read, what programs parse, exit codes.

use hearth_client::v1::JobState;
use hearth_tests::{clips, farm::until, processes::Processes};
use serde_json::Value;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_at_the_command_line() {
    let farm = Processes::start(2, 0.02, &[]).await;
    clips::make(&farm.path("plates/sh010"), 1..=12, 32, 20);
    let roots = format!("plates={0}/plates,comps={0}/comps", farm.dir.path().display());
    let hearth = |arguments: &[&str]| {
        let output = farm.hearth(arguments);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };

    // Submit and watch to the end, as a person whose output is not a terminal.
    let clip = "plates/sh010/plate.%04d.png";
    let (code, out, err) =
        hearth(&["submit", clip, "-w", "temporal-smooth", "-p", "strength=0.3", "-o", "comps/a", "--watch"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("job 1: 12 frames in ") && out.contains("comps/a/plate.%04d.png"), "{out}");
    assert!(err.contains("job 1 done: 12/12 frames"), "{err}");
    assert!(!out.contains('\u{1b}') && !err.contains('\u{1b}'), "colours where there is no terminal");

    // The same once more, from what it says about itself: each a version of its own.
    let made = farm.path("comps/a").display().to_string();
    for (version, changed) in [("v001", &[][..]), ("v002", &["-p", "strength=0.9"])] {
        let mut arguments = vec!["submit", "--again", &made, "-o", "comps/again/v###", "--watch"];
        arguments.extend(changed);
        let (code, out, err) = hearth(&arguments);
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains(&format!("comps/again/{version}/plate.%04d.png")), "{out}");
        let same =
            clips::read(&farm.path(&format!("comps/again/{version}"))) == clips::read(&farm.path("comps/a"));
        assert_eq!(same, changed.is_empty(), "{version}");
    }
    let (code, _, err) = hearth(&["submit", "--again", &roots, "-o", "comps/x"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("has no manifest of Hearth's that says what made it"), "{err}");

    // As a program, by absolute paths.
    let absolute = farm.path("plates/sh010/plate.####.png").display().to_string();
    let (code, out, _) = hearth(&[
        "submit",
        &absolute,
        "-w",
        "resize-sharpen",
        "-o",
        "comps/b",
        "-f",
        "2-10x4",
        "--roots",
        &roots,
        "--json",
    ]);
    assert_eq!(code, Some(0));
    let job: Value = serde_json::from_str(&out).expect("json");
    assert_eq!((&job["job"], &job["frames"]["all"]), (&4.into(), &"2-10x4".into()));
    until(&farm.client, 4, |job| job.state() == JobState::Done).await;
    let (code, out, _) = hearth(&["watch", "4", "--json"]);
    assert_eq!(code, Some(0));
    let last: Value = serde_json::from_str(out.lines().last().expect("a line")).expect("json");
    assert_eq!(last["job"]["state"], "done");

    // Steering.
    let (_, out, _) = hearth(&["submit", clip, "-w", "resize-sharpen", "-o", "comps/c", "--priority", "0"]);
    assert!(out.contains("watch it with: hearth watch 5"), "{out}");
    assert_eq!(hearth(&["pause", "5"]).1, "job 5 (sh010/plate) is paused\n");
    assert_eq!(hearth(&["why", "5"]).1, "job 5: it is paused; `hearth resume 5` lets it go on\n");
    assert_eq!(hearth(&["why", "1"]).1, "job 1: it is done\n");
    assert!(hearth(&["priority", "5", "70"]).1.contains("job 5"));
    assert_eq!(hearth(&["priority", "5", "101"]).0, Some(1));
    let (code, out, _) = hearth(&["jobs", "--json"]);
    assert_eq!(code, Some(0));
    let jobs: Value = serde_json::from_str(&out).expect("json");
    assert_eq!((jobs.as_array().map(Vec::len), &jobs[0]["priority"]), (Some(1), &70.into()));
    let cancelled = hearth(&["cancel", "5"]).1;
    assert!(cancelled.starts_with("job 5 (sh010/plate) is cancelled"), "{cancelled}");
    assert_eq!(hearth(&["watch", "5"]).0, Some(4), "a cancelled job has its own exit code");
    // Several, by number, and by what they have in common; one that is refused keeps none of the others.
    let (code, out, err) = hearth(&["pause", "5", "1"]);
    assert_eq!((code, out.as_str(), err.lines().count()), (Some(1), "", 2), "{err}");
    let (code, _, err) = hearth(&["pause", "--show", "nobody", "--yes"]);
    assert_eq!(code, Some(0), "{err}");
    let (_, out, _) = hearth(&["jobs", "--state", "cancelled", "--text", "COMPS/C", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).expect("json").as_array().map(Vec::len), Some(1), "{out}");
    let (code, _, err) = hearth(&["cancel", "--state", "done"]);
    assert!(code == Some(1) && err.contains("with --yes"), "{err}");
    let (code, _, err) = hearth(&["resume", "5"]);
    assert!(code == Some(1) && err.starts_with("hearth: job 5 has already been cancelled"), "{err}");

    let nodes: Value = serde_json::from_str(&hearth(&["nodes", "--json"]).1).expect("json");
    let name = nodes[0]["name"].as_str().expect("a name").to_owned();
    assert_eq!(hearth(&["drain", &name]).1, format!("node {name} is drained\n"));
    assert_eq!(hearth(&["undrain", &name]).1, format!("node {name} is idle\n"));
    let (_, table, _) = hearth(&["nodes"]);
    assert!(table.starts_with("NODE") && table.contains(&name), "{table}");
    let (_, table, _) = hearth(&["jobs", "--all"]);
    assert_eq!(table.lines().count(), 6, "{table}");
    assert!(hearth(&["job", "1"]).1.contains("strength=0.3"));
    assert!(hearth(&["workflows"]).1.contains("temporal-smooth"));
    let (_, shown, _) = hearth(&["workflow", "show", "film-look"]);
    for part in [
        "spacepxl/ComfyUI-Image-Filters",
        "luts/Cinematic_Teal_Orange.cube",
        "film-noir",
        "Strength of the grain",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    // What was asked for goes first, and is told when it will be late.
    let (_, out, _) = hearth(&["drain", &name]);
    assert!(out.contains("is drained"));
    let terms = ["--early-look", "--max-nodes", "1", "--chunk-frames", "1", "--deadline", "+1s"];
    let (code, out, err) =
        hearth(&[&["submit", clip, "-w", "resize-sharpen", "-o", "comps/d", "--json"], &terms[..]].concat());
    assert_eq!(code, Some(0), "{err}");
    let job: Value = serde_json::from_str(&out).expect("json");
    assert!(job["deadline_unix_ms"].as_i64().is_some_and(|deadline| deadline > 0), "{job}");
    let (_, out, _) = hearth(&["watch", "6", "--json"]);
    let last: Value = serde_json::from_str(out.lines().last().expect("a line")).expect("json");
    assert_eq!(last["job"]["state"], "done", "{last}");
    // Who made what says in which order: the first three chunks are the first, the middle and the last frame.
    let manifest = std::fs::read_to_string(farm.path("comps/d/manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("json");
    let chunks = manifest["chunks"].as_array().expect("chunks").iter();
    let number =
        |chunk: &Value| -> Option<u32> { chunk["attempt"].as_str()?.rsplit('-').next()?.parse().ok() };
    let mut chunks: Vec<(Option<u32>, &str)> =
        chunks.map(|chunk| (number(chunk), chunk["frames"].as_str().unwrap_or(""))).collect();
    chunks.sort_unstable();
    let first: Vec<&str> = chunks.iter().take(3).map(|(_, frames)| *frames).collect();
    assert_eq!(first, ["1", "7", "12"]);
    assert!(hearth(&["undrain", &name]).1.contains("is idle"));

    // A chain: the second works on what the first makes, the third when both are done.
    let (_, out, _) = hearth(&["submit", clip, "-w", "resize-sharpen", "-o", "comps/e"]);
    assert!(out.contains("watch it with: hearth watch 7"), "{out}");
    assert_eq!(hearth(&["pause", "7"]).0, Some(0));
    let (code, out, err) =
        hearth(&["submit", "--clip-of", "7:beauty", "-w", "temporal-smooth", "-o", "comps/f", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let job: Value = serde_json::from_str(&out).expect("json");
    assert_eq!((&job["clip_of"]["job"], &job["clip"]), (&7.into(), &"comps/e/plate.%04d.png".into()));
    let (_, out, _) = hearth(&["submit", clip, "-w", "resize-sharpen", "-o", "comps/g", "--after", "7,8"]);
    assert!(out.contains("watch it with: hearth watch 9"), "{out}");
    assert_eq!(hearth(&["why", "9"]).1, "job 9: waits for job 7\n");
    assert!(hearth(&["job", "8"]).1.contains("clip of     job 7"), "{}", hearth(&["job", "8"]).1);
    assert_eq!(hearth(&["resume", "7"]).0, Some(0));
    for job in ["9", "8", "7"] {
        assert_eq!(hearth(&["watch", job]).0, Some(0), "job {job}");
    }

    // Some frames of a finished job once more, with another value; the others stay.
    let before = hearth_tests::clips::read(&farm.path("comps/a"));
    let (code, _, err) = hearth(&["redo", "1", "-f", "3-4", "-p", "strength=0.9", "--watch"]);
    assert_eq!(code, Some(0), "{err}");
    let after = hearth_tests::clips::read(&farm.path("comps/a"));
    let changed: Vec<&str> =
        after.iter().filter(|(name, now)| before[*name] != **now).map(|(name, _)| name.as_str()).collect();
    assert_eq!((after.len(), changed), (12, vec!["plate.0003.png", "plate.0004.png"]));
    let (_, told, _) = hearth(&["job", "1"]);
    for fact in ["submitted ", "ended "] {
        assert!(told.contains(fact), "{fact}: {told}");
    }

    // What goes wrong says what, where, and what next.
    for (arguments, code, said) in [
        (vec!["job", "99"], 1, "no job 99; `hearth jobs` lists them"),
        (vec!["drain", "nobody"], 1, "no node nobody; `hearth nodes` lists them"),
        (vec!["submit", clip, "-w", "nope", "-o", "comps/x"], 1, "no workflow 'nope'; the library has"),
        (
            vec!["submit", clip, "-w", "resize-sharpen", "-p", "scale", "-o", "comps/x"],
            1,
            "write it as name=value",
        ),
        (
            vec!["submit", "/nowhere/p.%04d.png", "-w", "resize-sharpen", "-o", "comps/x"],
            1,
            "lies in none of the storage roots",
        ),
        (
            vec!["jobs", "--coordinator", "http://127.0.0.1:9"],
            5,
            "no coordinator answers at http://127.0.0.1:9",
        ),
        (vec!["submit"], 2, "required arguments"),
        (
            vec!["submit", "--clip-of", "seven", "-w", "resize-sharpen", "-o", "comps/x"],
            1,
            "'seven' is no job; write its number",
        ),
        (
            vec!["submit", clip, "--clip-of", "7", "-w", "resize-sharpen", "-o", "comps/x"],
            2,
            "cannot be used with",
        ),
        (
            vec!["submit", clip, "-w", "resize-sharpen", "-o", "comps/x", "--deadline", "soon"],
            1,
            "'soon' is no deadline; write it as +8h",
        ),
        (
            vec!["submit", clip, "-w", "resize-sharpen", "-o", "comps/x", "--deadline", "+500000000000years"],
            1,
            "years' is no deadline",
        ),
        (
            vec![
                "submit",
                clip,
                "-w",
                "resize-sharpen",
                "-o",
                "comps/x",
                "--min-nodes",
                "3",
                "--max-nodes",
                "2",
            ],
            1,
            "at least 3 nodes are more than the 2 that it may have at most",
        ),
        (
            vec!["submit", clip, "-w", "resize-sharpen", "-o", "comps/x", "--first-frames", "12-13"],
            1,
            "frames 13 are to go first, but the job makes 1-12",
        ),
    ] {
        let (got, _, err) = hearth(&arguments);
        assert_eq!(got, Some(code), "{arguments:?}: {err}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
    assert!(hearth(&["completions", "bash"]).1.contains("_hearth"));
}
