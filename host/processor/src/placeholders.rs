//! From one placeholder a medium to as many as the medium has tokens.
//!
//! Placeholders are special tokens, so repeating the id gives what repeating the text before tokenising gives.

use std::ops::Range;
use std::path::Path;

use msao_core::chat::Modality;
use serde_json::Value;

use crate::error::ProcessorError;
use crate::family::{Family, model_lookup};
use crate::tokenizer::Tokenizer;

/// A placeholder as one model has it.
#[derive(Clone, Debug)]
pub(crate) struct LoadedPlaceholder {
    pub modality: Modality,
    pub token: String,
    pub id: u32,
}

/// Where one medium is in a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaSpan {
    /// What it is.
    pub modality: Modality,
    /// Its tokens within `input_ids`.
    pub tokens: Range<usize>,
}

/// The placeholders of the family that this model's vocabulary has, checked against `config.json`.
pub(crate) fn load(
    family: Family,
    tokenizer: &Tokenizer,
    config: &Value,
    config_path: &Path,
) -> Result<Vec<LoadedPlaceholder>, ProcessorError> {
    let mut out = Vec::new();
    for known in family.rules().placeholders() {
        let token = tokenizer
            .special_token(known.tokenizer_key)
            .unwrap_or(known.token)
            .to_owned();
        let Some(id) = tokenizer.token_id(&token) else {
            continue;
        };
        for key in known.id_keys {
            let Some(value) = model_lookup(family, config, key) else {
                continue;
            };
            if value.as_u64() != Some(u64::from(id)) {
                let message = format!("is {value}, and the tokenizer gives `{token}` the id {id}");
                return Err(ProcessorError::config(config_path, *key, message));
            }
            break;
        }
        if !tokenizer.is_added(id) {
            let message =
                format!("`{token}` (id {id}) must be one of the tokenizer's added tokens");
            return Err(ProcessorError::config(
                config_path,
                known.id_keys.join(" or "),
                message,
            ));
        }
        out.push(LoadedPlaceholder {
            modality: known.modality,
            token,
            id,
        });
    }
    Ok(out)
}

/// Refuses a prompt whose placeholders are not one for each medium.
pub(crate) fn check_counts(
    ids: &[u32],
    known: &[LoadedPlaceholder],
    media: &[Modality],
) -> Result<(), ProcessorError> {
    for placeholder in known {
        let found = ids.iter().filter(|&&id| id == placeholder.id).count();
        let given = media
            .iter()
            .filter(|&&modality| modality == placeholder.modality)
            .count();
        if found != given {
            let (modality, token) = (placeholder.modality, placeholder.token.clone());
            return Err(ProcessorError::Placeholders {
                modality,
                token,
                found,
                given,
            });
        }
    }
    Ok(())
}

/// Repeats each placeholder as often as its medium has tokens; `tokens` has one count for each medium.
///
/// The counts of placeholders have been checked. The spans are in the order of the media.
pub(crate) fn expand(
    ids: &[u32],
    known: &[LoadedPlaceholder],
    media: &[Modality],
    tokens: &[usize],
) -> (Vec<u32>, Vec<MediaSpan>) {
    // For each kind, the media of that kind in their order.
    let mut waiting: Vec<_> = known
        .iter()
        .map(|placeholder| {
            let items = media.iter().zip(tokens).enumerate();
            let items: Vec<_> = items
                .filter(|&(_, (&modality, _))| modality == placeholder.modality)
                .collect();
            (placeholder.id, items.into_iter())
        })
        .collect();
    let mut out = Vec::with_capacity(ids.len() + tokens.iter().sum::<usize>());
    let mut spans = Vec::with_capacity(media.len());
    for &id in ids {
        let next = waiting
            .iter_mut()
            .find(|(of, _)| *of == id)
            .and_then(|(_, items)| items.next());
        match next {
            Some((item, (&modality, &count))) => {
                let start = out.len();
                out.resize(start + count, id);
                spans.push((
                    item,
                    MediaSpan {
                        modality,
                        tokens: start..start + count,
                    },
                ));
            }
            None => out.push(id),
        }
    }
    spans.sort_by_key(|&(item, _)| item);
    (out, spans.into_iter().map(|(_, span)| span).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<LoadedPlaceholder> {
        [(Modality::Image, 90), (Modality::Video, 91)]
            .map(|(modality, id)| LoadedPlaceholder {
                modality,
                token: format!("<{id}>"),
                id,
            })
            .to_vec()
    }

    #[test]
    fn each_kind_is_filled_in_its_own_order() {
        let media = [Modality::Image, Modality::Video, Modality::Image];
        let (ids, spans) = expand(&[1, 91, 2, 90, 90, 3], &known(), &media, &[2, 3, 1]);
        assert_eq!(ids, [1, 91, 91, 91, 2, 90, 90, 90, 3]);
        let ranges: Vec<_> = spans
            .iter()
            .map(|span| (span.modality, span.tokens.clone()))
            .collect();
        assert_eq!(
            ranges,
            [
                (Modality::Image, 5..7),
                (Modality::Video, 1..4),
                (Modality::Image, 7..8)
            ]
        );
    }

    #[test]
    fn a_smuggled_placeholder_is_refused() {
        let error = check_counts(&[90, 90], &known(), &[Modality::Image])
            .unwrap_err()
            .to_string();
        assert!(error.contains("has 2 times `<90>` and 1 Image"), "{error}");
        assert!(check_counts(&[91, 90], &known(), &[Modality::Image, Modality::Video]).is_ok());
    }
}
