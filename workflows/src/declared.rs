//! An input as its class declares it (`[type, options]`), as far as the editor goes by it: which inputs are widgets, what
//! they hold and what the editor puts behind them.

use serde_json::{Map, Value};

/// Types that the editor shows as widgets.
const WIDGETS: [&str; 20] = [
    "INT",
    "FLOAT",
    "BOOLEAN",
    "STRING",
    "COMBO",
    "COMFY_DYNAMICCOMBO_V3",
    "BOUNDING_BOX",
    "CHART",
    "COLOR",
    "CURVE",
    "CUSTOM",
    "GALLERIA",
    "IMAGECOMPARE",
    "IMAGEUPLOAD",
    "MARKDOWN",
    "PAINTER",
    "RANGE",
    "RESOLUTION_PREVIEW",
    "TEXTAREA",
    "VIDEO_EDIT",
];

/// One input of a class.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    pub name: String,
    declaration: Value,
}

impl Declared {
    pub(crate) fn new(name: &str, declaration: &Value) -> Self {
        Self { name: name.to_owned(), declaration: declaration.clone() }
    }

    fn options(&self) -> &Value {
        &self.declaration[1]
    }

    /// Its type as the editor takes it; a list of choices is `COMBO`.
    pub fn kind(&self) -> &str {
        match (&self.declaration[0], &self.options()["widgetType"]) {
            (Value::Array(_), _) => "COMBO",
            (_, Value::String(kind)) | (Value::String(kind), _) => kind,
            _ => "*",
        }
    }

    pub fn is_widget(&self) -> bool {
        WIDGETS.contains(&self.kind()) && self.options()["forceInput"] != true
    }

    /// A widget by its type that takes its value over a link only.
    pub fn is_forced(&self) -> bool {
        WIDGETS.contains(&self.kind()) && self.options()["forceInput"] == true
    }

    /// Of a type that only its package knows, which may have a widget of its own.
    pub fn is_packages_own(&self) -> bool {
        let kind = self.kind();
        !WIDGETS.contains(&kind) && !kind.starts_with("COMFY_") && !self.options()["default"].is_null()
    }

    /// The editor changes it after each run.
    pub fn is_controlled(&self) -> bool {
        let control = &self.options()["control_after_generate"];
        *control == true || control.is_string()
    }

    pub fn has_choices(&self) -> bool {
        self.kind() == "COMBO"
    }

    /// It has a button for a file.
    pub fn is_upload(&self) -> bool {
        self.uploads().next().is_some()
    }

    /// That file is sound.
    pub fn is_audio(&self) -> bool {
        self.uploads().any(|kind| kind == "audio_upload")
    }

    fn uploads(&self) -> impl Iterator<Item = &String> {
        let options = self.options().as_object().into_iter().flatten();
        options.filter(|(name, value)| name.ends_with("_upload") && **value == true).map(|(name, _)| name)
    }

    fn choices(&self) -> &[Value] {
        let choices = self.declaration[0].as_array().or_else(|| self.options()["options"].as_array());
        choices.map_or(&[], Vec::as_slice)
    }

    /// What the editor shows where a file has no value.
    pub fn default(&self) -> Value {
        match &self.options()["default"] {
            Value::Null => {}
            default => return default.clone(),
        }
        match self.kind() {
            "COMBO" => self.choices().first().cloned().unwrap_or_else(|| "".into()),
            "COMFY_DYNAMICCOMBO_V3" => {
                self.choices().first().map_or(Value::Null, |first| first["key"].clone())
            }
            "INT" => 0.into(),
            "FLOAT" => 0.0.into(),
            "BOOLEAN" => false.into(),
            "STRING" => "".into(),
            _ => Value::Null,
        }
    }

    /// Whether a value is of its kind, be it in range and on the list or not.
    pub fn fits(&self, value: &Value) -> bool {
        let is_whole = |value: &Value| value.as_f64().is_some_and(|number| number.fract() == 0.0);
        match self.kind() {
            "INT" => is_whole(value),
            "FLOAT" => value.is_number(),
            "BOOLEAN" => match value {
                Value::Bool(_) => true,
                Value::String(text) => matches!(text.to_lowercase().as_str(), "true" | "false"),
                number => is_whole(number) && matches!(number.as_f64(), Some(0.0 | 1.0)),
            },
            "STRING" => value.is_string(),
            "COMBO" => {
                let choices = self.choices();
                let alike = |choice: &Value| {
                    choice == value
                        || choice.is_string() && value.is_string()
                        || choice.is_number() && value.is_number()
                };
                choices.iter().any(alike) || choices.is_empty() && !value.is_object()
            }
            "COMFY_DYNAMICCOMBO_V3" => self.choices().iter().any(|choice| choice["key"] == *value),
            _ => true,
        }
    }

    /// The inputs that a choice brings with it, in no particular order.
    pub fn parts_of(&self, value: &Value) -> Vec<Declared> {
        if self.kind() != "COMFY_DYNAMICCOMBO_V3" {
            return Vec::new();
        }
        let chosen = self.choices().iter().find(|choice| choice["key"] == *value);
        let of = |kind: &str| -> Map<String, Value> {
            chosen.and_then(|chosen| chosen["inputs"][kind].as_object()).cloned().unwrap_or_default()
        };
        let all = ["required", "optional"].into_iter().flat_map(of);
        all.map(|(name, declaration)| Self::new(&name, &declaration)).collect()
    }
}
