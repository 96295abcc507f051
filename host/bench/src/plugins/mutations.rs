//! Random damage to real components: whatever the file, loading and calling it ends in an answer or an error.

use std::time::{Duration, Instant};

use anyhow::Result;
use msao_core::offload::manifest::Manifest;
use msao_hostile::build::Core;
use msao_hostile::{MANIFEST, SCORE_MANIFEST};
use msao_sandbox::{Plugin, Sandbox, SandboxConfig, inspect};

use super::hostile::call;
use super::measure::proc_bytes;
use crate::report::Row;

/// A small generator of its own (SplitMix64), so that a run can be repeated by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// One to eight changes: a bit flipped, bytes written over, cut out, doubled, or taken from another file.
fn mutate(random: &mut Random, file: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(8) {
        let at = random.below(file.len());
        let length = random.below(16).min(file.len() - at);
        match random.below(6) {
            0 | 1 => {
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            2 => {
                if let Some(byte) = file.get_mut(at) {
                    // Numbers at their edges are where lengths go wrong.
                    *byte = [0, 1, 0x7f, 0x80, 0xff]
                        .get(random.below(5))
                        .copied()
                        .unwrap_or(0);
                }
            }
            3 => drop(file.drain(at..at + length)),
            4 => {
                let piece = file.get(at..at + length).unwrap_or_default().to_vec();
                file.splice(at..at, piece);
            }
            _ => {
                let from = random.below(other.len());
                let piece = other.get(from..(from + length).min(other.len()));
                file.splice(at..at + length, piece.unwrap_or_default().iter().copied());
            }
        }
    }
}

/// Mutates the measured policy, a small one and a small post-processor for `length`. Seeded by `seed`, so that a failure can be found again.
///
/// # Errors
/// The components cannot be built.
pub fn rows(wasm: &[u8], length: Duration, seed: u64) -> Result<Vec<Row>> {
    let policy = Manifest::parse(MANIFEST)?;
    let postprocessor = Manifest::parse(SCORE_MANIFEST)?;
    let small = Core::policy().build()?;
    let scorer = Core::postprocessor().build()?;
    let sandbox = Sandbox::new(&SandboxConfig::default())?;
    let mut random = Random(seed);
    let before = proc_bytes("status", "VmRSS")?;
    let start = Instant::now();
    let (mut files, mut parsed, mut loaded, mut answered) = (0u32, 0u32, 0u32, 0u32);
    while start.elapsed() < length {
        // The small one mostly: each of its bytes matters, and it compiles in a moment.
        let (mut file, other, manifest) = match random.below(8) {
            0 => (wasm.to_vec(), &small, &policy),
            1 | 2 => (scorer.clone(), &small, &postprocessor),
            _ => (small.clone(), &scorer, &policy),
        };
        mutate(&mut random, &mut file, other);
        files += 1;
        parsed += u32::from(inspect(&file).is_ok());
        if let Ok(plugin) = sandbox.load(&file, manifest) {
            loaded += 1;
            let exports: &[&str] = match &plugin {
                Plugin::Policy(_) => &["plan", "step", "observe", "explain"],
                Plugin::PostProcessor(_) => &["score"],
            };
            for export in exports {
                answered += u32::from(call(&plugin, export).is_ok());
            }
        }
    }
    let grown = proc_bytes("status", "VmRSS")?.saturating_sub(before);
    // That this line is reached is the result: a panic or a fault would have ended the program.
    let mut row = Row::all("damaged files that did no harm", files as usize, Vec::new());
    row.details = vec![format!(
        "{:.0} s from seed {seed}: {parsed} still parse, {loaded} load, {answered} calls were answered",
        start.elapsed().as_secs_f64()
    )];
    let mib = grown as f64 / f64::from(1 << 20);
    Ok(vec![
        row,
        Row::at_most("memory grown meanwhile", mib, 64.0, " MiB"),
    ])
}
