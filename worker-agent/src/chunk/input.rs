//! ComfyUI's input folder: the only place from which nodes such as `LoadImage` load since ComfyUI 0.28.0, links
//! followed. What an attempt puts there lies in a folder of its own.
//!
//! Where the agent sees that folder, files are linked into it; otherwise they are uploaded, which ends in the same
//! place under the same names.

use std::path::{Path, PathBuf};

use hearth_proto::v1::FailureKind;
use tracing::debug;

use super::{Failure, Workbench, stage::Handed};
use crate::{
    comfy::{ImageRef, folders},
    config::Transfer,
    sequence::link_or_copy,
};

/// The attempt's folder, relative to the input folder.
pub(super) fn folder(attempt: &str) -> String {
    format!("hearth/{attempt}")
}

/// The same as nodes name it that load from a folder or a path of their own: absolute, or relative to the folder in
/// which ComfyUI was started.
///
/// # Errors
/// When ComfyUI cannot be asked.
pub(super) async fn path_of(bench: &Workbench, attempt: &str) -> Result<String, Failure> {
    let stats = bench.client.system_stats().await.map_err(|error| Failure::unavailable(&error))?;
    let input = folders::input(&stats).unwrap_or_else(|| "input".to_owned());
    Ok(format!("{input}/{}", folder(attempt)))
}

/// The input folder on this host, if the agent sees it: as configured, or where ComfyUI's command line says.
async fn here(bench: &Workbench) -> Option<PathBuf> {
    if let Some(input) = &bench.input {
        return Some(input.clone());
    }
    if bench.transfer != Transfer::Shared {
        return None;
    }
    let stats = bench.client.system_stats().await.ok()?;
    let input = PathBuf::from(folders::input(&stats)?);
    (input.is_absolute() && input.is_dir()).then_some(input)
}

/// Puts files into the attempt's folder, or into one below it, under these names.
///
/// # Errors
/// When a file cannot be read, or ComfyUI does not take it.
pub(super) async fn place(
    bench: &Workbench,
    attempt: &str,
    below: Option<&str>,
    files: &[(Handed, String)],
) -> Result<(), Failure> {
    let folder = match below {
        Some(below) => format!("{}/{below}", self::folder(attempt)),
        None => self::folder(attempt),
    };
    if let Some(input) = here(bench).await {
        if link_all(&input.join(&folder), files).await && is_seen(bench, &folder, files).await {
            return Ok(());
        }
        debug!(folder = %input.display(), "not ComfyUI's input folder, or not writable; files are uploaded");
    }
    super::stage::upload_all(bench, &folder, files).await
}

/// False when the files cannot be put there.
async fn link_all(folder: &Path, files: &[(Handed, String)]) -> bool {
    let (folder, files) = (folder.to_owned(), files.to_vec());
    let linked = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&folder)?;
        // A link that leads out of the input folder would be refused: the file itself must be there.
        files.iter().try_for_each(|(file, name)| {
            link_or_copy(&file.hold().map_err(std::io::Error::other)?, &folder.join(name))
        })
    });
    matches!(linked.await, Ok(Ok(())))
}

/// Whether ComfyUI sees what the agent has put there: the folder may be another one under the same path.
async fn is_seen(bench: &Workbench, folder: &str, files: &[(Handed, String)]) -> bool {
    let Some((_, name)) = files.last() else { return true };
    let image = ImageRef { filename: name.clone(), subfolder: folder.to_owned(), kind: "input".to_owned() };
    bench.client.has(&image).await.unwrap_or(false)
}

/// Removes what the attempt has left there, where the agent sees it.
pub(super) async fn sweep(bench: &Workbench, attempt: &str) {
    let Some(input) = here(bench).await else { return };
    let folder = input.join(folder(attempt));
    // What was never made cannot be removed, and what cannot be removed harms nobody.
    if let Err(error) = tokio::fs::remove_dir_all(&folder).await {
        debug!(folder = %folder.display(), %error, "not removed");
    }
}

/// ComfyUI has saved an upload under another name than the one that the graph loads.
pub(super) fn renamed(wanted: &str, given: &str) -> Failure {
    let message = format!("ComfyUI saved the upload {wanted} as {given}; remove input/{wanted} there");
    Failure::new(FailureKind::Unavailable, message)
}
