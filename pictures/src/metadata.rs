//! What a picture says beside its pixels, as far as it matters when the clip comes back.

use std::{fmt, str::FromStr};

/// Travels from the clip's frame to the result's.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Metadata {
    pub time_code: Option<TimeCode>,
    pub frame_rate: Option<Rate>,
    /// Width of a pixel through its height; `None`: not said, 1.
    pub pixel_aspect: Option<f32>,
}

/// SMPTE ST 12 time code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeCode {
    pub hours: u8,
    pub minutes: u8,
    pub seconds: u8,
    pub frame: u8,
    pub drop_frame: bool,
}

/// Fewer frames a second are no rate: one frame in ten seconds.
const SLOWEST: f32 = 0.1;

/// Frames a second, as a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub numerator: u32,
    pub denominator: u32,
}

impl Rate {
    pub fn per_second(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator.max(1))
    }

    /// From a decimal number, with the NTSC rates as what they are.
    pub fn from_float(rate: f32) -> Option<Self> {
        if !(rate.is_finite() && (SLOWEST..10_000.0).contains(&rate)) {
            return None;
        }
        let rate = f64::from(rate);
        let ntsc = (rate * 1.001).round();
        if (rate - rate.round()).abs() < 1e-3 {
            return Some(Self { numerator: rate.round() as u32, denominator: 1 });
        }
        if (rate - ntsc / 1.001).abs() < 1e-2 {
            return Some(Self { numerator: ntsc as u32 * 1000, denominator: 1001 });
        }
        Some(Self { numerator: (rate * 1000.0).round() as u32, denominator: 1000 })
    }

    /// Whether time code of this rate leaves out frame numbers to keep up with the clock (SMPTE ST 12-1): only that of
    /// the NTSC rates of 30 and its multiples does.
    pub fn has_drop_frame(self) -> bool {
        self.denominator == 1001 && self.numerator.is_multiple_of(30_000)
    }

    /// `numerator / denominator` times as many frames a second.
    pub fn times(self, numerator: u32, denominator: u32) -> Option<Self> {
        let (mut top, mut bottom) = (
            u64::from(self.numerator) * u64::from(numerator),
            u64::from(self.denominator) * u64::from(denominator),
        );
        let divisor = greatest_divisor(top, bottom).max(1);
        (top, bottom) = (top / divisor, bottom / divisor);
        Some(Self { numerator: top.try_into().ok()?, denominator: bottom.try_into().ok()? })
    }
}

/// `24`, `23.976` or `24000/1001`.
impl FromStr for Rate {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Self, NoRate> {
        let no_rate = || NoRate(text.to_owned());
        let Some((numerator, denominator)) = text.split_once('/') else {
            return text.trim().parse().ok().and_then(Self::from_float).ok_or_else(no_rate);
        };
        let number = |text: &str| text.trim().parse().ok().filter(|number: &u32| *number > 0);
        let (numerator, denominator) = number(numerator).zip(number(denominator)).ok_or_else(no_rate)?;
        let rate = Self { numerator, denominator };
        let is_rate = (f64::from(SLOWEST)..10_000.0).contains(&rate.per_second());
        if is_rate { Ok(rate) } else { Err(no_rate()) }
    }
}

/// A text that is no frame rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no frame rate; write 0.1 to 9999 frames a second, like 24, 23.976 or 24000/1001")]
pub struct NoRate(pub String);

fn greatest_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}

impl fmt::Display for TimeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hours, minutes, seconds, frame, drop_frame } = self;
        let last = if *drop_frame { ';' } else { ':' };
        write!(f, "{hours:02}:{minutes:02}:{seconds:02}{last}{frame:02}")
    }
}

impl TimeCode {
    /// As it is written for this rate: drop-frame only where that exists.
    pub fn at(self, rate: Rate) -> Self {
        Self { drop_frame: self.drop_frame && rate.has_drop_frame(), ..self }
    }

    /// Frame 0 at midnight, counted as many a second as the rate has, rounded; frames before it count back.
    pub fn of_frame(frame: i64, rate: Rate) -> Self {
        let per_second = (rate.per_second().round() as i64).clamp(1, 255);
        let frame_of_day = frame.rem_euclid(per_second * 24 * 3600);
        let seconds = frame_of_day / per_second;
        Self {
            hours: (seconds / 3600) as u8,
            minutes: (seconds / 60 % 60) as u8,
            seconds: (seconds % 60) as u8,
            frame: (frame_of_day % per_second) as u8,
            drop_frame: false,
        }
    }

    /// From the four bytes of ST 12, as DPX and EXR keep them: binary coded decimals, hours first.
    pub(crate) fn from_bcd(word: u32) -> Option<Self> {
        let pair = |shift: u32, tens: u32| {
            let (ten, one) = (word >> (shift + 4) & tens, word >> shift & 0xf);
            (one < 10).then_some((ten * 10 + one) as u8)
        };
        let code = Self {
            hours: pair(24, 0x3)?,
            minutes: pair(16, 0x7)?,
            seconds: pair(8, 0x7)?,
            frame: pair(0, 0x3)?,
            drop_frame: word & 0x40 != 0,
        };
        (code.hours < 24 && code.minutes < 60 && code.seconds < 60).then_some(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_they_are() {
        let rate = |rate| Rate::from_float(rate).map(|rate| (rate.numerator, rate.denominator));
        assert_eq!(rate(24.0), Some((24, 1)));
        assert_eq!(rate(23.976), Some((24_000, 1001)));
        assert_eq!(rate(29.97), Some((30_000, 1001)));
        assert_eq!(rate(12.5), Some((12_500, 1000)));
        assert_eq!(rate(f32::NAN), None);
        assert_eq!(rate(-1.0), None);
        assert_eq!(rate(119.88), Some((120_000, 1001)));
        // It would be 0/1, which no encoder takes.
        assert_eq!(rate(0.0001), None);
        for text in ["0.0001", "1/100", "0/1", "10000", "1000000/1"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        let faster = Rate { numerator: 24, denominator: 1 }.times(5, 2);
        assert_eq!(faster, Some(Rate { numerator: 60, denominator: 1 }));
    }

    #[test]
    fn time_code_is_read_as_digits() {
        let code = TimeCode::from_bcd(0x0123_5907).expect("a time code");
        assert_eq!(code.to_string(), "01:23:59:07");
        assert_eq!(TimeCode::from_bcd(0xffff_ffff), None);
        let of = |frame, rate: &str| TimeCode::of_frame(frame, rate.parse().expect("a rate")).to_string();
        assert_eq!(of(1001, "24"), "00:00:41:17");
        assert_eq!(of(86_400, "24000/1001"), "01:00:00:00");
        assert_eq!(of(-1, "25"), "23:59:59:24");
    }
}
