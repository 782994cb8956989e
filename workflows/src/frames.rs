//! Frame numbers, and sets of them as intervals.
//!
//! A job of a million frames costs what its number of gaps costs. The text form is the field's:
//! `1001-1100`, `1-10x2` (every second), `1,5,9-12`, negative numbers as they are (`-5--1`).

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most frames that one set read from text may have.
pub const MAX_FRAMES: u64 = 10_000_000;

/// The most separate runs that one set read from text may have.
pub const MAX_RUNS: usize = 1_000_000;

/// The number of a frame, as in its file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Frame(pub i64);

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Frames `first..=last`; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FrameRange {
    pub first: Frame,
    pub last: Frame,
}

impl FrameRange {
    /// `None` when `last` lies before `first`.
    pub fn new(first: i64, last: i64) -> Option<Self> {
        (first <= last).then_some(Self { first: Frame(first), last: Frame(last) })
    }

    /// How many frames.
    pub fn len(self) -> u64 {
        self.last.0.abs_diff(self.first.0) + 1
    }

    /// Never.
    pub fn is_empty(self) -> bool {
        false
    }

    pub fn iter(self) -> impl DoubleEndedIterator<Item = Frame> {
        (self.first.0..=self.last.0).map(Frame)
    }
}

/// Why a text is no set of frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramesError {
    #[error("no frames given; write them like 1001-1100, 1-10x2 or 1,5,9-12")]
    Empty,
    #[error("'{part}' is no frame range; write it like 1001-1100, 1-10x2 or 7")]
    NotARange { part: String },
    #[error("'{part}' ends before it starts; write {last}-{first}")]
    Backwards { part: String, first: i64, last: i64 },
    #[error("'{part}' has a step of zero; a step is 1 or more")]
    ZeroStep { part: String },
    #[error("more than {MAX_FRAMES} frames or {MAX_RUNS} separate runs; submit in several jobs")]
    TooMany,
}

/// A set of frames, kept as disjoint runs that never touch.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FrameSet {
    runs: Runs,
    len: u64,
}

/// First frame of a run to its last. Most sets are a single run: chunks, pieces, what is left of a job.
#[derive(Clone, Default, PartialEq, Eq)]
enum Runs {
    #[default]
    None,
    One(i64, i64),
    /// At least two.
    Many(BTreeMap<i64, i64>),
}

impl Runs {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many(runs) => runs.len(),
        }
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (i64, i64)> + '_ {
        self.starting_in(i64::MIN..=i64::MAX)
    }

    /// The runs that start in a range, in ascending order.
    fn starting_in(&self, range: RangeInclusive<i64>) -> impl DoubleEndedIterator<Item = (i64, i64)> + '_ {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(first, last) => (range.contains(first).then_some((*first, *last)), None),
            // An empty range is no range for the map.
            Self::Many(_) if range.is_empty() => (None, None),
            Self::Many(runs) => (None, Some(runs.range(range))),
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(first, last)| (*first, *last)))
    }

    fn first_starting_in(&self, range: RangeInclusive<i64>) -> Option<(i64, i64)> {
        self.starting_in(range).next()
    }

    fn first(&self) -> Option<(i64, i64)> {
        self.iter().next()
    }

    /// The last run that starts at `frame` or before.
    fn at_or_before(&self, frame: i64) -> Option<(i64, i64)> {
        match self {
            Self::One(first, last) => (*first <= frame).then_some((*first, *last)),
            _ => self.starting_in(i64::MIN..=frame).next_back(),
        }
    }

    fn put(&mut self, first: i64, last: i64) {
        match self {
            Self::None => *self = Self::One(first, last),
            Self::One(start, end) => *self = Self::Many([(*start, *end), (first, last)].into()),
            Self::Many(runs) => {
                runs.insert(first, last);
            }
        }
    }

    /// Takes out the run that starts at `first`.
    fn take(&mut self, first: i64) {
        match self {
            Self::One(start, _) if *start == first => *self = Self::None,
            Self::None | Self::One(..) => {}
            Self::Many(runs) => {
                runs.remove(&first);
                if runs.len() == 1
                    && let Some((first, last)) = runs.pop_first()
                {
                    *self = Self::One(first, last);
                }
            }
        }
    }
}

impl FrameSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// How many frames; kept, not counted.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.runs.len() == 0
    }

    pub fn first(&self) -> Option<Frame> {
        self.runs.first().map(|(first, _)| Frame(first))
    }

    pub fn last(&self) -> Option<Frame> {
        self.runs.iter().next_back().map(|(_, last)| Frame(last))
    }

    /// The runs in ascending order.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = FrameRange> + '_ {
        self.runs.iter().map(|(first, last)| FrameRange { first: Frame(first), last: Frame(last) })
    }

    pub fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// The frames in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Frame> + '_ {
        self.runs().flat_map(FrameRange::iter)
    }

    pub fn contains(&self, frame: Frame) -> bool {
        self.runs.at_or_before(frame.0).is_some_and(|(_, last)| last >= frame.0)
    }

    pub fn insert(&mut self, range: FrameRange) {
        let (mut first, mut last) = (range.first.0, range.last.0);
        // A run that starts before us and overlaps or touches us.
        if let Some((start, end)) = self.runs.at_or_before(first)
            && end >= first.saturating_sub(1)
        {
            if end >= last {
                return;
            }
            self.take_run(start, end);
            first = start;
        }
        // Runs that start within us or right behind us.
        while let Some((start, end)) = self.runs.first_starting_in(first..=last.saturating_add(1)) {
            self.take_run(start, end);
            last = last.max(end);
        }
        self.put_run(first, last);
    }

    pub fn remove(&mut self, range: FrameRange) {
        let (first, last) = (range.first.0, range.last.0);
        if let Some((start, end)) = first.checked_sub(1).and_then(|before| self.runs.at_or_before(before))
            && end >= first
        {
            self.take_run(start, end);
            self.put_run(start, first - 1);
            if end > last {
                self.put_run(last + 1, end);
                return;
            }
        }
        while let Some((start, end)) = self.runs.first_starting_in(first..=last) {
            self.take_run(start, end);
            if end > last {
                self.put_run(last + 1, end);
            }
        }
    }

    pub fn insert_all(&mut self, other: &FrameSet) {
        other.runs().for_each(|run| self.insert(run));
    }

    pub fn remove_all(&mut self, other: &FrameSet) {
        other.runs().for_each(|run| self.remove(run));
    }

    /// The frames in both. Costs the runs of `self` times a look-up.
    pub fn intersection(&self, other: &FrameSet) -> FrameSet {
        let mut both = FrameSet::new();
        for run in self.runs() {
            let before = other.runs.at_or_before(run.first.0);
            let behind = run.first.0.checked_add(1);
            let within = behind.map(|behind| other.runs.starting_in(behind..=run.last.0));
            for (start, end) in before.into_iter().chain(within.into_iter().flatten()) {
                let (first, last) = (start.max(run.first.0), end.min(run.last.0));
                if first <= last {
                    both.put_run(first, last);
                }
            }
        }
        both
    }

    pub fn is_subset(&self, other: &FrameSet) -> bool {
        self.runs().all(|run| other.runs.at_or_before(run.first.0).is_some_and(|(_, end)| end >= run.last.0))
    }

    /// Takes the first `count` frames out, fewer when there are no more or when the next run starts
    /// more than `max_gap` frames behind the one before.
    pub fn take_first(&mut self, count: u64, max_gap: u64) -> FrameSet {
        let mut taken = FrameSet::new();
        let mut before: Option<i64> = None;
        while taken.len < count
            && let Some((first, last)) = self.runs.first()
        {
            if before.is_some_and(|before| first.abs_diff(before) - 1 > max_gap) {
                break;
            }
            self.take_run(first, last);
            let room = count - taken.len;
            let run_len = last.abs_diff(first) + 1;
            let end = if run_len <= room { last } else { first + room as i64 - 1 };
            taken.put_run(first, end);
            if end < last {
                self.put_run(end + 1, last);
            }
            before = Some(end);
        }
        taken
    }

    fn put_run(&mut self, first: i64, last: i64) {
        self.runs.put(first, last);
        self.len += last.abs_diff(first) + 1;
    }

    fn take_run(&mut self, first: i64, last: i64) {
        self.runs.take(first);
        self.len -= last.abs_diff(first) + 1;
    }
}

impl From<FrameRange> for FrameSet {
    fn from(range: FrameRange) -> Self {
        let mut set = FrameSet::new();
        set.put_run(range.first.0, range.last.0);
        set
    }
}

impl FromIterator<Frame> for FrameSet {
    fn from_iter<I: IntoIterator<Item = Frame>>(frames: I) -> Self {
        let mut set = FrameSet::new();
        for frame in frames {
            set.insert(FrameRange { first: frame, last: frame });
        }
        set
    }
}

impl FromStr for FrameSet {
    type Err = FramesError;

    fn from_str(text: &str) -> Result<Self, FramesError> {
        let mut set = FrameSet::new();
        // What is put in, also again and again: a short text must not keep a processor busy.
        let mut put_in = 0_u64;
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last, step) = parse_part(part)?;
            let span = last.abs_diff(first);
            if span / step >= MAX_FRAMES {
                return Err(FramesError::TooMany);
            }
            put_in += if step == 1 { 1 } else { span / step + 1 };
            if put_in > 2 * MAX_RUNS as u64 {
                return Err(FramesError::TooMany);
            }
            if step == 1 {
                set.insert(FrameRange { first: Frame(first), last: Frame(last) });
            } else {
                if span / step >= MAX_RUNS as u64 {
                    return Err(FramesError::TooMany);
                }
                for index in 0..=span / step {
                    // `index * step` is at most `span`, so the sum lies between first and last.
                    let frame = Frame(first.wrapping_add_unsigned(index * step));
                    set.insert(FrameRange { first: frame, last: frame });
                }
            }
            if set.len > MAX_FRAMES || set.runs.len() > MAX_RUNS {
                return Err(FramesError::TooMany);
            }
        }
        if set.is_empty() { Err(FramesError::Empty) } else { Ok(set) }
    }
}

/// First, last and step of `7`, `1-10` or `1-10x2`.
fn parse_part(part: &str) -> Result<(i64, i64, u64), FramesError> {
    let not_a_range = || FramesError::NotARange { part: part.to_owned() };
    let (range, step) = match part.split_once('x') {
        Some((range, step)) => (range, step.trim().parse::<u64>().map_err(|_| not_a_range())?),
        None => (part, 1),
    };
    if step == 0 {
        return Err(FramesError::ZeroStep { part: part.to_owned() });
    }
    let range = range.trim();
    // A leading minus is a sign, so the dash that separates is looked for behind it.
    let dash = range.char_indices().skip(1).find(|(_, c)| *c == '-').map(|(at, _)| at);
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| not_a_range());
    let (first, last) = match dash {
        Some(at) => (number(&range[..at])?, number(&range[at + 1..])?),
        None => (number(range)?, number(range)?),
    };
    if first > last {
        return Err(FramesError::Backwards { part: part.to_owned(), first, last });
    }
    Ok((first, last, step))
}

impl fmt::Display for FrameSet {
    /// The shortest text that reads back as the same set: frames at equal steps become `1-9x2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs = self.runs().peekable();
        let mut separator = "";
        while let Some(run) = runs.next() {
            f.write_str(separator)?;
            separator = ",";
            if run.first != run.last {
                write!(f, "{}-{}", run.first, run.last)?;
                continue;
            }
            let step = match runs.peek() {
                Some(next) if next.first == next.last => next.first.0.abs_diff(run.first.0),
                _ => 0,
            };
            let (mut last, mut members) = (run.first, 1);
            while step > 0
                && let Some(next) = runs.peek()
                && next.first == next.last
                && next.first.0.abs_diff(last.0) == step
                // Two frames read better as "1,5" than as "1-5x4".
                && (members > 1 || steps_on(&self.runs, next.first.0, step))
            {
                last = next.first;
                members += 1;
                runs.next();
            }
            if members == 1 {
                write!(f, "{}", run.first)?;
            } else {
                write!(f, "{}-{last}x{step}", run.first)?;
            }
        }
        Ok(())
    }
}

/// Whether a single frame stands `step` behind the single frame `at`.
fn steps_on(runs: &Runs, at: i64, step: u64) -> bool {
    let next = at.saturating_add_unsigned(step);
    runs.at_or_before(next) == Some((next, next))
}

impl fmt::Debug for FrameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl Serialize for FrameSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FrameSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(FrameSet::new());
        }
        text.parse().map_err(serde::de::Error::custom)
    }
}
