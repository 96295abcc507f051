//! What a twin's folder says about itself: `twin.json`, and a model card in each directory.

use std::path::Path;

use super::{Twin, cannot_write, tokens};
use crate::error::{EngineError, Result};

/// Writes `twin.json` and the three READMEs.
pub(super) fn write(out: &Path, twin: &Twin) -> Result<()> {
    let value = serde_json::to_value(twin).map_err(|e| EngineError::request(e.to_string()))?;
    tokens::write_json(&out.join("twin.json"), &value)?;
    for half in ["target", "draft"] {
        put(&out.join(half).join("README.md"), &card(twin, half))?;
    }
    put(&out.join("README.md"), &readme(twin))
}

fn put(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| cannot_write(path, e))
}

fn readme(twin: &Twin) -> String {
    format!(
        "# A twin of shape {}\n\n{}\n\n{}\n\n`target` and `draft` are Hugging Face directories of Qwen2.5-Omni thinkers; \
         `twin.json` has the figures. Made by\n\n    {}\n",
        twin.shape,
        claim(),
        agreement(twin),
        command(twin)
    )
}

fn card(twin: &Twin, half: &str) -> String {
    let (layers, parameters) = match half {
        "target" => (twin.target_layers, twin.target_parameters),
        _ => (twin.draft_layers, twin.draft_parameters),
    };
    let which = match half {
        "target" => "The target of a pair",
        _ => {
            "The draft of a pair: its target's own embedding, towers, first layers, last norm and head"
        }
    };
    format!(
        "---\nlibrary_name: transformers\npipeline_tag: any-to-any\n---\n# A twin's {half}, shape {}\n\n{}\n\n{which}. \
         {layers} layers, {parameters} parameters in {}, random from seed {}.\n\n{}\n\nMade by\n\n    {}\n",
        twin.shape,
        claim(),
        twin.dtype,
        twin.seed,
        agreement(twin),
        command(twin)
    )
}

fn claim() -> &'static str {
    "**Random weights.** It computes what a trained model of its shape computes, at the same cost, and its text means \
     nothing. A twin claims speed only, at retention 1: nothing can be said with it about the quality of answers.\n\
     Special tokens are never chosen, so an answer ends only at its limit of tokens."
}

fn agreement(twin: &Twin) -> String {
    let how = match &twin.measured {
        Some(measured) => format!(
            "on {} tokens of the target's greedy answers",
            measured.tokens
        ),
        None => format!("on {} random tokens", twin.estimate.positions),
    };
    format!(
        "Draft and target choose the same token in {:.1} % of cases ({how}; asked for: {:.1} %).",
        100.0 * twin.reached,
        100.0 * twin.asked
    )
}

fn command(twin: &Twin) -> String {
    let Twin {
        shape,
        draft_layers,
        asked,
        seed,
        dtype,
        ..
    } = twin;
    format!(
        "msao model twin --shape {shape} --draft-layers {draft_layers} --agreement {asked} --seed {seed} --dtype {dtype} \
         --out DIR"
    )
}
