//! The algebra of frame sets, against a plain set of numbers.

use std::collections::BTreeSet;

use hearth_workflows::{Frame, FrameRange, FrameSet, frames::FramesError};
use proptest::prelude::*;

fn plain(set: &FrameSet) -> BTreeSet<i64> {
    set.iter().map(|frame| frame.0).collect()
}

/// Runs are disjoint, in order, never touch, and the length is right.
fn well_formed(set: &FrameSet) -> bool {
    let runs: Vec<FrameRange> = set.runs().collect();
    let apart = runs.windows(2).all(|pair| pair[0].last.0 + 1 < pair[1].first.0);
    let forward = runs.iter().all(|run| run.first <= run.last);
    apart && forward && set.len() == runs.iter().map(|run| run.len()).sum::<u64>()
}

fn ranges() -> impl Strategy<Value = Vec<FrameRange>> {
    let range = (-40_i64..40, 0_i64..12)
        .prop_filter_map("a range", |(first, len)| FrameRange::new(first, first + len));
    prop::collection::vec(range, 0..12)
}

fn set_of(ranges: &[FrameRange]) -> FrameSet {
    let mut set = FrameSet::new();
    ranges.iter().for_each(|range| set.insert(*range));
    set
}

proptest! {
    #[test]
    fn sets_behave_like_sets(a in ranges(), b in ranges()) {
        let (left, right) = (set_of(&a), set_of(&b));
        let (plain_left, plain_right) = (plain(&left), plain(&right));
        prop_assert!(well_formed(&left));
        let expected: BTreeSet<i64> = a.iter().flat_map(|range| range.first.0..=range.last.0).collect();
        prop_assert_eq!(&plain_left, &expected);

        let mut union = left.clone();
        union.insert_all(&right);
        prop_assert!(well_formed(&union));
        prop_assert_eq!(plain(&union), &plain_left | &plain_right);

        let mut difference = left.clone();
        difference.remove_all(&right);
        prop_assert!(well_formed(&difference));
        prop_assert_eq!(plain(&difference), &plain_left - &plain_right);

        let both = left.intersection(&right);
        prop_assert!(well_formed(&both));
        prop_assert_eq!(plain(&both), &plain_left & &plain_right);

        prop_assert_eq!(left.is_subset(&right), plain_left.is_subset(&plain_right));
        for frame in -45..60 {
            prop_assert_eq!(left.contains(Frame(frame)), plain_left.contains(&frame));
        }
    }

    #[test]
    fn taking_the_first_frames_loses_none(a in ranges(), count in 1_u64..30, gap in 0_u64..20) {
        let whole = set_of(&a);
        let mut rest = whole.clone();
        let taken = rest.take_first(count, gap);
        prop_assert!(well_formed(&taken) && well_formed(&rest));
        prop_assert!(taken.len() <= count);
        prop_assert_eq!(taken.is_empty(), whole.is_empty());
        let mut again = rest.clone();
        again.insert_all(&taken);
        prop_assert_eq!(again, whole);
        prop_assert!(taken.last() < rest.first() || rest.is_empty() || taken.is_empty());
        let frames: Vec<i64> = taken.iter().map(|frame| frame.0).collect();
        prop_assert!(frames.windows(2).all(|pair| (pair[1] - pair[0] - 1) as u64 <= gap));
    }

    #[test]
    fn text_reads_back_as_the_same_set(a in ranges(), step in 1_u64..5, first in -50_i64..50, count in 0_i64..20) {
        let mut set = set_of(&a);
        let stepped = (0..count).map(|index| Frame(first + index * step as i64));
        set.insert_all(&stepped.collect());
        if !set.is_empty() {
            prop_assert_eq!(set.to_string().parse::<FrameSet>().expect("readable"), set);
        }
    }
}

#[test]
fn the_fields_notation_is_read() {
    for (text, frames, shown) in [
        ("1001-1004", vec![1001, 1002, 1003, 1004], "1001-1004"),
        ("1-10x3", vec![1, 4, 7, 10], "1-10x3"),
        ("1-10x4", vec![1, 5, 9], "1-9x4"),
        ("1,5, 9-12", vec![1, 5, 9, 10, 11, 12], "1,5,9-12"),
        ("-5--3", vec![-5, -4, -3], "-5--3"),
        ("-1-1", vec![-1, 0, 1], "-1-1"),
        ("7", vec![7], "7"),
        ("3-4,1-2", vec![1, 2, 3, 4], "1-4"),
    ] {
        let set: FrameSet = text.parse().expect(text);
        assert_eq!(plain(&set), frames.into_iter().collect(), "{text}");
        assert_eq!(set.to_string(), shown);
    }
    for (text, error) in [
        ("", FramesError::Empty),
        (" , ", FramesError::Empty),
        ("10-1", FramesError::Backwards { part: "10-1".into(), first: 10, last: 1 }),
        ("1-10x0", FramesError::ZeroStep { part: "1-10x0".into() }),
        ("a-b", FramesError::NotARange { part: "a-b".into() }),
        ("1-2-3", FramesError::NotARange { part: "1-2-3".into() }),
        ("1-99999999999", FramesError::TooMany),
        ("1-99999999x2", FramesError::TooMany),
        ("-9223372036854775808-9223372036854775807", FramesError::TooMany),
    ] {
        assert_eq!(text.parse::<FrameSet>(), Err(error), "{text}");
    }
    // The same again and again makes no more frames, but work.
    let again = ["1-1999999x2"; 300].join(",");
    assert_eq!(again.parse::<FrameSet>(), Err(FramesError::TooMany));
}
