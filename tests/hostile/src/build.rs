//! Components from a core module's text: what a guest language's tools do, without one.
//!
//! [`Core`] starts as an honest plug-in; a hostile one is an honest one with a function, or its memory, replaced.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, SourceMap};

const TYPES: &str = include_str!("../../../wit/types.wit");
const WORLDS: &str = include_str!("../../../wit/worlds.wit");
/// The contract's version in `wit/`.
pub const VERSION: &str = "0.1.0";

/// Where answers lie in memory; calls' arguments begin at [`HEAP`].
pub const ANSWERS: u32 = 1024;
/// The first address that `cabi_realloc` hands out.
pub const HEAP: u32 = 32768;

/// A core module for one of the contract's worlds: bodies of functions in WebAssembly's text.
#[derive(Clone, Debug)]
pub struct Core {
    /// The world in `wit/`, or in `wit`.
    pub world: String,
    /// The version of the contract that it is made for.
    pub version: String,
    /// WIT beside the contract's.
    pub wit: String,
    /// The memory, named `$memory`.
    pub memory: String,
    /// Other definitions; imports among them come first in the module.
    pub imports: String,
    /// Functions, tables, globals of its own.
    pub extra: String,
    /// Leaves the address of the decision.
    pub plan: String,
    /// Leaves the number of the action.
    pub step: String,
    /// Leaves the address of the list of updates.
    pub observe: String,
    /// Leaves the address of the text.
    pub explain: String,
    /// Leaves the address of the scores.
    pub score: String,
    /// Leaves an address for `$size` bytes aligned to `$align`.
    pub realloc: String,
    /// What memory holds at first.
    pub data: Vec<(u32, Vec<u8>)>,
}

impl Core {
    /// A policy that runs everything on the edge, drafts on, learns nothing and says "because".
    pub fn policy() -> Core {
        let decision = Decision::default();
        Core {
            world: "explaining-policy".to_owned(),
            version: VERSION.to_owned(),
            wit: String::new(),
            memory: "(memory $memory (export \"memory\") 1)".to_owned(),
            imports: String::new(),
            extra: String::new(),
            plan: format!("(i32.const {ANSWERS})"),
            step: "(i32.const 0)".to_owned(),
            // An address below the answers, where memory is zero: an empty list.
            observe: "(i32.const 64)".to_owned(),
            explain: "(i32.const 128)".to_owned(),
            score: String::new(),
            realloc:
                "(local $at i32)
                (local.set $at (i32.and
                    (i32.add (global.get $next) (i32.sub (local.get $align) (i32.const 1)))
                    (i32.sub (i32.const 0) (local.get $align))))
                (global.set $next (i32.add (local.get $at) (local.get $size)))
                (if (i32.gt_u (global.get $next) (i32.shl (memory.size) (i32.const 16)))
                    (then (if (i32.eq (i32.const -1)
                        (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $size) (i32.const 16)))))
                        (then unreachable))))
                (local.get $at)".to_owned(),
            data: vec![
                (ANSWERS, decision.bytes()),
                (128, [200u32.to_le_bytes(), 7u32.to_le_bytes()].concat()),
                (200, b"because".to_vec()),
            ],
        }
    }

    /// A post-processor that answers for one item: needed, nothing can go.
    pub fn postprocessor() -> Core {
        Core {
            world: "probe-postprocessor".to_owned(),
            score: format!("(i32.const {ANSWERS})"),
            data: vec![(ANSWERS, Scores::default().bytes())],
            ..Core::policy()
        }
    }

    /// The same with another answer of `plan`.
    pub fn deciding(decision: &Decision) -> Core {
        let mut core = Core::policy();
        if let Some((_, bytes)) = core.data.first_mut() {
            *bytes = decision.bytes();
        }
        core
    }

    /// The same with another answer of `score`.
    pub fn scoring(scores: &Scores) -> Core {
        let mut core = Core::postprocessor();
        core.data = vec![(ANSWERS, scores.bytes())];
        core
    }

    /// The module's text.
    pub fn wat(&self) -> String {
        let Core { version, .. } = self;
        let interface = |name: &str| format!("msao:offload/{name}@{version}#");
        let mut exports = String::new();
        let mut export = |interface: String, name: &str, params: &str, body: &str| {
            let passed: String = (0..params.split(' ').count())
                .map(|i| format!("(local.get {i})"))
                .collect();
            // Arguments are forgotten when a call ends, or memory would fill up.
            let _ = writeln!(
                exports,
                "(func ${name} (param {params}) (result i32)\n{body})
                (func (export \"{interface}{name}\") (param {params}) (result i32)
                    (call ${name} {passed}) (global.set $next (i32.const {HEAP})))"
            );
        };
        if self.score.is_empty() {
            let policy = interface("policy");
            export(policy.clone(), "plan", "i32", &self.plan);
            let scalars = "i32 f64 f64 f64 f64 i32 i32 i32 i32 i32 f64 f64 f64 f64 i32 i32";
            export(policy.clone(), "step", scalars, &self.step);
            export(policy, "observe", "i32", &self.observe);
            if self.world == "explaining-policy" {
                export(interface("explanation"), "explain", "i32", &self.explain);
            }
        } else {
            export(interface("postprocessor"), "score", "i32", &self.score);
        }
        let mut data = String::new();
        for (address, bytes) in &self.data {
            let bytes: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
            let _ = writeln!(data, "(data (i32.const {address}) \"{bytes}\")");
        }
        format!(
            "(module\n{}\n{}\n(global $next (mut i32) (i32.const {HEAP}))\n{}\n(func (export \"cabi_realloc\") \
             (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)\n{})\n{exports}\n{data})",
            self.imports, self.memory, self.extra, self.realloc
        )
    }

    /// The component.
    ///
    /// # Errors
    /// The text is wrong: a mistake in this crate.
    pub fn build(&self) -> Result<Vec<u8>> {
        let wat = self.wat();
        let mut module = wat::parse_str(&wat).with_context(|| wat.clone())?;
        component(&mut module, &self.version, &self.wit, &self.world)
    }
}

/// Wraps a core module for `world`.
///
/// # Errors
/// The module does not fit the world.
pub fn component(module: &mut Vec<u8>, version: &str, wit: &str, world: &str) -> Result<Vec<u8>> {
    let mut resolve = Resolve::new();
    let mut sources = SourceMap::new();
    sources.push_str("types.wit", TYPES.replace(VERSION, version));
    sources.push_str("worlds.wit", WORLDS.replace(VERSION, version) + wit);
    let group = sources
        .parse()
        .map_err(|(_, error)| anyhow::anyhow!("{error}"))?;
    let package = resolve.push_group(group)?;
    let world = resolve.select_world(&[package], Some(world))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default()
        .module(module)?
        .validate(true)
        .encode()
}

/// A component with the functions of a policy by name, each of another type.
///
/// # Errors
/// It cannot be assembled.
pub fn of_other_types() -> Result<Vec<u8>> {
    let wat = "(component
        (core module $m (func (export \"f\") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $f (result u32) (canon lift (core func $i \"f\")))
        (instance $p (export \"plan\" (func $f)) (export \"step\" (func $f)) (export \"observe\" (func $f)))
        (export \"msao:offload/policy@0.1.0\" (instance $p)))";
    Ok(wat::parse_str(wat)?)
}

/// How one side gets a part. Default: as it came.
#[derive(Clone, Copy, Debug)]
pub struct Treatment {
    /// Share of tokens kept.
    pub keep: f64,
    /// Factor of width and height.
    pub scale: f64,
    /// Share of frames kept.
    pub frames: f64,
    /// JPEG quality; 0: the original bytes.
    pub quality: u32,
    /// The number of `rest`.
    pub rest: u8,
}

impl Default for Treatment {
    fn default() -> Treatment {
        Treatment {
            keep: 1.0,
            scale: 1.0,
            frames: 1.0,
            quality: 0,
            rest: 0,
        }
    }
}

impl Treatment {
    /// Keeps this share of tokens, of what came.
    pub fn keeping(keep: f64) -> Treatment {
        Treatment {
            keep,
            ..Treatment::default()
        }
    }
}

/// How both sides get a part. Default: as it came.
#[derive(Clone, Copy, Debug, Default)]
pub struct PartPlan {
    /// The draft model.
    pub draft: Treatment,
    /// The target.
    pub target: Treatment,
}

/// A decision as it lies in memory at [`ANSWERS`].
#[derive(Clone, Debug)]
pub struct Decision {
    /// 0: run a plan, 1: probe.
    pub case: u8,
    /// The route's number.
    pub route: u8,
    /// The row of the peer.
    pub peer: u32,
    /// The mode's number.
    pub mode: u8,
    /// Drafts a round.
    pub gamma_max: u32,
    /// Rounds.
    pub in_flight_max: u32,
    /// Patience in ms.
    pub patience_ms: f64,
    /// For each part.
    pub parts: Vec<PartPlan>,
    /// Bytes of the memo.
    pub memo: u32,
    /// The reason's number.
    pub reason: u32,
    /// How many terms, all 0.
    pub terms: u32,
}

impl Default for Decision {
    fn default() -> Decision {
        Decision {
            case: 0,
            route: 0,
            peer: 0,
            mode: 0,
            gamma_max: 4,
            in_flight_max: 1,
            patience_ms: 100.0,
            parts: Vec::new(),
            memo: 0,
            reason: 0,
            terms: 0,
        }
    }
}

/// Bytes with the alignment of the canonical ABI.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn align(mut self, to: usize) -> Bytes {
        while !self.0.len().is_multiple_of(to) {
            self.0.push(0);
        }
        self
    }
    fn u8(mut self, value: u8) -> Bytes {
        self.0.push(value);
        self
    }
    fn u32(self, value: u32) -> Bytes {
        let mut it = self.align(4);
        it.0.extend(value.to_le_bytes());
        it
    }
    fn f64(self, value: f64) -> Bytes {
        let mut it = self.align(8);
        it.0.extend(value.to_le_bytes());
        it
    }
}

impl Decision {
    fn bytes(&self) -> Vec<u8> {
        // The parts follow the 72 bytes of the decision; memo and terms point to zeros.
        let head = Bytes::default()
            .u8(self.case)
            .align(8)
            .u8(self.route)
            .u32(self.peer)
            .u8(self.mode)
            .u32(self.gamma_max)
            .u32(self.in_flight_max)
            .f64(self.patience_ms)
            .u32(ANSWERS + 72)
            .u32(self.parts.len() as u32)
            .u32(HEAP)
            .u32(self.memo)
            .u32(self.reason)
            .u32(HEAP)
            .u32(self.terms)
            .align(8);
        let sides = self.parts.iter().flat_map(|part| [part.draft, part.target]);
        sides.fold(head, |bytes, side| side.put(bytes)).0
    }
}

impl Treatment {
    fn put(self, bytes: Bytes) -> Bytes {
        bytes
            .f64(self.keep)
            .f64(self.scale)
            .f64(self.frames)
            .u32(self.quality)
            .u8(self.rest)
            .align(8)
    }
}

/// Scores as they lie in memory at [`ANSWERS`].
#[derive(Clone, Debug)]
pub struct Scores {
    /// Necessity and keep order of each item.
    pub items: Vec<(f64, Vec<u32>)>,
    /// Value and weight of each update, samples of cell 0.
    pub updates: Vec<(f64, f64)>,
}

impl Default for Scores {
    fn default() -> Scores {
        Scores {
            items: vec![(1.0, Vec::new())],
            updates: Vec::new(),
        }
    }
}

impl Scores {
    fn bytes(&self) -> Vec<u8> {
        let items = ANSWERS + 16;
        let updates = items + 48 * self.items.len() as u32;
        let mut order = updates + 24 * self.updates.len() as u32;
        let mut bytes = Bytes::default()
            .u32(items)
            .u32(self.items.len() as u32)
            .u32(updates)
            .u32(self.updates.len() as u32);
        for (necessity, tokens) in &self.items {
            bytes = (0..4)
                .fold(bytes.f64(*necessity), |bytes, _| bytes.f64(0.0))
                .u32(order)
                .u32(tokens.len() as u32);
            order += 4 * tokens.len() as u32;
        }
        for (value, weight) in &self.updates {
            bytes = bytes.u8(0).u32(0).f64(*value).f64(*weight);
        }
        let orders = self.items.iter().flat_map(|(_, tokens)| tokens);
        orders.fold(bytes, |bytes, &token| bytes.u32(token)).0
    }
}

/// Updates as they lie in memory at `address`: the list, then its entries.
pub fn updates(address: u32, entries: &[(u8, f64, f64)]) -> Vec<u8> {
    let head = Bytes::default().u32(address + 8).u32(entries.len() as u32);
    let all = entries
        .iter()
        .fold(head, |bytes, &(operation, value, weight)| {
            bytes.u8(operation).u32(0).f64(value).f64(weight)
        });
    all.0
}
