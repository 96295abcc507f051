//! What is asked: held-out questions about one kind of medium each, and every medium once, so that no cache answers.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use msao_core::chat::{Content, Message, Modality, Part};
use msao_core::inputs::ModelInputs;
use msao_datasets::{Item, Mix, Set, Source};
use msao_media::Limits;
use msao_processor::Processor;

/// Questions of a kind that count.
const COUNTED: usize = 16;
/// Questions of a kind that are asked before them.
const WARM: usize = 2;
/// Questions of a kind whose answers are long.
const LONG: usize = 4;

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Text,
    Picture,
    Clip,
    Sound,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Text, Kind::Picture, Kind::Clip, Kind::Sound];

    /// None: words alone.
    pub fn modality(self) -> Option<Modality> {
        match self {
            Kind::Text => None,
            Kind::Picture => Some(Modality::Image),
            Kind::Clip => Some(Modality::Video),
            Kind::Sound => Some(Modality::Audio),
        }
    }

    pub fn name(self) -> &'static str {
        self.modality().map_or("text", Modality::name)
    }
}

/// Questions of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub kind: Kind,
    /// Asked first. They do not count.
    pub warm: Vec<Item>,
    /// With short answers.
    pub short: Vec<Item>,
    /// With long ones; words alone have none.
    pub long: Vec<Item>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Questions {
    pub groups: Vec<Group>,
}

impl Questions {
    /// Reads a folder as `models/heldout` is.
    ///
    /// # Errors
    /// It cannot be read, or has too few questions of a kind.
    pub fn read(folder: &Path) -> Result<Questions> {
        let kind: msao_datasets::Kind = "vqav2:demo".parse().map_err(anyhow::Error::msg)?;
        Questions::of(Set::load(folder, &kind)?.items).with_context(|| folder.display().to_string())
    }

    fn of(items: Vec<Item>) -> Result<Questions> {
        let mut groups: Vec<Group> = Kind::ALL
            .map(|kind| Group {
                kind,
                warm: Vec::new(),
                short: Vec::new(),
                long: Vec::new(),
            })
            .into();
        let mut seen = HashSet::new();
        for item in items {
            let mix = Mix::of(item.media.iter().map(|(modality, _)| *modality));
            let mut all = groups.iter_mut();
            let Some(group) = all.find(|it| Mix::of(it.kind.modality()) == mix) else {
                continue;
            };
            let (list, most) = match item.long {
                true => (&mut group.long, LONG),
                false if group.warm.len() < WARM => (&mut group.warm, WARM),
                false => (&mut group.short, COUNTED),
            };
            if item.media.len() > 1 || list.len() >= most {
                continue;
            }
            // Of a set that has them in its own file each is taken for another.
            let name = match item.media.first() {
                Some((_, Source::File(path))) => path.display().to_string(),
                _ => format!("{}", item.id),
            };
            if seen.insert(name) {
                list.push(item);
            }
        }
        for Group {
            kind, warm, short, ..
        } in &groups
        {
            ensure!(
                warm.len() == WARM && !short.is_empty(),
                "has too few questions about {} alone",
                kind.name()
            );
        }
        ensure!(
            groups.iter().any(|group| !group.long.is_empty()),
            "has no questions with long answers"
        );
        Ok(Questions { groups })
    }

    /// So many are asked of a node.
    pub fn count(&self) -> usize {
        let each = self.groups.iter();
        each.map(|it| it.warm.len() + it.short.len() + it.long.len())
            .sum()
    }
}

/// What a model reads of a question.
///
/// # Errors
/// A medium cannot be read, or the model cannot be asked about it.
pub(crate) fn prompt(
    processor: &Processor,
    item: &Item,
    limits: &Limits,
) -> Result<Arc<ModelInputs>> {
    let about = || format!("question {}", item.id);
    let mut media = Vec::with_capacity(item.media.len());
    let mut parts = Vec::with_capacity(item.media.len() + 1);
    for (modality, source) in &item.media {
        let bytes = source.bytes().with_context(about)?;
        let decoded = processor.decode(*modality, &bytes, limits);
        media.push(decoded.with_context(about)?);
        let name = String::new();
        parts.push(match modality {
            Modality::Video => Part::Video { video: name },
            Modality::Audio => Part::Audio { audio: name },
            Modality::Image | Modality::Text => Part::Image { image: name },
        });
    }
    let text = item.text.clone();
    parts.push(Part::Text { text });
    let message = Message {
        role: "user".to_owned(),
        content: Content::Parts(parts),
    };
    let prepared = processor.prepare(&[message], &media).with_context(about)?;
    Ok(Arc::new(prepared.inputs))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/heldout")
    }

    #[test]
    fn every_kind_is_asked_about_and_no_medium_twice() {
        let questions = Questions::read(&folder()).unwrap();
        let mut seen = HashSet::new();
        for group in &questions.groups {
            assert_eq!(group.short.len(), COUNTED, "{:?}", group.kind);
            for item in [&group.warm, &group.short, &group.long]
                .into_iter()
                .flatten()
            {
                assert_eq!(
                    item.media.first().map(|(modality, _)| *modality),
                    group.kind.modality()
                );
                if let Some((_, Source::File(path))) = item.media.first() {
                    assert!(seen.insert(path.clone()), "{path:?}");
                }
            }
            assert!(group.long.iter().all(|item| item.long));
        }
        assert!(questions.count() > 4 * (COUNTED + WARM));
    }

    #[test]
    fn too_few_are_refused() {
        let error = Questions::of(Vec::new()).unwrap_err().to_string();
        assert!(error.contains("too few questions about text"), "{error}");
    }
}
