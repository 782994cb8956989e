//! Movies in and out become frames in and frames out: a farm splits frames, and makes movies of the result.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    graph::{link, link_of},
    signatures::Signatures,
};

/// Classes that load a movie, or a folder of the server's own, as pictures at output 0.
const LOADERS: [&str; 8] = [
    "VHS_LoadVideo",
    "VHS_LoadVideoPath",
    "VHS_LoadVideoFFmpeg",
    "VHS_LoadVideoFFmpegPath",
    "VHS_LoadImages",
    "LoadImagesFromFolderKJ",
    "LoadExrSequence",
    "LoadImageDataSetFromFolder",
];

/// Classes that save or show `images`.
const SAVERS: [&str; 6] =
    ["VHS_VideoCombine", "SaveAnimatedWEBP", "SaveAnimatedPNG", "SaveWEBM", "SaverNode", "SaveImageAdvanced"];

/// Outputs of a node that are looked at.
const MOST_OUTPUTS: i64 = 64;

/// The node that loads the frames instead.
const FRAMES: &str = "VHS_LoadImagesPath";

/// Frames a second where a graph asks its movie; deliveries have a rate of their own.
const RATE: f64 = 24.0;

/// Of a node that cannot run without what a movie gave it.
pub(super) const GOES: &str = "goes: nothing gives it";

/// Changes the graph, and says what was changed.
pub(super) fn to_frames(graph: &mut Map<String, Value>, signatures: Option<&Signatures>) -> Vec<String> {
    let mut frames = Frames { graph, signatures, notes: Vec::new(), lost: BTreeSet::new() };
    frames.load();
    frames.save();
    frames.notes
}

/// Takes out what no saver needs, and what cannot run any more because something that it needs is gone.
pub(super) fn prune(graph: &mut Map<String, Value>, savers: impl Fn(&str) -> bool) {
    let mut open: Vec<String> =
        graph.iter().filter(|(_, node)| savers(class_of(node))).map(|(id, _)| id.clone()).collect();
    let mut used = BTreeSet::new();
    while let Some(id) = open.pop() {
        let Some(node) = graph.get(&id) else { continue };
        if used.insert(id) {
            open.extend(links_of(node).map(|(_, from, _)| from));
        }
    }
    graph.retain(|id, _| used.contains(id));
}

fn class_of(node: &Value) -> &str {
    node["class_type"].as_str().unwrap_or("")
}

fn links_of(node: &Value) -> impl Iterator<Item = (String, String, i64)> + '_ {
    let inputs = node["inputs"].as_object().into_iter().flatten();
    inputs.filter_map(|(input, value)| {
        let link = link_of(value)?;
        Some((input.clone(), link.node.to_owned(), link.slot))
    })
}

struct Frames<'a> {
    graph: &'a mut Map<String, Value>,
    signatures: Option<&'a Signatures>,
    notes: Vec<String>,
    /// Inputs that nothing feeds any more, by node.
    lost: BTreeSet<(String, String)>,
}

impl Frames<'_> {
    fn ids_of(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        self.graph.iter().filter(|(_, node)| wanted(class_of(node))).map(|(id, _)| id.clone()).collect()
    }

    fn number(&self, id: &str, input: &str) -> i64 {
        self.graph[id]["inputs"][input].as_i64().unwrap_or(0)
    }

    fn title(&self, id: &str) -> String {
        self.graph[id]["_meta"]["title"].as_str().unwrap_or("").to_owned()
    }

    /// Where a link of this input leads.
    fn source(&self, id: &str, input: &str) -> Option<(String, i64)> {
        let link = link_of(self.graph.get(id)?["inputs"].get(input)?)?;
        Some((link.node.to_owned(), link.slot))
    }

    /// What takes the output now takes another one, a value, or nothing.
    fn redirect(&mut self, from: &str, slot: i64, to: Option<Value>) {
        for (id, node) in self.graph.iter_mut() {
            let Some(inputs) = node["inputs"].as_object_mut() else { continue };
            inputs.retain(|input, value| {
                if link_of(value).is_none_or(|link| link.node != from || link.slot != slot) {
                    return true;
                }
                match &to {
                    Some(to) => *value = to.clone(),
                    None => drop(self.lost.insert((id.clone(), input.clone()))),
                }
                to.is_some()
            });
        }
    }

    fn load(&mut self) {
        let mut loaders = self.ids_of(|class| LOADERS.contains(&class));
        // A movie is taken apart by a node of its own, perhaps behind one that cuts or chooses it.
        let taken_apart = self.ids_of(|class| class == "GetVideoComponents");
        loaders.extend(taken_apart.into_iter().filter(|id| self.comes_from_movie(id)));
        loaders.sort_by_key(|id| std::cmp::Reverse(super::knowledge::clip_likeness(&self.title(id))));
        let [clip, others @ ..] = &loaders[..] else {
            self.load_matted();
            return;
        };
        for other in others {
            self.notes.push(format!(
                "node {other} ({}) loads another movie: it stays as it is, and its file must lie on every node",
                class_of(&self.graph[other])
            ));
        }
        self.load_frames(&clip.clone());
    }

    fn comes_from_movie(&self, id: &str) -> bool {
        let (mut open, mut seen) = (vec![id.to_owned()], BTreeSet::new());
        while let Some(id) = open.pop() {
            let Some(node) = self.graph.get(&id) else { continue };
            if class_of(node) == "LoadVideo" {
                return true;
            }
            if seen.insert(id) {
                open.extend(links_of(node).map(|(_, from, _)| from));
            }
        }
        false
    }

    /// A picture whose alpha is used, too, is loaded for many frames by a node that gives both.
    fn load_matted(&mut self) {
        let makes_frames = self.graph.values().any(|node| node["inputs"]["length"].is_u64());
        let loads_frames = |class: &str| super::knowledge::loader(class).is_some() && class != "LoadImage";
        if makes_frames || !self.ids_of(loads_frames).is_empty() {
            return;
        }
        let mut loaders = self.ids_of(|class| class == "LoadImage");
        loaders.sort_by_key(|id| std::cmp::Reverse(super::knowledge::clip_likeness(&self.title(id))));
        let Some(clip) = loaders.first().cloned() else { return };
        if self.graph.values().flat_map(links_of).any(|(_, from, slot)| from == clip && slot == 1) {
            self.load_frames(&clip);
        }
    }

    /// Makes the node load frames. Its id stays.
    fn load_frames(&mut self, id: &str) {
        let class = class_of(&self.graph[id]).to_owned();
        let (width, height) = (self.number(id, "custom_width"), self.number(id, "custom_height"));
        let every = self.number(id, "select_every_nth").max(1);
        let rate = self.graph[id]["inputs"]["force_rate"].as_f64().unwrap_or(0.0);
        let is_components = class == "GetVideoComponents";
        let has_mask = matches!(
            class.as_str(),
            "LoadImage" | "VHS_LoadImages" | "LoadImagesFromFolderKJ" | "LoadExrSequence"
        );
        self.tell_rate(id);
        // Sound, and what is known of a movie; the higher ones first, since the second becomes the third.
        for slot in (1..8).rev() {
            let instead = match (is_components, has_mask, slot) {
                (true, _, 2) => Some(RATE.into()),
                (true, _, 3) => Some(8.into()),
                (false, true, 1 | 2) => continue,
                (false, false, 1) => Some(link(id, 2)),
                _ => None,
            };
            self.redirect(id, slot, instead);
        }
        let inputs = json!({
            "directory": "", "image_load_cap": 0, "skip_first_images": 0, "select_every_nth": every,
        });
        self.graph[id]["class_type"] = FRAMES.into();
        self.graph[id]["inputs"] = inputs;
        self.notes.push(format!("node {id} was {class}: it loads a folder of frames instead"));
        if rate > 0.0 {
            self.notes
                .push(format!("the movie was brought to {rate} frames a second: give frames at that rate"));
        }
        if is_components {
            self.notes.push(format!("where the graph asks for the movie's rate, it is {RATE}"));
        }
        if width > 0 || height > 0 {
            let scaled = format!("{id}_scaled");
            self.redirect(id, 0, Some(link(&scaled, 0)));
            let inputs = json!({
                "image": link(id, 0), "upscale_method": "lanczos", "width": width, "height": height, "crop": "center",
            });
            let node = json!({ "class_type": "ImageScale", "inputs": inputs, "_meta": { "title": "Size of the clip" } });
            self.graph.insert(scaled, node);
        }
    }

    /// Nodes that say what a movie was like: its rate is the usual one, its length that of the clip.
    fn tell_rate(&mut self, clip: &str) {
        for id in self
            .ids_of(|class| matches!(class, "VHS_VideoInfo" | "VHS_VideoInfoLoaded" | "VHS_VideoInfoSource"))
        {
            if self.source(&id, "video_info").is_none_or(|(from, _)| from != clip) {
                continue;
            }
            for slot in [0, 5] {
                self.redirect(&id, slot, Some(RATE.into()));
                self.redirect(&id, slot + 1, Some(link(clip, 2)));
            }
            self.notes.push(format!("where the graph asks for the movie's rate, it is {RATE}"));
        }
    }

    fn save(&mut self) {
        for id in self.ids_of(|class| SAVERS.contains(&class)) {
            if let Some(images) = self.source(&id, "images") {
                self.save_frames(&id, images);
            }
        }
        for id in self.ids_of(|class| class == "SaveVideo") {
            let Some((video, slot)) = self.source(&id, "video") else { continue };
            let made_of =
                (class_of(&self.graph[&video]) == "CreateVideo").then(|| self.source(&video, "images"));
            let images = made_of.flatten().unwrap_or_else(|| {
                let parts = format!("{id}_frames");
                let inputs = json!({ "video": link(&video, slot) });
                let node = json!({ "class_type": "GetVideoComponents", "inputs": inputs, "_meta": { "title": "Frames" } });
                self.graph.insert(parts.clone(), node);
                (parts, 0)
            });
            self.save_frames(&id, images);
        }
        let saves = |class: &str| super::knowledge::saver(class).is_some();
        if self.ids_of(saves).is_empty() {
            self.save_previews();
        }
        // Without any, all that there is helps to say so.
        if !self.ids_of(saves).is_empty() {
            prune(self.graph, saves);
            self.drop_what_lacks();
        }
    }

    /// Nothing saves: what is shown is what was meant.
    fn save_previews(&mut self) {
        for id in
            self.ids_of(|class| matches!(class, "PreviewImage" | "Image Comparer (rgthree)" | "MaskPreview"))
        {
            let images = ["images", "image_a", "image"].into_iter().find_map(|input| self.source(&id, input));
            let masks = self.source(&id, "mask").map(|(mask, slot)| {
                let picture = format!("{id}_picture");
                let inputs = json!({ "mask": link(&mask, slot) });
                let node =
                    json!({ "class_type": "MaskToImage", "inputs": inputs, "_meta": { "title": "Matte" } });
                self.graph.insert(picture.clone(), node);
                (picture, 0)
            });
            if let Some(images) = images.or(masks) {
                self.save_frames(&id, images);
            }
        }
    }

    /// Makes the node save frames of these pictures.
    fn save_frames(&mut self, id: &str, (from, slot): (String, i64)) {
        let class = class_of(&self.graph[id]).to_owned();
        let given = &self.graph[id]["inputs"];
        let prefix =
            given["filename_prefix"].as_str().or(given["file_path"].as_str()).unwrap_or("ComfyUI").to_owned();
        let writes_exr = self.signatures.is_some_and(|known| known.get("SaveEXRFrames").is_some());
        let (saver, inputs) = if class == "SaverNode" && writes_exr {
            let path = format!("{}.%04d.exr", prefix.trim_end_matches(".exr"));
            let inputs = json!({
                "images": link(&from, slot), "filepath": path, "tonemap": "linear", "start_frame": 0, "overwrite": true,
            });
            ("SaveEXRFrames", inputs)
        } else {
            ("SaveImage", json!({ "images": link(&from, slot), "filename_prefix": prefix }))
        };
        self.graph[id]["class_type"] = saver.into();
        self.graph[id]["inputs"] = inputs;
        self.notes.push(format!("node {id} was {class}: it saves frames with {saver} instead"));
        if class == "SaverNode" && saver == "SaveImage" {
            self.notes
                .push(format!("node {id} saves 8 bits without alpha now; that ComfyUI has no SaveEXRFrames"));
        }
    }

    /// Nodes that needed the sound of a movie, say, cannot run without; and so on.
    fn drop_what_lacks(&mut self) {
        while let Some((id, input)) = self.lost.pop_first() {
            let Some(class) = self.graph.get(&id).map(|node| class_of(node).to_owned()) else { continue };
            let signature = self.signatures.and_then(|known| known.get(&class));
            if signature.and_then(|known| known.inputs.get(&input)).is_none_or(|input| !input.is_required) {
                continue;
            }
            self.notes.push(format!("node {id} ({class}) {GOES} {input} any more"));
            self.graph.remove(&id);
            (0..MOST_OUTPUTS).for_each(|slot| self.redirect(&id, slot, None));
        }
    }
}
