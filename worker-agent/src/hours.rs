//! When a node works: a workstation joins the farm at night.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: usize = 24 * 60;
const WEEK: usize = 7 * DAY;

/// Hours of the week, by this host's clock: `mon-fri 19:00-08:00, sat, sun`. What goes past midnight belongs to the
/// day on which it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    text: String,
    /// For each minute of the week, from Monday's first on, whether the node works.
    works: Vec<bool>,
}

/// Why a text is no hours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{part}' is no hours; write them like mon-fri 19:00-08:00, sat, sun")]
pub struct HoursError {
    part: String,
}

impl Hours {
    /// `None` when the node works at this minute of the week; else the one at which it will.
    fn begins(&self, minute: usize) -> Option<usize> {
        if self.works[minute % WEEK] {
            return None;
        }
        // Some minute of the week it works: a part without one is refused.
        (1..WEEK).map(|later| (minute + later) % WEEK).find(|later| self.works[*later])
    }

    /// Why the node does not work now; `None`: it does.
    pub(crate) fn off(&self) -> Option<String> {
        let now = jiff::Zoned::now();
        let day = now.weekday().to_monday_zero_offset() as usize;
        let minute = day * DAY + now.hour() as usize * 60 + now.minute() as usize;
        let begins = self.begins(minute)?;
        let (day, minute) = (DAYS[begins / DAY], begins % DAY);
        Some(format!(
            "outside its hours ({}); it works again from {day} {:02}:{:02}",
            self.text,
            minute / 60,
            minute % 60
        ))
    }
}

impl FromStr for Hours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        let mut works = vec![false; WEEK];
        for part in text.split(',') {
            let wrong = || HoursError { part: part.trim().to_owned() };
            let words: Vec<&str> = part.split_whitespace().collect();
            let (days, hours) = match words[..] {
                [one] if one.contains(':') => (0..=6, Some(one)),
                [days] => (self::days(days).ok_or_else(wrong)?, None),
                [days, hours] => (self::days(days).ok_or_else(wrong)?, Some(hours)),
                _ => return Err(wrong()),
            };
            let (from, to) = match hours {
                None => (0, DAY),
                Some(hours) => {
                    let (from, to) = hours.split_once('-').ok_or_else(wrong)?;
                    let (from, to) = (minute(from).ok_or_else(wrong)?, minute(to).ok_or_else(wrong)?);
                    if from == to || from == DAY {
                        return Err(wrong());
                    }
                    (from, if to < from { to + DAY } else { to })
                }
            };
            for day in days {
                (from..to).for_each(|minute| works[(day * DAY + minute) % WEEK] = true);
            }
        }
        Ok(Self { text: text.trim().to_owned(), works })
    }
}

/// `mon` or `mon-fri`, by their places in the week; `sat-mon` goes past its end.
fn days(text: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let day = |name: &str| DAYS.iter().position(|day| *day == name.to_ascii_lowercase());
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (day(first)?, day(last)?);
    Some(first..=if last < first { last + 7 } else { last })
}

/// Of the day; `24:00` is its end.
fn minute(text: &str) -> Option<usize> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (usize, usize) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY).then_some(minute)
}

impl TryFrom<String> for Hours {
    type Error = HoursError;

    fn try_from(text: String) -> Result<Self, HoursError> {
        text.parse()
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `mon 19:00` as a minute of the week.
    fn at(text: &str) -> usize {
        let (day, time) = text.split_once(' ').expect("a day and a time");
        days(day).expect("a day").start() * DAY + minute(time).expect("a time")
    }

    #[test]
    fn a_workstation_works_at_night_and_at_the_weekend() {
        let hours: Hours = "mon-fri 19:00-08:00, sat, Sun".parse().expect("hours");
        for (now, begins) in [
            ("mon 18:59", Some("mon 19:00")),
            ("mon 19:00", None),
            ("tue 00:00", None),
            ("tue 07:59", None),
            ("tue 08:00", Some("tue 19:00")),
            ("sat 07:59", None),
            ("sat 12:00", None),
            ("sun 23:59", None),
            // Sunday's night is not Monday's.
            ("mon 00:00", Some("mon 19:00")),
        ] {
            assert_eq!(hours.begins(at(now)), begins.map(at), "{now}");
        }
        let always: Hours = "00:00-24:00".parse().expect("hours");
        assert_eq!(always.begins(at("wed 12:00")), None);
        let over_the_end: Hours = "sat-mon 22:00-02:00".parse().expect("hours");
        assert_eq!(over_the_end.begins(at("tue 01:59")), None);
        assert_eq!(over_the_end.begins(at("tue 02:00")), Some(at("sat 22:00")));
        assert_eq!(over_the_end.begins(at("mon 01:00")), None);
    }

    #[test]
    fn what_is_no_hours_is_told() {
        for wrong in [
            "",
            "night",
            "mon-",
            "mon 19",
            "19:00",
            "19:60-20:00",
            "8:00-8:00",
            "mon 24:00-8:00",
            "mon tue 1:00-2:00",
        ] {
            let error = wrong.parse::<Hours>().expect_err(wrong);
            assert!(error.to_string().contains("mon-fri 19:00"), "{error}");
        }
    }
}
