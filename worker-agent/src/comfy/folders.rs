//! Where a ComfyUI's own folders lie, as it sees them itself. It says so nowhere but in the command line that
//! `/system_stats` tells.

use serde_json::Value;

/// Its output folder, absolute; `None` where that cannot be said. Without flags it lies beside `main.py`. Of a relative
/// path it is known from where it counts, but only Linux has a name for that.
pub fn output(stats: &Value) -> Option<String> {
    let system = &stats["system"];
    let arguments: Vec<&str> = system["argv"].as_array()?.iter().filter_map(Value::as_str).collect();
    let flag = |name: &str| {
        let (at, argument) = arguments.iter().enumerate().find(|(_, argument)| argument.starts_with(name))?;
        match argument[name.len()..].strip_prefix('=') {
            Some(value) => Some(value),
            None if argument.len() == name.len() => arguments.get(at + 1).copied(),
            None => None,
        }
    };
    let folder = match (flag("--output-directory"), flag("--base-directory")) {
        (Some(folder), _) => folder.to_owned(),
        (None, Some(base)) => format!("{base}/output"),
        (None, None) => match arguments.first()?.rsplit_once(['/', '\\']) {
            Some((folder, _)) => format!("{folder}/output"),
            None => "output".to_owned(),
        },
    };
    let drive = |folder: &str| folder.as_bytes().get(1) == Some(&b':');
    match () {
        () if folder.starts_with('/') || drive(&folder) => Some(folder),
        () if system["os"] == "linux" => Some(format!("/proc/self/cwd/{folder}")),
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
        ] {
            assert_eq!(output("linux", argv).as_deref(), Some(folder), "{argv:?}");
        }
        assert_eq!(output("win32", &["main.py"]), None);
        let windows = output("win32", &["C:\\ComfyUI\\main.py"]);
        assert_eq!(windows.as_deref(), Some("C:\\ComfyUI/output"));
        assert_eq!(super::output(&json!({ "system": {} })), None);
    }
}
