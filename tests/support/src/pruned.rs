//! Prompts that lose media tokens: what `tests/golden/pruned` holds.

use std::ops::Range;

use serde_json::Value;

use crate::{Tensors, json, root};

/// One case whose prompt loses media tokens, and what the probe sees of it, as the reference computed them.
pub struct Pruned {
    pub model: String,
    /// `model/case`, as in [`crate::Case::name`].
    pub name: String,
    /// The first layers, which see every token where the others do not.
    pub probe_layers: usize,
    pub seed: u64,
    pub content_free: Vec<u32>,
    /// Where the media lie in the prompt.
    pub items: Vec<Range<usize>>,
    /// Of each row of logits every so many-th is stored.
    pub column_step: usize,
    pub patterns: Vec<Pattern>,
    /// One an item.
    pub reports: Vec<Seen>,
}

/// One way of dropping tokens.
pub struct Pattern {
    pub name: String,
    /// For each item the tokens kept; `None` keeps all.
    pub keep: Vec<Option<Vec<u32>>>,
    /// Tokens read behind the prompt.
    pub tokens: Vec<u32>,
    /// Logits after the prompt and after each of the tokens, where no layer sees what is dropped.
    pub before: Vec<f32>,
    /// The same where the probe's layers see everything.
    pub behind: Vec<f32>,
}

/// What the probe sees of one item: values of [`msao_core::probe::ItemReport`].
pub struct Seen {
    pub saliency: Vec<f32>,
    pub features: Vec<f32>,
    pub relevance: Vec<f32>,
    pub nothing: Vec<f32>,
}

fn numbers(list: &Value) -> Vec<u32> {
    let list = list.as_array().unwrap().iter();
    list.map(|number| number.as_u64().unwrap() as u32).collect()
}

/// The pruned cases, by name.
pub fn pruned() -> Vec<Pruned> {
    let mut all = Vec::new();
    for model in std::fs::read_dir(root().join("pruned")).unwrap() {
        for file in std::fs::read_dir(model.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let relative = path.strip_prefix(root()).unwrap().with_extension("");
                all.push(pruned_case(relative.to_str().unwrap()));
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn pruned_case(path: &str) -> Pruned {
    let info = json(&format!("{path}.json"));
    let tensors = Tensors::read(&format!("{path}.safetensors"));
    let values = |name: String| tensors.f32(&name).1;
    let model = info["model"].as_str().unwrap().to_owned();
    let items: Vec<Range<usize>> = info["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| match numbers(item).as_slice() {
            &[start, end] => start as usize..end as usize,
            other => panic!("{path}: an item from {other:?}"),
        })
        .collect();
    let patterns = info["patterns"].as_object().unwrap().iter();
    let kept = |list: &Value| (!list.is_null()).then(|| numbers(list));
    Pruned {
        name: format!("{model}/{}", info["case"].as_str().unwrap()),
        model,
        probe_layers: info["probe_layers"].as_u64().unwrap() as usize,
        seed: info["seed"].as_u64().unwrap(),
        content_free: numbers(&info["content_free"]),
        column_step: info["column_step"].as_u64().unwrap() as usize,
        patterns: patterns
            .map(|(name, pattern)| Pattern {
                name: name.clone(),
                keep: pattern["keep"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(kept)
                    .collect(),
                tokens: numbers(&pattern["tokens"]),
                before: values(format!("{name}.before")),
                behind: values(format!("{name}.behind")),
            })
            .collect(),
        reports: (0..items.len())
            .map(|item| Seen {
                saliency: values(format!("saliency.{item}")),
                features: values(format!("features.{item}")),
                relevance: values(format!("relevance.{item}")),
                nothing: values(format!("nothing.{item}")),
            })
            .collect(),
        items,
    }
}
