//! Where a ComfyUI's own folders lie, as it sees them itself. It says so nowhere but in the command line that
//! `/system_stats` tells.

use serde_json::Value;

/// Its output folder, absolute; `None` where that cannot be said. Of a relative path it is known from where it counts,
/// but only Linux has a name for that. Older versions say `posix` for it, and for macOS, which has no GPU of CUDA.
pub fn output(stats: &Value) -> Option<String> {
    let folder = named(stats, Flag { name: "--output-directory", shortest: "--ou" }, "output")?;
    absolute(stats, &folder)
}

/// Its input folder: absolute, or relative to the folder in which it was started, where its nodes look for relative
/// paths. `None` when it does not say how it was started.
pub fn input(stats: &Value) -> Option<String> {
    let folder = named(stats, Flag { name: "--input-directory", shortest: "--i" }, "input")?;
    Some(absolute(stats, &folder).unwrap_or(folder))
}

/// A flag of ComfyUI. argparse takes a name cut short as long as it is the only one.
struct Flag {
    name: &'static str,
    shortest: &'static str,
}

/// The folder as its command line has it; without flags it lies beside `main.py`.
fn named(stats: &Value, own: Flag, usual: &str) -> Option<String> {
    let arguments: Vec<&str> = stats["system"]["argv"].as_array()?.iter().filter_map(Value::as_str).collect();
    let given = |flag: Flag| {
        let mut given = None;
        for (at, argument) in arguments.iter().enumerate() {
            let (key, value) =
                argument.split_once('=').map_or((*argument, None), |(key, value)| (key, Some(value)));
            if key.len() >= flag.shortest.len() && flag.name.starts_with(key) {
                // The last counts.
                given = value.or_else(|| arguments.get(at + 1).copied());
            }
        }
        // ComfyUI takes an empty one for none.
        given.filter(|value| !value.is_empty())
    };
    Some(match (given(own), given(Flag { name: "--base-directory", shortest: "--ba" })) {
        (Some(folder), _) => folder.to_owned(),
        (None, Some(base)) => format!("{base}/{usual}"),
        (None, None) => match arguments.first()?.rsplit_once(['/', '\\']) {
            Some((folder, _)) => format!("{folder}/{usual}"),
            None => usual.to_owned(),
        },
    })
}

fn absolute(stats: &Value, folder: &str) -> Option<String> {
    let system = &stats["system"];
    let is_linux = system["os"] == "linux"
        || system["os"] == "posix"
            && stats["devices"]
                .as_array()
                .is_some_and(|all| all.iter().any(|device| device["type"] == "cuda"));
    let has_drive = folder.as_bytes().get(1) == Some(&b':');
    match () {
        () if folder.starts_with('/') || has_drive => Some(folder.to_owned()),
        () if is_linux => Some(format!("/proc/self/cwd/{folder}")),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_command_line_says_from_where_frames_are_loaded() {
        let input = |os: &str, argv: &[&str]| input(&json!({ "system": { "os": os, "argv": argv } }));
        for (os, argv, folder) in [
            ("linux", &["main.py", "--cpu"][..], "/proc/self/cwd/input"),
            ("linux", &["/opt/ComfyUI/main.py"], "/opt/ComfyUI/input"),
            ("linux", &["/x/main.py", "--base-directory", "/data"], "/data/input"),
            ("linux", &["/x/main.py", "--base-directory=/data", "--input-directory=/in"], "/in"),
            // A relative path is as good there: its nodes look from the same folder.
            ("win32", &["ComfyUI\\main.py", "--windows-standalone-build"], "ComfyUI/input"),
            ("win32", &["main.py", "--input-directory", "D:\\in"], "D:\\in"),
            ("darwin", &["main.py"], "input"),
        ] {
            assert_eq!(input(os, argv).as_deref(), Some(folder), "{argv:?}");
        }
        assert_eq!(super::input(&json!({ "system": {} })), None);
    }

    #[test]
    fn the_command_line_says_where_results_go() {
        let output = |os: &str, argv: &[&str]| output(&json!({ "system": { "os": os, "argv": argv } }));
        for (argv, folder) in [
            (&["main.py", "--cpu"][..], "/proc/self/cwd/output"),
            (&["ComfyUI/main.py"], "/proc/self/cwd/ComfyUI/output"),
            (&["/opt/ComfyUI/main.py", "--port", "8188"], "/opt/ComfyUI/output"),
            (&["main.py", "--output-directory", "/mnt/out"], "/mnt/out"),
            (&["main.py", "--output-directory=out"], "/proc/self/cwd/out"),
            (&["/x/main.py", "--base-directory", "/data", "--cpu"], "/data/output"),
            (&["main.py", "--output-directory", "/a", "--output-directory", "/b"], "/b"),
            (&["main.py", "--output-dir=/c"], "/c"),
            (&["/x/main.py", "--output-directory", ""], "/x/output"),
        ] {
            assert_eq!(output("linux", argv).as_deref(), Some(folder), "{argv:?}");
        }
        assert_eq!(output("win32", &["main.py"]), None);
        let windows = output("win32", &["C:\\ComfyUI\\main.py"]);
        assert_eq!(windows.as_deref(), Some("C:\\ComfyUI/output"));
        assert_eq!(super::output(&json!({ "system": {} })), None);
        let older = |kind: &str| {
            super::output(
                &json!({ "system": { "os": "posix", "argv": ["main.py"] }, "devices": [{ "type": kind }] }),
            )
        };
        assert_eq!((older("cuda").as_deref(), older("mps")), (Some("/proc/self/cwd/output"), None));
    }
}
