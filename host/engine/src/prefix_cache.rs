//! Keys and values of prompts that were read before, for prompts that begin alike.

use msao_core::inputs::ModelInputs;
use sha2::{Digest, Sha256};

use crate::media_cache::{MediaKey, MediaKeys};
use crate::pool::{BLOCK, Pool, Table};
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
            .zip(&keys.keys)
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

    /// Tokens of the prompt that are read.
    pub fn tokens(&self) -> usize {
        self.0.len()
    }

    /// Tokens that both begin with.
    pub fn common(&self, other: &Chain) -> usize {
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
    edition: u64,
    entries: Vec<Entry>,
}

impl PrefixCache {
    /// Keeps at most `limit` prompts; their blocks are also given up when somebody needs them.
    pub fn new(limit: usize) -> Self {
        PrefixCache {
            limit,
            clock: 0,
            edition: 0,
            entries: Vec::new(),
        }
    }

    pub fn keeps_any(&self) -> bool {
        self.limit > 0
    }

    /// Moves on with each prompt that is kept.
    pub fn edition(&self) -> u64 {
        self.edition
    }

    /// Fills empty tables with the longest prefix that was read before and returns its tokens: at most all but the
    /// last, whose logits are wanted.
    ///
    /// The prompt that has it counts as used if the prefix is its own by more than a block. A beginning that several have,
    /// such as a template's header, says of none of them that it will be wanted again, and lives in whoever comes last.
    pub fn find(&mut self, chain: &Chain, pool: &mut Pool, tables: &mut [Table; 2]) -> usize {
        let mut best: Option<(usize, &mut Entry)> = None;
        let mut shared_by_others = 0;
        for entry in &mut self.entries {
            let common = chain.common(&entry.chain);
            match &best {
                Some((most, _)) if *most >= common => {
                    shared_by_others = shared_by_others.max(common);
                }
                _ => {
                    shared_by_others = best.map_or(0, |(most, _)| most);
                    best = Some((common, entry));
                }
            }
        }
        let Some((most, entry)) = best else {
            return 0;
        };
        let common = most.min(chain.0.len().saturating_sub(1));
        if common == 0 {
            return 0;
        }
        if most > shared_by_others + BLOCK {
            self.clock += 1;
            entry.used = self.clock;
        }
        let shared = pool.regions.iter_mut().zip(&entry.tables).zip(tables);
        for ((region, kept), table) in shared {
            *table = region.share(kept, common);
        }
        common
    }

    /// Keeps a prompt that has just been read, unless one that begins with it is kept.
    pub fn put(&mut self, chain: Chain, pool: &mut Pool, tables: &[Table; 2]) {
        self.clock += 1;
        let used = self.clock;
        let covers = |entry: &&mut Entry| entry.chain.common(&chain) == chain.0.len();
        if let Some(entry) = self.entries.iter_mut().find(covers) {
            entry.used = used;
            return;
        }
        // A prompt that begins with a whole kept one takes its place.
        let covered = |entry: &Entry| entry.chain.common(&chain) == entry.chain.0.len();
        while let Some(index) = self.entries.iter().position(covered) {
            self.remove(index, pool);
        }
        while self.entries.len() >= self.limit && self.evict(pool) {}
        let tables = pool.keep(tables);
        self.edition += 1;
        self.entries.push(Entry {
            chain,
            tables,
            used,
        });
    }

    /// Drops the least recently used prompt; false if there is none.
    pub fn evict(&mut self, pool: &mut Pool) -> bool {
        self.evict_where(pool, |_, _| true)
    }

    /// Drops the least recently used prompt of those whose going helps to free blocks of a region: what is shared with a
    /// sequence that runs would free nothing. False if there is none.
    pub fn evict_from(&mut self, pool: &mut Pool, region: usize) -> bool {
        self.evict_where(pool, |pool, tables| pool.only_keeps(tables, region))
    }

    fn evict_where(
        &mut self,
        pool: &mut Pool,
        may_go: impl Fn(&Pool, &[Table; 2]) -> bool,
    ) -> bool {
        let oldest = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| may_go(pool, &entry.tables))
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

#[cfg(test)]
mod tests {
    use super::*;

    impl Chain {
        /// Of a prompt of one letter a token.
        fn of(prompt: &str) -> Self {
            let mut last = [0u8; 16];
            let links = prompt.bytes().map(|letter| {
                let mut hash = Sha256::new();
                hash.update(last);
                hash.update([letter]);
                last.copy_from_slice(&hash.finalize()[..16]);
                last
            });
            Chain(links.collect())
        }
    }

    /// A cache and what uses it.
    struct Kept {
        cache: PrefixCache,
        pool: Pool,
    }

    impl Kept {
        fn new(limit: usize, blocks: usize) -> Self {
            Kept {
                cache: PrefixCache::new(limit),
                pool: Pool::of_blocks(blocks),
            }
        }

        /// Tokens of a prompt that are there; reads the rest, and keeps it.
        fn ask(&mut self, prompt: &str) -> usize {
            let mut tables = Default::default();
            let chain = Chain::of(prompt);
            let found = self.cache.find(&chain, &mut self.pool, &mut tables);
            assert_eq!(found, tables[0].tokens());
            let rest = prompt.len() - found;
            self.pool.extend(&mut tables, rest).unwrap();
            self.cache.put(chain, &mut self.pool, &tables);
            self.pool.release(&mut tables);
            assert_eq!(self.pool.kept_blocks(), self.pool.held_blocks());
            found
        }

        /// How many tokens of these prompts are there, asked so that nothing changes.
        fn has(&mut self, prompts: &[&str]) -> Vec<usize> {
            let ages: Vec<u64> = self.cache.entries.iter().map(|entry| entry.used).collect();
            let found = prompts.iter().map(|prompt| {
                let mut tables = Default::default();
                let found = self
                    .cache
                    .find(&Chain::of(prompt), &mut self.pool, &mut tables);
                self.pool.release(&mut tables);
                found
            });
            let found = found.collect();
            for (entry, used) in self.cache.entries.iter_mut().zip(ages) {
                entry.used = used;
            }
            found
        }
    }

    fn prompt(header: usize, own: char, tokens: usize) -> String {
        "h".repeat(header) + &own.to_string().repeat(tokens)
    }

    #[test]
    fn the_least_recently_used_prompt_gives_way() {
        let [a, b, c, d] = ['a', 'b', 'c', 'd'].map(|own| prompt(0, own, 40));
        // What is asked, and which of the four are there in the end.
        for (asked, there) in [
            (vec![&a, &b, &c], [1, 1, 1, 0]),
            (vec![&a, &b, &c, &d], [0, 1, 1, 1]),
            (vec![&a, &b, &c, &a, &d], [1, 0, 1, 1]),
            (vec![&a, &b, &c, &b, &a, &d], [1, 1, 0, 1]),
            (vec![&a, &a, &a, &b, &c, &d], [0, 1, 1, 1]),
        ] {
            let mut kept = Kept::new(3, 64);
            for prompt in &asked {
                kept.ask(prompt);
            }
            let found = kept.has(&[&a, &b, &c, &d]);
            assert_eq!(found, there.map(|there| 39 * there), "{asked:?}");
        }
    }

    #[test]
    fn a_header_that_all_share_refreshes_nobody() {
        let header = 50;
        let [a, b, c, d, e] = ['a', 'b', 'c', 'd', 'e'].map(|own| prompt(header, own, 40));
        let mut kept = Kept::new(3, 64);
        for prompt in [&a, &b, &c] {
            kept.ask(prompt);
        }
        // Newcomers find the header, whoever has it, and push out the oldest in turn.
        assert_eq!(kept.ask(&d), header);
        assert_eq!(kept.has(&[&a, &b, &c, &d]), [header, 89, 89, 89]);
        assert_eq!(kept.ask(&e), header);
        assert_eq!(kept.has(&[&b, &c, &d, &e]), [header, 89, 89, 89]);
        // One that goes on like one of them refreshes that one alone.
        let on = prompt(header, 'c', 30) + "x";
        assert_eq!(kept.ask(&on), header + 30);
        assert_eq!(kept.has(&[&c, &d, &e]), [89, header, 89]);
    }

    #[test]
    fn who_shares_all_with_those_that_run_makes_no_room_by_going() {
        let mut kept = Kept::new(4, 64);
        let [a, b, c] = ['a', 'b', 'c'].map(|own| prompt(0, own, 40));
        for prompt in [&a, &b, &c] {
            kept.ask(prompt);
        }
        // The oldest is in use to its last block, and another by its first block alone.
        let mut running: [[Table; 2]; 2] = Default::default();
        for (tables, (entry, tokens)) in running.iter_mut().zip([(0, 40), (1, 16)]) {
            let [lower, upper] = &mut kept.pool.regions;
            let [low, up] = &kept.cache.entries[entry].tables;
            *tables = [lower.share(low, tokens), upper.share(up, tokens)];
        }
        for region in [0, 1] {
            let held = kept.pool.held_blocks();
            assert!(kept.cache.evict_from(&mut kept.pool, region));
            // What of it is not in use has come free, in both regions.
            let freed = held - kept.pool.held_blocks();
            assert_eq!(freed, 2 * if region == 0 { 2 } else { 3 });
        }
        assert!(!kept.cache.evict_from(&mut kept.pool, 0));
        assert_eq!(kept.has(&[&a, &b, &c]), [39, 0, 0]);
        // Once nobody uses it, it can go.
        for tables in &mut running {
            kept.pool.release(tables);
        }
        assert!(kept.cache.evict_from(&mut kept.pool, 1));
        assert_eq!(kept.pool.held_blocks(), 0);
    }

    #[test]
    fn of_prompts_that_begin_with_each_other_the_longest_is_kept() {
        let mut kept = Kept::new(3, 64);
        let (short, long) = (prompt(0, 'a', 30), prompt(0, 'a', 60));
        kept.ask(&short);
        assert_eq!(kept.ask(&long), 30);
        assert_eq!(kept.cache.entries.len(), 1);
        let blocks = kept.pool.held_blocks();
        // The short one is in it, and counts as its use.
        let other = prompt(0, 'b', 20);
        kept.ask(&other);
        assert_eq!(kept.ask(&short), 29);
        assert_eq!(kept.ask(&long), 59);
        assert_eq!(kept.cache.entries.len(), 2);
        kept.cache.evict(&mut kept.pool);
        assert_eq!(kept.has(&[&other, &long]), [0, 59]);
        assert_eq!(kept.pool.held_blocks(), blocks);
        // Nothing is left when all have given way.
        while kept.cache.evict(&mut kept.pool) {}
        assert_eq!(kept.pool.held_blocks(), 0);
    }
}
