//! What differs between model families. One more family is one more module and one line in [`FAMILIES`].

mod omni;
mod qwen_vl;

use std::path::Path;

use msao_core::chat::Modality;
use serde_json::Value;

use crate::config::PixelBounds;
use crate::error::ProcessorError;
use crate::files::lookup;

/// A family of models that share one way of preprocessing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Qwen2-VL.
    Qwen2Vl,
    /// Qwen2.5-VL.
    Qwen2_5Vl,
    /// Qwen2.5-Omni, its thinker: text out; the talker is not run.
    Qwen2_5Omni,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.rules().name())
    }
}

impl Family {
    pub(crate) fn rules(self) -> &'static dyn Rules {
        match self {
            Family::Qwen2Vl => &qwen_vl::Qwen2Vl,
            Family::Qwen2_5Vl => &qwen_vl::Qwen2_5Vl,
            Family::Qwen2_5Omni => &omni::Omni,
        }
    }
}

/// Every family that is known here.
const FAMILIES: [Family; 3] = [Family::Qwen2Vl, Family::Qwen2_5Vl, Family::Qwen2_5Omni];

/// How a medium is announced in the prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placeholder {
    pub modality: Modality,
    /// The key of `tokenizer_config.json` that can name another token.
    pub tokenizer_key: &'static str,
    /// The token if the key is missing.
    pub token: &'static str,
    /// Keys of the thinker's (or the whole) configuration that hold the id; the first that is there counts.
    pub id_keys: &'static [&'static str],
}

/// The rules of one family. Sources: `processing_<family>.py` of Hugging Face transformers 5.17.
pub(crate) trait Rules: Sync {
    /// The family's name for messages.
    fn name(&self) -> &'static str;

    /// The values of `model_type` in `config.json` that mean this family.
    fn model_types(&self) -> &'static [&'static str];

    /// The key under which `config.json` keeps the part that sees and speaks, tried in order; "" is the top level.
    fn model_sections(&self) -> &'static [&'static str] {
        &[""]
    }

    /// The media that the family takes.
    fn placeholders(&self) -> &'static [Placeholder];

    /// Bounds that the family's processor uses for frames instead of those in the files.
    fn frame_bounds(&self) -> Option<PixelBounds> {
        None
    }

    /// Seconds that one temporal patch of a clip spans, if the family's positions depend on it.
    ///
    /// `sampled_fps` is the rate of the frames that were kept, `asked_fps` what a caller asked to be sampled.
    fn seconds_per_grid(
        &self,
        temporal_patch: usize,
        sampled_fps: f64,
        asked_fps: Option<f64>,
    ) -> Option<f32>;

    /// The name of those seconds among the model's inputs.
    fn seconds_name(&self) -> &'static str {
        "second_per_grid_ts"
    }
}

/// The family that a `config.json` names.
pub(crate) fn from_config(config: &Value, path: &Path) -> Result<Family, ProcessorError> {
    let found = lookup(config, "model_type")
        .ok_or_else(|| ProcessorError::config(path, "model_type", "is missing"))?;
    let found = found
        .as_str()
        .ok_or_else(|| ProcessorError::config(path, "model_type", "must be a string"))?;
    FAMILIES
        .into_iter()
        .find(|family| family.rules().model_types().contains(&found))
        .ok_or_else(|| {
            let known: Vec<_> = FAMILIES
                .iter()
                .flat_map(|family| family.rules().model_types())
                .copied()
                .collect();
            ProcessorError::UnknownFamily {
                path: path.to_owned(),
                found: found.to_owned(),
                known: known.join(", "),
            }
        })
}

/// Looks a dotted key up in the family's section of `config.json`, then at its top level.
pub(crate) fn model_lookup<'a>(
    family: Family,
    config: &'a Value,
    dotted: &str,
) -> Option<&'a Value> {
    let sections = family.rules().model_sections().iter();
    sections
        .filter_map(|section| {
            if section.is_empty() {
                Some(config)
            } else {
                lookup(config, section)
            }
        })
        .find_map(|section| lookup(section, dotted))
}
