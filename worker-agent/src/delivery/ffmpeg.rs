//! What ffmpeg is told for each kind of delivery, and what it says.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use hearth_pictures::{Rate, TimeCode};
use hearth_proto::v1::FailureKind;
use hearth_workflows::{delivery::DeliveryFormat, format::ColourSpace};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    task::JoinHandle,
};
use tracing::{info, warn};

use crate::chunk::Failure;

/// Widest pictures of a review and of a proxy, and of one frame of a contact sheet.
const REVIEW_WIDTH: u32 = 1920;
const PROXY_WIDTH: u32 = 1280;
const TILE_WIDTH: u32 = 480;

/// Frames beside each other on a contact sheet.
const SHEET_COLUMNS: usize = 6;

/// Bytes of what ffmpeg says that are kept.
const SAID: usize = 4_096;

/// Rates for which there are time codes.
const TIME_CODE_RATES: [(u32, u32); 12] = [
    (24, 1),
    (25, 1),
    (30, 1),
    (48, 1),
    (50, 1),
    (60, 1),
    (100, 1),
    (120, 1),
    (24_000, 1001),
    (30_000, 1001),
    (60_000, 1001),
    (120_000, 1001),
];

/// The pictures that come through the pipe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) alpha: bool,
    pub(super) frames: usize,
    pub(super) rate: Rate,
    /// Of the first.
    pub(super) time_code: TimeCode,
    /// Width of a pixel through its height.
    pub(super) pixel_aspect: f32,
    pub(super) colour: ColourSpace,
}

/// The program that encodes on this host.
#[derive(Debug, Clone)]
pub struct Encoder {
    pub program: String,
    /// It was there when the agent started. It is tried in any case: it may have come since.
    pub found: bool,
}

impl Encoder {
    /// Looks whether it can be run.
    pub async fn find(program: &str) -> Self {
        let asked = Command::new(program).arg("-version").stdin(Stdio::null()).output().await;
        match asked {
            Ok(answer) if answer.status.success() => {
                let text = String::from_utf8_lossy(&answer.stdout);
                info!(program, version = text.lines().next().unwrap_or_default(), "can encode");
                Self { program: program.to_owned(), found: true }
            }
            Ok(answer) => {
                warn!(program, status = %answer.status, "does not run: deliveries go to other hosts");
                Self { program: program.to_owned(), found: false }
            }
            Err(error) => {
                info!(program, %error, "is not there: deliveries go to other hosts");
                Self { program: program.to_owned(), found: false }
            }
        }
    }
}

/// Everything that stands behind the program's name.
pub(super) fn arguments(format: DeliveryFormat, input: &Input, to: &Path) -> Vec<String> {
    let Input { width, height, rate, .. } = input;
    let pixels = if input.alpha { "rgba64le" } else { "rgb48le" };
    let mut arguments: Vec<String> = ["-hide_banner", "-nostdin", "-v", "error", "-y", "-f", "rawvideo"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    let size = format!("{width}x{height}");
    add(&["-pix_fmt", pixels, "-video_size", &size, "-framerate", &rate.to_string(), "-i", "pipe:0", "-an"]);
    let square = ratio(input.pixel_aspect);
    // What the numbers are: ASWF's guide tags pictures with the curve of sRGB as such.
    let curve = if input.colour == ColourSpace::Rec709 { "bt709" } else { "iec61966-2-1" };
    // Without being told, ffmpeg takes the matrix of standard definition.
    let video = |scale: &str| {
        let flags = "lanczos+accurate_rnd+full_chroma_int";
        [
            format!("scale={scale}:out_color_matrix=bt709:out_range=tv:flags={flags}"),
            format!("setsar={square}"),
            format!("setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc={curve}"),
        ]
        .join(",")
    };
    let time_code = input.time_code.at(*rate).to_string();
    match format {
        DeliveryFormat::ProRes4444 => {
            let pixels = if input.alpha { "yuva444p10le" } else { "yuv444p10le" };
            add(&["-vf", &video("iw:ih"), "-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", pixels]);
            add(&["-alpha_bits", "16", "-vendor", "apl0"]);
        }
        DeliveryFormat::ProRes422Hq => {
            // Two pixels share their colour.
            let filter = format!("pad=ceil(iw/2)*2:ih,{}", video("iw:ih"));
            add(&["-vf", &filter, "-c:v", "prores_ks", "-profile:v", "hq", "-pix_fmt", "yuv422p10le"]);
            add(&["-vendor", "apl0"]);
        }
        DeliveryFormat::H264 => {
            let scale = format!("trunc(min({REVIEW_WIDTH}\\,iw)/2)*2:-2");
            add(&["-vf", &video(&scale), "-c:v", "libx264", "-preset", "medium", "-crf", "18"]);
            add(&["-pix_fmt", "yuv420p", "-movflags", "+faststart"]);
        }
        DeliveryFormat::PngProxy => {
            let pixels = if input.alpha { "rgba" } else { "rgb24" };
            let scale = format!("scale=min({PROXY_WIDTH}\\,iw):-1:flags=area");
            add(&["-vf", &scale, "-c:v", "png", "-pix_fmt", pixels, "-start_number", "0", "-f", "image2"]);
        }
        DeliveryFormat::ContactSheet => {
            let columns = SHEET_COLUMNS.min(input.frames);
            let rows = input.frames.div_ceil(columns.max(1));
            let filter = format!(
                "scale={TILE_WIDTH}:-2:flags=area,tile={columns}x{rows}:padding=8:margin=8:color=0x202020"
            );
            add(&["-vf", &filter, "-c:v", "png", "-pix_fmt", "rgb24", "-frames:v", "1", "-update", "1"]);
            add(&["-f", "image2"]);
        }
    }
    if is_movie(format) {
        add(&[
            "-color_range",
            "tv",
            "-colorspace",
            "bt709",
            "-color_primaries",
            "bt709",
            "-color_trc",
            curve,
        ]);
        if TIME_CODE_RATES.contains(&(rate.numerator, rate.denominator)) {
            add(&["-timecode", &time_code]);
        } else {
            // No track for it can be had at this rate. What the file says is not lost.
            let comment =
                format!("comment=time code of the first frame {time_code}, at {rate} frames a second");
            add(&["-metadata", &comment]);
        }
        add(&["-f", if format == DeliveryFormat::H264 { "mp4" } else { "mov" }]);
    }
    // A file of this name and nothing else: no protocol, no option. In a pattern, a % that is no number is written twice.
    arguments.push(match format {
        DeliveryFormat::PngProxy => format!("file:{}/%08d.png", to.display().to_string().replace('%', "%%")),
        _ => format!("file:{}", to.display()),
    });
    arguments
}

pub(super) fn is_movie(format: DeliveryFormat) -> bool {
    match format {
        DeliveryFormat::ProRes4444 | DeliveryFormat::ProRes422Hq | DeliveryFormat::H264 => true,
        DeliveryFormat::PngProxy | DeliveryFormat::ContactSheet => false,
    }
}

/// The name of a proxy's nth picture, as ffmpeg numbers them.
pub(super) fn numbered(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("{index:08}.png"))
}

/// A number as a fraction that ffmpeg reads.
fn ratio(number: f32) -> String {
    if number.is_finite() && number > 0.0 { format!("{:.0}/1000", number * 1000.0) } else { "1".to_owned() }
}

/// A running ffmpeg; it is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Ffmpeg {
    pub(super) child: Child,
    /// The last of what it says.
    said: JoinHandle<String>,
}

impl Ffmpeg {
    pub(super) fn start(program: &str, arguments: &[String]) -> Result<Self, Failure> {
        let started = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = started.map_err(|error| missing(program, &error))?;
        let stderr = child.stderr.take();
        let said = tokio::spawn(async move {
            let Some(mut stderr) = stderr else { return String::new() };
            let (mut kept, mut block) = (Vec::new(), [0; 1024]);
            while let Ok(read @ 1..) = stderr.read(&mut block).await {
                kept.extend_from_slice(&block[..read]);
                let surplus = kept.len().saturating_sub(SAID);
                kept.drain(..surplus);
            }
            String::from_utf8_lossy(&kept).trim().to_owned()
        });
        Ok(Self { child, said })
    }

    /// Waits for its end; what it wrote to standard output. `limit`: longer is a hang.
    pub(super) async fn end(mut self, what: &str, limit: Duration) -> Result<String, Failure> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        let ended = tokio::time::timeout(limit, async {
            if let Some(mut stdout) = self.child.stdout.take() {
                // What cannot be read is not needed.
                let _ = stdout.read_to_string(&mut text).await;
            }
            self.child.wait().await
        });
        let Ok(status) = ended.await else {
            let message = format!("ffmpeg did not end within {} s while it {what}", limit.as_secs());
            return Err(Failure::new(FailureKind::Hung, message));
        };
        let said = self.said.await.unwrap_or_default();
        match status {
            Ok(status) if status.success() => Ok(text),
            Ok(status) => {
                let said = if said.is_empty() { "it says nothing more".to_owned() } else { said };
                let full = said.contains("No space left on device");
                let kind = if full { FailureKind::Storage } else { FailureKind::Execution };
                Err(Failure::new(kind, format!("ffmpeg failed while it {what} ({status}): {said}")))
            }
            Err(error) => Err(Failure::new(FailureKind::Execution, format!("ffmpeg: {error}"))),
        }
    }
}

fn missing(program: &str, error: &std::io::Error) -> Failure {
    let message = format!(
        "'{program}' cannot be run ({error}); install ffmpeg on a host of the farm, or name it there with `ffmpeg = \"/path\"` in the agent's configuration, then retry the job"
    );
    Failure::new(FailureKind::Missing, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ffmpeg_is_told_fits_the_pictures() {
        let input = Input {
            width: 101,
            height: 57,
            alpha: true,
            frames: 10,
            rate: Rate { numerator: 24_000, denominator: 1001 },
            time_code: TimeCode { hours: 1, minutes: 2, seconds: 3, frame: 4, drop_frame: false },
            pixel_aspect: 2.0,
            colour: ColourSpace::Srgb,
        };
        let told = |format, input: &Input| arguments(format, input, Path::new("/w/x")).join(" ");
        let prores = told(DeliveryFormat::ProRes4444, &input);
        for part in [
            "-pix_fmt rgba64le -video_size 101x57 -framerate 24000/1001 -i pipe:0",
            "setsar=2000/1000",
            "yuva444p10le",
            "-timecode 01:02:03:04",
            "-f mov file:/w/x",
        ] {
            assert!(prores.contains(part), "{part} is not in {prores}");
        }
        let odd = Input { rate: Rate { numerator: 12, denominator: 1 }, alpha: false, ..input };
        assert!(!told(DeliveryFormat::H264, &odd).contains("-timecode"));
        assert!(told(DeliveryFormat::ContactSheet, &odd).contains("tile=6x2"));
        assert!(told(DeliveryFormat::PngProxy, &odd).ends_with("file:/w/x/%08d.png"));
    }
}
