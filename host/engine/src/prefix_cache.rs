//! Keys and values of prompts that were read before, for prompts that begin alike.

use msao_core::inputs::ModelInputs;
use sha2::{Digest, Sha256};

use crate::media_cache::{MediaKey, MediaKeys};
use crate::pool::{Pool, Table};
use crate::prompt::Prompt;

/// A prompt's fingerprint: for each kept token a digest of everything up to it, so that two prompts share exactly the
/// tokens up to their last equal digest.
///
/// Into a token's digest go its id, its place in time, height and width (which hold the extent and the seconds of clips,
/// and what was dropped before it), and for a medium's token the medium's content and the token's number in it.
#[derive(Debug)]
pub(crate) struct Chain(Vec<[u8; 16]>);

impl Chain {
    /// `keys`: of the prompt's media, item by item.
    pub fn new(inputs: &ModelInputs, prompt: &Prompt, keys: &MediaKeys) -> Self {
        let media: Vec<(std::ops::Range<usize>, MediaKey)> = prompt
            .items
            .iter()
            .zip(&keys.0)
            .map(|(item, key)| (item.places.clone(), *key))
            .collect();
        let mut links = Vec::with_capacity(prompt.keep.len());
        let mut last = [0u8; 16];
        let mut items = media.iter().peekable();
        for &place in &prompt.keep {
            while items.next_if(|(places, _)| places.end <= place).is_some() {}
            let mut hash = Sha256::new();
            hash.update(last);
            let id = inputs.input_ids.get(place).copied().unwrap_or(0);
            hash.update(id.to_le_bytes());
            for axis in &prompt.positions.axes {
                hash.update(axis.get(place).copied().unwrap_or(0).to_le_bytes());
            }
            if let Some((places, key)) = items.peek()
                && places.contains(&place)
            {
                hash.update(key.0);
                hash.update(((place - places.start) as u64).to_le_bytes());
            }
            let digest: [u8; 32] = hash.finalize().into();
            for (to, from) in last.iter_mut().zip(digest) {
                *to = from;
            }
            links.push(last);
        }
        Chain(links)
    }

    /// Tokens that both begin with.
    fn common(&self, other: &Chain) -> usize {
        // Equal links have equal prefixes: the first unequal one can be searched for by halving.
        let most = self.0.len().min(other.0.len());
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if self.0.get(middle - 1) == other.0.get(middle - 1) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low
    }
}

#[derive(Debug)]
struct Entry {
    chain: Chain,
    tables: [Table; 2],
    used: u64,
}

/// Prompts read before, the least recently used dropped first.
#[derive(Debug)]
pub(crate) struct PrefixCache {
    limit: usize,
    clock: u64,
    entries: Vec<Entry>,
}

impl PrefixCache {
    /// Keeps at most `limit` prompts; their blocks are also given up when somebody needs them.
    pub fn new(limit: usize) -> Self {
        PrefixCache {
            limit,
            clock: 0,
            entries: Vec::new(),
        }
    }

    pub fn keeps_any(&self) -> bool {
        self.limit > 0
    }

    /// Fills empty tables with the longest prefix that was read before and returns its tokens: at most all but the
    /// last, whose logits are wanted.
    pub fn find(&mut self, chain: &Chain, pool: &mut Pool, tables: &mut [Table; 2]) -> usize {
        let best = self
            .entries
            .iter_mut()
            .map(|entry| (chain.common(&entry.chain), entry))
            .max_by_key(|(common, _)| *common);
        let Some((common, entry)) = best else {
            return 0;
        };
        let common = common.min(chain.0.len().saturating_sub(1));
        if common == 0 {
            return 0;
        }
        self.clock += 1;
        entry.used = self.clock;
        let shared = pool.regions.iter_mut().zip(&entry.tables).zip(tables);
        for ((region, kept), table) in shared {
            *table = region.share(kept, common);
        }
        common
    }

    /// Keeps a prompt that has just been read.
    pub fn put(&mut self, chain: Chain, pool: &mut Pool, tables: &[Table; 2]) {
        self.clock += 1;
        let used = self.clock;
        // A prompt that begins with a whole kept one takes its place.
        let covered = |entry: &Entry| entry.chain.common(&chain) == entry.chain.0.len();
        while let Some(index) = self.entries.iter().position(covered) {
            self.remove(index, pool);
        }
        while self.entries.len() >= self.limit && self.evict(pool) {}
        let tables = pool.keep(tables);
        self.entries.push(Entry {
            chain,
            tables,
            used,
        });
    }

    /// Drops the least recently used prompt; false if there is none.
    pub fn evict(&mut self, pool: &mut Pool) -> bool {
        let oldest = self
            .entries
            .iter()
            .enumerate()
            .min_by_key(|(_, entry)| entry.used);
        match oldest.map(|(index, _)| index) {
            Some(index) => {
                self.remove(index, pool);
                true
            }
            None => false,
        }
    }

    fn remove(&mut self, index: usize, pool: &mut Pool) {
        let mut entry = self.entries.swap_remove(index);
        pool.release(&mut entry.tables);
    }

    /// The tables of all kept prompts.
    pub fn tables(&self) -> impl Iterator<Item = &[Table; 2]> + Clone {
        self.entries.iter().map(|entry| &entry.tables)
    }
}
