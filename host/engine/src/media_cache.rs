//! Features of media that were encoded before.

use std::collections::HashMap;

use msao_core::chat::Modality;
use msao_core::inputs::ModelInputs;
use sha2::{Digest, Sha256};
use tch::Tensor;

use crate::config::ModelConfig;
use crate::error::Result;
use crate::near::NearDuplicates;
use crate::nn::bytes;
use crate::prompt::{Item, items, mel_values, patch_values};
use crate::repeats::Repeats;

/// SHA-256 over what an encoder reads: modality, extent and the preprocessed values, so that other content and other
/// preprocessing give other keys. A cache belongs to one model, which need not be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MediaKey(pub [u8; 32]);

impl MediaKey {
    pub fn of(inputs: &ModelInputs, item: &Item) -> Result<Self> {
        let mut hash = Sha256::new();
        hash.update(item.modality.name());
        let mut feed = |values: &[f32], extent: [usize; 3]| {
            for n in extent {
                hash.update((n as u64).to_le_bytes());
            }
            // Through a small buffer: hashing value by value would spend its time on calls.
            let mut buffer = [0u8; 4096];
            for chunk in values.chunks(buffer.len() / 4) {
                for (slot, value) in buffer.chunks_exact_mut(4).zip(chunk) {
                    slot.copy_from_slice(&value.to_le_bytes());
                }
                hash.update(buffer.get(..4 * chunk.len()).unwrap_or_default());
            }
        };
        match item.modality {
            Modality::Text | Modality::Image | Modality::Video => {
                let (values, grid) = patch_values(inputs, item)?;
                feed(values, [grid.t, grid.h, grid.w]);
            }
            Modality::Audio => {
                let mels = mel_values(inputs, item)?;
                let mut extent = [0; 3];
                for (to, from) in extent.iter_mut().zip(&mels.features.shape) {
                    *to = *from;
                }
                feed(&mels.features.data, extent);
            }
        }
        Ok(MediaKey(hash.finalize().into()))
    }

    /// The key of the same medium with near duplicates passed over: its features are those of what was encoded.
    fn merged(self, repeats: &Repeats) -> Self {
        let mut hash = Sha256::new();
        hash.update("near");
        hash.update(self.0);
        for place in repeats.source() {
            hash.update((*place as u64).to_le_bytes());
        }
        MediaKey(hash.finalize().into())
    }
}

/// The keys of a prompt's media, item by item, and what of them is encoded. Hashing and comparing take milliseconds for a
/// large picture or a clip and need no tensor, so they may be done on any thread.
#[derive(Clone, Debug)]
pub struct MediaKeys {
    pub(crate) keys: Vec<MediaKey>,
    pub(crate) repeats: Vec<Option<Repeats>>,
}

impl MediaKeys {
    /// Hashes what the encoders will read. `near`: what a runner passes over besides equal temporal patches, as its
    /// options say.
    ///
    /// # Errors
    /// As [`items`]: the prompt and its media do not match.
    pub fn of(
        config: &ModelConfig,
        inputs: &ModelInputs,
        near: Option<&NearDuplicates>,
    ) -> Result<Self> {
        let mut hashed = MediaKeys {
            keys: Vec::new(),
            repeats: Vec::new(),
        };
        for item in items(config, inputs)? {
            let repeats = Repeats::of(config, inputs, &item, near)?;
            let key = MediaKey::of(inputs, &item)?;
            hashed.keys.push(match &repeats {
                Some(repeats) if repeats.merges_near() => key.merged(repeats),
                _ => key,
            });
            hashed.repeats.push(repeats);
        }
        Ok(hashed)
    }
}

/// Encoded media, the least recently used dropped first.
#[derive(Debug)]
pub(crate) struct MediaCache {
    limit: u64,
    held: u64,
    clock: u64,
    entries: HashMap<MediaKey, (Tensor, u64)>,
}

impl MediaCache {
    /// Holds at most `limit` bytes of features; 0 switches it off.
    pub fn new(limit: u64) -> Self {
        MediaCache {
            limit,
            held: 0,
            clock: 0,
            entries: HashMap::new(),
        }
    }

    /// Whether anything is kept at all.
    pub fn keeps_any(&self) -> bool {
        self.limit > 0
    }

    /// Features `[tokens, hidden]`, not to be written to.
    pub fn get(&mut self, key: Option<&MediaKey>) -> Option<Tensor> {
        self.clock += 1;
        let (features, used) = self.entries.get_mut(key?)?;
        *used = self.clock;
        Some(features.shallow_clone())
    }

    /// Keeps features. What is larger than the whole cache is not kept.
    pub fn put(&mut self, key: Option<MediaKey>, features: &Tensor) {
        let (Some(key), size) = (key, bytes(features)) else {
            return;
        };
        if size > self.limit || self.entries.contains_key(&key) {
            return;
        }
        while self.held + size > self.limit {
            let oldest = self.entries.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                break;
            };
            if let Some((features, _)) = self.entries.remove(&oldest) {
                self.held -= bytes(&features);
            }
        }
        self.clock += 1;
        self.held += size;
        self.entries
            .insert(key, (features.shallow_clone(), self.clock));
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.held
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.held = 0;
    }
}

#[cfg(test)]
mod tests {
    use msao_golden::{cases_of, root};
    use tch::{Device, Kind};

    use super::*;

    fn key(number: u8) -> MediaKey {
        MediaKey([number; 32])
    }

    /// Features of so many bytes.
    fn features(bytes: i64) -> Tensor {
        Tensor::zeros([bytes / 4, 1], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn a_key_tells_what_was_passed_over_for_being_nearly_the_same() {
        let name = "qwen25-vl-windows";
        let config = ModelConfig::load(&root().join("models").join(name)).unwrap();
        let mut cases = cases_of(name).into_iter();
        let clip = cases.find(|case| case.prepared.inputs.videos.is_some());
        let moving = clip.unwrap().prepared.inputs;
        let near = NearDuplicates::default();
        let keys = |inputs: &ModelInputs| {
            [None, Some(&near)].map(|near| MediaKeys::of(&config, inputs, near).unwrap().keys)
        };
        // Each temporal patch is the first one, and so much more for each before it.
        let still = |by: f32| {
            let mut inputs = moving.clone();
            let videos = inputs.videos.as_mut().unwrap();
            let size = videos.grids[0].h * videos.grids[0].w * videos.values.shape[1];
            let data = &mut videos.values.data;
            for place in size..data.len() {
                data[place] = data[place - size] + by;
            }
            inputs
        };
        let [exact, lenient] = keys(&moving);
        assert_eq!(exact, lenient, "nothing is passed over");
        let [exact, lenient] = keys(&still(0.0));
        assert_eq!(exact, lenient, "the features are the same");
        let [exact, lenient] = keys(&still(1e-3));
        assert_ne!(exact, lenient);
        assert_ne!(exact, keys(&still(0.0))[0]);
    }

    #[test]
    fn the_least_recently_used_media_give_way_to_the_limit() {
        // A positive number puts that medium with so many bytes, one without bytes asks for it.
        let put = |number: u8, bytes: i64| (number, Some(bytes));
        let get = |number: u8| (number, None);
        for (limit, steps, there, held) in [
            (100, vec![put(1, 40), put(2, 40)], vec![1, 2], 80),
            (100, vec![put(1, 40), put(2, 60)], vec![1, 2], 100),
            (
                100,
                vec![put(1, 40), put(2, 40), put(3, 40)],
                vec![2, 3],
                80,
            ),
            (
                100,
                vec![put(1, 40), put(2, 40), get(1), put(3, 40)],
                vec![1, 3],
                80,
            ),
            // As many as it takes.
            (
                100,
                vec![put(1, 20), put(2, 40), put(3, 40), put(4, 80)],
                vec![4],
                80,
            ),
            // What is larger than everything costs nobody their place.
            (100, vec![put(1, 40), put(2, 104)], vec![1], 40),
            // The same again is held once.
            (100, vec![put(1, 40), put(1, 40)], vec![1], 40),
            (0, vec![put(1, 4)], vec![], 0),
        ] {
            let mut cache = MediaCache::new(limit);
            for (number, bytes) in &steps {
                match bytes {
                    Some(bytes) => cache.put(Some(key(*number)), &features(*bytes)),
                    None => assert!(cache.get(Some(&key(*number))).is_some()),
                }
                assert!(cache.bytes() <= limit);
            }
            assert_eq!(cache.bytes(), held, "{steps:?}");
            let kept: Vec<u8> = (1..5)
                .filter(|number| cache.get(Some(&key(*number))).is_some())
                .collect();
            assert_eq!(kept, there, "{steps:?}");
            cache.clear();
            assert_eq!(cache.bytes(), 0);
            assert!(cache.get(Some(&key(1))).is_none());
        }
    }
}
