//! Where a ComfyUI's own folders lie, as it sees them itself. It says so nowhere but in the command line that
//! `/system_stats` tells.

use serde_json::Value;

/// Its output folder, absolute; `None` where that cannot be said. Without flags it lies beside `main.py`. Of a relative
/// path it is known from where it counts, but only Linux has a name for that. Older versions say `posix` for it, and for
/// macOS, which has no GPU of CUDA.
pub fn output(stats: &Value) -> Option<String> {
    let system = &stats["system"];
    let arguments: Vec<&str> = system["argv"].as_array()?.iter().filter_map(Value::as_str).collect();
    // As argparse reads them: the last counts, and a name may be cut short as long as it is the only one.
    let flag = |name: &str, shortest: usize| {
        let mut given = None;
        for (at, argument) in arguments.iter().enumerate() {
            let (key, value) =
                argument.split_once('=').map_or((*argument, None), |(key, value)| (key, Some(value)));
            if key.len() >= shortest && name.starts_with(key) {
                given = value.or_else(|| arguments.get(at + 1).copied());
            }
        }
        // ComfyUI takes an empty one for none.
        given.filter(|value| !value.is_empty())
    };
    let folder = match (flag("--output-directory", "--ou".len()), flag("--base-directory", "--ba".len())) {
        (Some(folder), _) => folder.to_owned(),
        (None, Some(base)) => format!("{base}/output"),
        (None, None) => match arguments.first()?.rsplit_once(['/', '\\']) {
            Some((folder, _)) => format!("{folder}/output"),
            None => "output".to_owned(),
        },
    };
    let is_linux = system["os"] == "linux"
        || system["os"] == "posix"
            && stats["devices"]
                .as_array()
                .is_some_and(|all| all.iter().any(|device| device["type"] == "cuda"));
    let drive = |folder: &str| folder.as_bytes().get(1) == Some(&b':');
    match () {
        () if folder.starts_with('/') || drive(&folder) => Some(folder),
        () if is_linux => Some(format!("/proc/self/cwd/{folder}")),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
