//! Pictures and clips on the farm's storage, for people who look.

use std::{
    env, fs,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use hearth_proto::v1;

use super::out::{complain, say};
use super::{CliError, json, tables};
use crate::FarmClient;

/// Thumbnails of each pass that are opened.
const OPENED: u32 = 6;

/// Keeps a job's thumbnails in the user's cache and opens them where there is a screen.
pub(super) async fn open(client: &FarmClient, job: u64) -> Result<(), CliError> {
    let thumbnails = client.thumbnails(job, OPENED).await?;
    if thumbnails.is_empty() {
        say!("job {job} has no pictures yet");
        return Ok(());
    }
    let folder = cache_home().join(format!("hearth/job-{job}"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CliError::Keep { path, source }
    };
    // Those of an earlier look may be of another job by now.
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failed(&folder))?;
    }
    fs::create_dir_all(&folder).map_err(failed(&folder))?;
    for thumbnail in &thumbnails {
        let file = folder.join(format!("{}.{}.jpg", thumbnail.pass, thumbnail.frame));
        fs::write(&file, &thumbnail.image).map_err(failed(&file))?;
        say!("{}", file.display());
    }
    let has_screen = cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| env::var_os(name).is_some());
    if has_screen && std::io::stdout().is_terminal() {
        let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        let opened = Command::new(opener).arg(&folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        if let Err(error) = opened {
            complain!("hearth: {opener} cannot be run ({error}); open the files above by hand");
        }
    }
    Ok(())
}

/// Lists the sequences in a folder.
pub(super) async fn clips(client: &FarmClient, folder: &str, as_json: bool) -> Result<(), CliError> {
    let listed = client.clips(folder).await?;
    if as_json {
        say!("{}", json::list(listed.clips.iter().map(json::clip)));
        return Ok(());
    }
    if listed.clips.is_empty() {
        say!("no sequence of pictures in {folder}");
    } else {
        say!("{}", tables::clips(&listed.clips));
    }
    for v1::Clip { pattern, message, .. } in listed.clips.iter().filter(|clip| !clip.message.is_empty()) {
        say!("{pattern}: {message}");
    }
    for name in &listed.folders {
        say!("{}/{name}/", folder.trim_end_matches('/'));
    }
    Ok(())
}

fn cache_home() -> PathBuf {
    let set = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    set.or_else(|| env::home_dir().map(|home| home.join(".cache"))).unwrap_or_else(env::temp_dir)
}
