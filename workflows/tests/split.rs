//! The law, without pixels: whatever carves a clip, in whatever order and shape, every frame of the result is
//! kept once, and is made of the same as in one piece.

use hearth_workflows::{
    Frame, FrameRange, FrameSet, Split,
    split::{ChunkPlan, Ramp, Shape},
};
use proptest::prelude::*;

/// What a kept picture depends on: for every frame that the workflow looks at, its number, or none where the
/// batch ends although the clip does not.
fn ingredients(split: Split, plan: &ChunkPlan, place: usize, clip: FrameRange) -> Vec<Option<i64>> {
    let at = |place: i64| -> Option<i64> {
        let loaded = usize::try_from(place).ok().and_then(|place| plan.loaded.get(place));
        loaded.map(|frame| frame.0)
    };
    let place = place as i64;
    let split = match split {
        Split::Overlap { handles, .. } => Split::Handles { head: handles, tail: handles },
        split => split,
    };
    match split {
        Split::PerFrame | Split::Overlap { .. } => vec![at(place)],
        Split::Handles { head, tail } => (place - i64::from(head)..=place + i64::from(tail))
            .map(|neighbour| {
                // Beyond the clip there is nothing, in one piece too.
                at(neighbour).filter(|_| {
                    at(place).is_some_and(|frame| {
                        let there = frame + neighbour - place;
                        clip.first.0 <= there && there <= clip.last.0
                    })
                })
            })
            .collect(),
        // The frames around it, and how far between them.
        Split::Interpolate { multiplier, .. } => {
            let multiplier = i64::from(multiplier);
            let part = place % multiplier;
            let after = if part == 0 { None } else { at(place / multiplier + 1) };
            vec![at(place / multiplier), after, Some(part)]
        }
        Split::Whole => plan.loaded.iter().map(|frame| Some(frame.0)).chain([Some(place)]).collect(),
        // Nothing but how many are made.
        Split::Generate { .. } => vec![Some(plan.made as i64), Some(place)],
    }
}

fn splits() -> impl Strategy<Value = Split> {
    prop_oneof![
        Just(Split::PerFrame),
        (0_u32..5, 0_u32..5).prop_map(|(head, tail)| Split::Handles { head, tail }),
        (1_u32..9, 0_u32..4).prop_map(|(frames, handles)| Split::Overlap {
            frames,
            handles,
            ramp: Ramp::Linear
        }),
        (1_u32..6, 1_u32..4).prop_map(|(multiplier, step)| Split::Interpolate { multiplier, step }),
        Just(Split::Whole),
        (1_u32..60).prop_map(|frames| Split::Generate { frames }),
    ]
}

fn shapes() -> impl Strategy<Value = Shape> {
    (1_u64..12, 20_u64..64, 1_u64..9, 0_u64..6).prop_map(|(min, max, multiple, plus)| {
        // A model that takes nothing in its own range is refused with its manifest.
        Shape { min, max: max + 16, multiple, plus }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_carving_keeps_every_frame_once_and_makes_it_of_the_same(
        first in -20_i64..20, len in 1_i64..60, split in splits(), shape in shapes(),
        sizes in prop::collection::vec(1_u64..17, 1..20),
        again in prop::collection::vec(0_usize..60, 0..6),
    ) {
        let clip = FrameRange::new(first, first + len - 1).expect("range");
        let results = split.results(&clip.into());
        let whole = split.plan(&results, clip, shape);
        prop_assert_eq!(whole.kept.len() as u64, results.len());
        let of_whole: std::collections::BTreeMap<Frame, _> = whole
            .kept
            .iter()
            .map(|(place, frame)| (*frame, ingredients(split, &whole, *place, clip)))
            .collect();
        let mut waiting = results.clone();
        let mut kept = FrameSet::new();
        let mut retries: Vec<Frame> = again.iter().filter_map(|index| results.iter().nth(*index)).collect();
        for size in sizes.iter().cycle() {
            let own = split.carve(&mut waiting, (*size).min(split.max_own(shape)), shape);
            prop_assert!(!own.is_empty());
            let plan = split.plan(&own, clip, shape);
            let generates = matches!(split, Split::Generate { .. });
            prop_assert!(!generates || plan.loaded.is_empty());
            let loaded = if generates { plan.made } else { plan.loaded.len() } as u64;
            // The model takes it, and it is real frames of the clip in their order.
            prop_assert_eq!((loaded.saturating_sub(shape.plus)) % shape.multiple, 0, "{:?}", plan);
            prop_assert!(loaded >= shape.min && loaded >= shape.plus);
            if !split.is_whole() {
                prop_assert!(loaded <= shape.max, "{} loaded of at most {}", loaded, shape.max);
            }
            prop_assert!(plan.loaded.iter().all(|frame| clip.first <= *frame && *frame <= clip.last));
            prop_assert!(plan.loaded.windows(2).all(|pair| pair[0] <= pair[1]));
            let mut own_kept = FrameSet::new();
            for (place, frame) in &plan.kept {
                prop_assert!(*place < plan.made);
                if own.contains(*frame) {
                    prop_assert!(!own_kept.contains(*frame), "kept twice");
                    own_kept.insert_all(&[*frame].into_iter().collect());
                } else {
                    let shared = matches!(split, Split::Overlap { frames, .. }
                        if own.iter().any(|own| own.0.abs_diff(frame.0) <= u64::from(frames).div_ceil(2)));
                    prop_assert!(shared, "{} is nobody's", frame);
                }
                // What is cross-faded, too.
                if let Some(whole) = of_whole.get(frame) {
                    prop_assert_eq!(&ingredients(split, &plan, *place, clip), whole, "frame {}", frame);
                }
            }
            prop_assert_eq!(&own_kept, &own);
            prop_assert!(kept.intersection(&own).is_empty());
            kept.insert_all(&own);
            // A frame that has gone bad is rendered again, alone or with whatever waits.
            if let Some(frame) = retries.pop().filter(|frame| kept.contains(*frame)) {
                let bad: FrameSet = [frame].into_iter().collect();
                kept.remove_all(&bad);
                waiting.insert_all(&bad);
            }
            if waiting.is_empty() {
                break;
            }
        }
        prop_assert_eq!(kept, results);
    }

    /// A clip that is still being made: whatever is carved of what is not blocked loads nothing that is not there,
    /// and once all of it is there nothing is blocked.
    #[test]
    fn what_is_not_blocked_needs_nothing_that_is_missing(
        first in -20_i64..20, len in 1_i64..60, split in splits(), shape in shapes(),
        missing in prop::collection::vec(0_i64..60, 0..8),
        sizes in prop::collection::vec(1_u64..17, 1..20),
    ) {
        let clip = FrameRange::new(first, first + len - 1).expect("range");
        let results = split.results(&clip.into());
        prop_assert!(split.blocked(&FrameSet::new(), &results, clip, shape).is_empty());
        let missing: FrameSet = missing.iter().map(|frame| Frame(first + frame % len)).collect();
        let mut open = results.clone();
        open.remove_all(&split.blocked(&missing, &results, clip, shape));
        for size in sizes.iter().cycle() {
            if open.is_empty() {
                break;
            }
            let own = split.carve(&mut open, (*size).min(split.max_own(shape)), shape);
            let plan = split.plan(&own, clip, shape);
            let lacks = plan.loaded.iter().find(|frame| missing.contains(**frame));
            prop_assert!(lacks.is_none(), "{own:?} loads {lacks:?}");
        }
    }

    /// As the real RIFE node has it: `m(n - 1) + 1` pictures, the clip's own among them.
    #[test]
    fn interpolation_counts_as_the_node_does(len in 1_i64..50, multiplier in 1_u32..8) {
        let clip = FrameRange::new(1001, 1000 + len).expect("range");
        let split = Split::Interpolate { multiplier, step: 1 };
        let results = split.results(&clip.into());
        prop_assert_eq!(results.len() as i64, i64::from(multiplier) * (len - 1) + 1);
        let plan = split.plan(&results, clip, Shape::default());
        prop_assert_eq!(plan.loaded.len() as i64, len);
        prop_assert_eq!(plan.made, results.len() as usize);
    }
}

#[test]
fn rates_become_multipliers_and_steps() {
    let frames = |factor: (u32, u32), len: i64| {
        let split = Split::Interpolate { multiplier: factor.0, step: factor.1 };
        split.results(&FrameRange::new(1, len).expect("range").into()).len()
    };
    // 24 frames a second become 48, 60, 96 and 120: of a second and the frame that ends it.
    assert_eq!([(2, 1), (5, 2), (4, 1), (5, 1)].map(|factor| frames(factor, 25)), [49, 61, 97, 121]);
}
