//! Deadlines as people write them: a span from now, or a time of their own clock.

use std::time::Duration;

use jiff::{
    Timestamp, Zoned,
    civil::{Date, DateTime, Time},
};

use super::CliError;

/// Unix time in milliseconds of `+8h`, `18:00` (the next one), `2026-11-23 18:00`, `2026-11-23` (the end of that day), all by
/// the clock and the time zone of `now`, or `2026-11-23T09:00:00Z`.
///
/// # Errors
/// When it is none of these.
pub(super) fn parse(text: &str, now: &Zoned) -> Result<i64, CliError> {
    let text = text.trim();
    let wrong = || CliError::Deadline { text: text.to_owned() };
    let local = |time: DateTime| time.to_zoned(now.time_zone().clone()).map_err(|_| wrong());
    let time: Timestamp = if let Some(span) = text.strip_prefix('+') {
        let span: Duration = humantime::parse_duration(span).map_err(|_| wrong())?;
        now.timestamp().checked_add(span).map_err(|_| wrong())?
    } else if let Ok(time) = text.parse::<Timestamp>() {
        time
    } else if text.contains('-') {
        // A day, and perhaps a time on it.
        if text.contains([' ', 'T']) {
            local(text.parse::<DateTime>().map_err(|_| wrong())?)?.timestamp()
        } else {
            let day = text.parse::<Date>().map_err(|_| wrong())?;
            local(day.tomorrow().map_err(|_| wrong())?.to_datetime(Time::midnight()))?.timestamp()
        }
    } else {
        let time = text.parse::<Time>().map_err(|_| wrong())?;
        let today = local(now.date().to_datetime(time))?;
        if today > *now {
            today.timestamp()
        } else {
            local(now.date().tomorrow().map_err(|_| wrong())?.to_datetime(time))?.timestamp()
        }
    };
    Ok(time.as_millisecond())
}

#[cfg(test)]
mod tests {
    use jiff::tz::{TimeZone, offset};

    use super::*;

    #[test]
    fn a_deadline_is_by_the_clock_of_whoever_writes_it() {
        let zone = TimeZone::fixed(offset(2));
        let now = "2026-11-23T17:30:00Z".parse::<Timestamp>().expect("a time").to_zoned(zone);
        let at = |text: &str| {
            let deadline = parse(text, &now).expect(text);
            Timestamp::from_millisecond(deadline).expect("a time").to_string()
        };
        assert_eq!(at("+90m"), "2026-11-23T19:00:00Z");
        assert_eq!(at("20:00"), "2026-11-23T18:00:00Z");
        // Half past seven in the evening is over there.
        assert_eq!(at("19:30"), "2026-11-24T17:30:00Z");
        assert_eq!(at("2026-12-01 09:00"), "2026-12-01T07:00:00Z");
        assert_eq!(at("2026-12-01T09:00"), "2026-12-01T07:00:00Z");
        assert_eq!(at("2026-12-01"), "2026-12-01T22:00:00Z");
        assert_eq!(at("2026-12-01T09:00:00Z"), "2026-12-01T09:00:00Z");
        for wrong in ["", "tomorrow", "+", "+x", "25:00", "2026-13-01", "2026-12-01 9h"] {
            assert!(parse(wrong, &now).is_err(), "{wrong}");
        }
    }
}
