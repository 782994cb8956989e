//! How long things take, learned from results: a frame of each job, each node against the others, loading the
//! models of each workflow. What was learned is kept when a job ends and after a lack of memory; each node's own speed
//! is not, since it is learned again within a chunk.
//!
//! A frame takes `base × slowness` seconds: the base is the job's (workflow, parameters, size of the picture), the
//! slowness the node's for that workflow. So one measurement of a job tells of it on every node that is known, and
//! a new node of a known kind of GPU is known before its first chunk.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap as HashMap;
use serde::{Deserialize, Serialize};

use crate::farm::model::ids::{NodeName, Variant};

/// How far a measurement moves what was known, by exponent: of a base, and of a slowness.
const NEWEST_BASE: f64 = 0.15;

const NEWEST_SLOWNESS: f64 = 0.3;

/// Weight of the newest measurement of loading.
const NEWEST_LOAD: f64 = 0.3;

/// Part of a chunk's time that was rendering, at least, when models were loaded, too.
const LEAST_RENDERING: f64 = 0.2;

/// Kinds of jobs whose base is remembered for one workflow.
const KEPT_BASES: usize = 256;

/// How far measurements are taken to scatter until they tell, as the logarithm of a factor; and weight of the newest.
const USUAL_SCATTER: f64 = 0.25;

const NEWEST_SCATTER: f64 = 0.2;

/// After so many chunks that went well a kind of GPU is tried with more frames again; twice as many after every lack of
/// memory, up to the last.
const FIRST_PATIENCE: u32 = 8;

const LAST_PATIENCE: u32 = 512;

/// A chunk of so many frames needs no limit any more.
const NO_CAP: u64 = 1 << 20;

/// What is known of one workflow.
#[derive(Debug, Clone, Default)]
pub(in crate::farm) struct Pace {
    /// Of each kind of job, on a node of slowness 1.
    bases: HashMap<Variant, Base>,
    slowness: HashMap<NodeName, f64>,
    /// Mean of `ln(slowness)` by kind of GPU, and how many measurements that is.
    kinds: HashMap<String, (f64, u32)>,
    load: Option<f64>,
    /// Most frames of a chunk by kind of GPU, after one ran out of memory.
    caps: HashMap<String, Cap>,
}

/// How many frames fit into the memory of a kind of GPU, as far as that was tried.
#[derive(Debug, Clone, Copy)]
struct Cap {
    frames: u64,
    /// Most frames that did fit since the last lack of memory at so many or fewer.
    fitted: u64,
    /// Chunks of so many that went well since, and after how many of them a few more frames are tried.
    well: u32,
    patience: u32,
}

impl Cap {
    fn of(frames: u64) -> Self {
        Self { frames, fitted: 0, well: 0, patience: FIRST_PATIENCE }
    }
}

#[derive(Debug, Clone, Copy)]
struct Base {
    seconds_per_frame: f64,
    /// Models were loaded in that time, too: the next measurement knows better.
    rough: bool,
    /// Mean distance of a measurement from what was expected, as the logarithm of a factor.
    scatter: f64,
}

/// What is kept of a workflow's pace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::farm) struct PaceRecord {
    /// Seconds a frame of each kind of job, on a node of slowness 1.
    bases: BTreeMap<Variant, f64>,
    kinds: BTreeMap<String, (f64, u32)>,
    load: Option<f64>,
    caps: BTreeMap<String, u64>,
}

/// A node, as far as its speed goes.
#[derive(Debug, Clone, Copy)]
pub(in crate::farm) struct Runner<'a> {
    pub(in crate::farm) name: &'a NodeName,
    /// Its kind of GPU.
    pub(in crate::farm) kind: &'a str,
}

impl Pace {
    pub(in crate::farm) fn record(&self) -> PaceRecord {
        let sure = self.bases.iter().filter(|(_, base)| !base.rough);
        PaceRecord {
            bases: sure.map(|(variant, base)| (*variant, base.seconds_per_frame)).collect(),
            kinds: self.kinds.clone().into_iter().collect(),
            load: self.load,
            caps: self.caps.iter().map(|(kind, cap)| (kind.clone(), cap.frames)).collect(),
        }
    }

    pub(in crate::farm) fn restored(record: PaceRecord) -> Self {
        let base = |(variant, seconds_per_frame)| {
            (variant, Base { seconds_per_frame, rough: false, scatter: USUAL_SCATTER })
        };
        Self {
            bases: record.bases.into_iter().map(base).collect(),
            slowness: HashMap::default(),
            kinds: record.kinds.into_iter().collect(),
            load: record.load,
            caps: record.caps.into_iter().map(|(kind, frames)| (kind, Cap::of(frames))).collect(),
        }
    }

    /// Seconds a frame; `None` before anything of the kind was measured.
    pub(in crate::farm) fn seconds_per_frame(&self, variant: Variant, runner: Runner) -> Option<f64> {
        Some(self.base(variant)? * self.slowness(runner).unwrap_or(1.0))
    }

    /// Seconds a frame on a node as fast as those that were measured first.
    pub(in crate::farm) fn base(&self, variant: Variant) -> Option<f64> {
        self.bases.get(&variant).map(|base| base.seconds_per_frame)
    }

    /// By which factor, up or down, the time of a frame may be off.
    pub(in crate::farm) fn scatter(&self, variant: Variant) -> f64 {
        self.bases.get(&variant).map_or(USUAL_SCATTER, |base| base.scatter).exp()
    }

    /// Whether a chunk's time is known well enough to say that one is late.
    pub(in crate::farm) fn is_sure(&self, variant: Variant) -> bool {
        self.bases.get(&variant).is_some_and(|base| !base.rough)
    }

    /// As [`Pace::base`]; of a job that was never measured what others of the workflow have in the mean.
    pub(in crate::farm) fn likely_base(&self, variant: Variant) -> Option<f64> {
        let mean = || {
            let logs: f64 = self.bases.values().map(|base| base.seconds_per_frame.ln()).sum();
            (!self.bases.is_empty()).then(|| (logs / self.bases.len() as f64).exp())
        };
        self.base(variant).or_else(mean)
    }

    fn slowness(&self, runner: Runner) -> Option<f64> {
        let own = self.slowness.get(runner.name).copied();
        own.or_else(|| self.kinds.get(runner.kind).map(|(mean, _)| mean.exp()))
    }

    /// How fast the node is against one of slowness 1.
    pub(in crate::farm) fn speed(&self, runner: Runner) -> f64 {
        1.0 / self.slowness(runner).unwrap_or(1.0).max(1e-6)
    }

    /// As [`Pace::speed`], of a kind of GPU.
    pub(in crate::farm) fn kind_speed(&self, kind: &str) -> f64 {
        self.kinds.get(kind).map_or(1.0, |(mean, _)| (-mean).exp())
    }

    /// Seconds that loading the workflow's models costs a node that has others loaded, as far as that was seen.
    pub(in crate::farm) fn load(&self) -> Option<f64> {
        self.load
    }

    pub(in crate::farm) fn cap(&self, kind: &str) -> Option<u64> {
        self.caps.get(kind).map(|cap| cap.frames)
    }

    /// A chunk of `frames` rendered frames, handles among them, took `seconds`. `loading`: the models were not
    /// there, and this is what loading them usually takes.
    pub(in crate::farm) fn measure(
        &mut self,
        variant: Variant,
        runner: Runner,
        frames: u64,
        seconds: f64,
        loading: Option<f64>,
    ) {
        if frames == 0 || !seconds.is_finite() || seconds <= 0.0 {
            return;
        }
        let mut seconds = seconds;
        if let Some(usual) = loading {
            let own = self.slowness.get(runner.name).and_then(|own| Some(own * self.base(variant)?));
            if let Some(known) = own {
                // What is beyond the frames themselves went into loading.
                let newest = (seconds - known * frames as f64).max(0.0);
                let before = self.load.unwrap_or(newest);
                self.load = Some(before + NEWEST_LOAD * (newest - before));
                return;
            }
            // Which part was loading cannot be told yet.
            seconds = (seconds - usual).max(seconds * LEAST_RENDERING);
        }
        let newest = (seconds / frames as f64).max(1e-6);
        let slowness = self.slowness(runner);
        let rough = loading.is_some();
        let known = self.bases.get(&variant).filter(|base| rough || !base.rough);
        // What its kind is like says little about a node that was measured itself.
        let own = self.slowness.get(runner.name).copied();
        match (known.map(|base| base.seconds_per_frame), own) {
            (None, _) => {
                if self.bases.len() >= KEPT_BASES {
                    self.bases.clear();
                }
                let seconds_per_frame = newest / slowness.unwrap_or(1.0);
                self.bases.insert(variant, Base { seconds_per_frame, rough, scatter: USUAL_SCATTER });
                if slowness.is_none() {
                    self.learn(runner, 1.0);
                }
            }
            (Some(base), None) => self.learn(runner, newest / base),
            (Some(base), Some(slowness)) => {
                let off = newest / (base * slowness);
                let seconds_per_frame = base * off.powf(NEWEST_BASE);
                let before = self.bases.get(&variant).map_or(USUAL_SCATTER, |base| base.scatter);
                let scatter = before + NEWEST_SCATTER * (off.ln().abs().min(2.0) - before);
                self.bases.insert(variant, Base { seconds_per_frame, rough, scatter });
                self.learn(runner, slowness * off.powf(NEWEST_SLOWNESS));
            }
        }
    }

    fn learn(&mut self, runner: Runner, slowness: f64) {
        let slowness = slowness.clamp(1e-3, 1e3);
        self.slowness.insert(runner.name.clone(), slowness);
        let (mean, count) = self.kinds.entry(runner.kind.to_owned()).or_insert((slowness.ln(), 0));
        *count = (*count + 1).min(20);
        *mean += (slowness.ln() - *mean) / f64::from(*count);
    }

    /// A chunk of `frames` was too much for the memory of this kind of GPU.
    pub(in crate::farm) fn too_much(&mut self, kind: &str, frames: u64) {
        let half = (frames / 2).max(1);
        let cap = self.caps.entry(kind.to_owned()).or_insert(Cap { patience: 0, ..Cap::of(half) });
        if cap.fitted >= frames {
            cap.fitted = 0;
        }
        cap.frames = half.min(cap.frames).max(cap.fitted);
        cap.well = 0;
        cap.patience = (cap.patience * 2).clamp(FIRST_PATIENCE, LAST_PATIENCE);
    }

    /// A chunk of `frames` did fit. What else lay in that memory may be gone by now: after a while, a few more are
    /// tried. True when that has changed what is kept.
    pub(in crate::farm) fn did_fit(&mut self, kind: &str, frames: u64) -> bool {
        let Some(cap) = self.caps.get_mut(kind).filter(|cap| frames >= cap.frames) else { return false };
        cap.well += 1;
        cap.fitted = cap.fitted.max(cap.frames);
        if cap.well < cap.patience {
            return false;
        }
        cap.well = 0;
        cap.frames += (cap.frames / 2).max(1);
        if cap.frames >= NO_CAP {
            self.caps.remove(kind);
        }
        true
    }

    /// Kinds of GPU that get fewer frames at a time than others, since more were too much for their memory.
    pub(in crate::farm) fn caps(&self) -> impl Iterator<Item = (&str, u64)> {
        self.caps.iter().map(|(kind, cap)| (kind.as_str(), cap.frames))
    }

    /// Memory is tried anew on this kind of GPU. True when there was a limit.
    pub(in crate::farm) fn forget_cap(&mut self, kind: &str) -> bool {
        self.caps.remove(kind).is_some()
    }

    /// The node is not there any more.
    pub(in crate::farm) fn forget(&mut self, node: &NodeName) {
        self.slowness.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_tried_again_ever_more_rarely() {
        let mut pace = Pace::default();
        pace.too_much("A5000", 16);
        assert_eq!(pace.cap("A5000"), Some(8));
        // Smaller chunks tell nothing.
        assert!(!(0..100).any(|_| pace.did_fit("A5000", 7)));
        let tries = |pace: &mut Pace| (1..1_000).take_while(|_| !pace.did_fit("A5000", 100)).count() + 1;
        assert_eq!((tries(&mut pace), pace.cap("A5000")), (8, Some(12)));
        pace.too_much("A5000", 12);
        // So many did fit before.
        assert_eq!(pace.cap("A5000"), Some(8));
        assert_eq!((tries(&mut pace), pace.cap("A5000")), (16, Some(12)));
        // And now they do not.
        pace.too_much("A5000", 8);
        assert_eq!(pace.cap("A5000"), Some(4));
        assert!(pace.forget_cap("A5000") && pace.cap("A5000").is_none());
    }

    #[test]
    fn one_measurement_tells_of_every_node_that_is_known() {
        let (slow, fast, new) = (NodeName::from("slow"), NodeName::from("fast"), NodeName::from("new"));
        let slow = Runner { name: &slow, kind: "A5000" };
        let fast = Runner { name: &fast, kind: "H100" };
        let new = Runner { name: &new, kind: "H100" };
        let mut pace = Pace::default();
        assert_eq!(pace.seconds_per_frame(1, slow), None);
        pace.measure(1, slow, 10, 40.0, None);
        pace.measure(1, fast, 10, 10.0, None);
        // Another job, met on one node, is known on the others, and on a node never met of a known kind.
        pace.measure(2, slow, 4, 80.0, None);
        let of = |runner| pace.seconds_per_frame(2, runner).expect("known");
        assert!((of(fast) - 5.0).abs() < 1e-9 && (of(new) - 5.0).abs() < 1e-9, "{} {}", of(fast), of(new));
        // Loading is told apart from rendering.
        pace.measure(2, fast, 10, 50.0 + 32.0, Some(20.0));
        assert!((pace.load().expect("seen") - 32.0).abs() < 1e-9);
        assert!((pace.seconds_per_frame(2, fast).expect("known") - 5.0).abs() < 1e-9);
    }
}
