//! The corpus.

use anyhow::Result;

use crate::build::{ANSWERS, Core, Decision, PartPlan, Scores, Treatment, component, updates};

/// The manifest of a policy.
pub const MANIFEST: &str = "name = \"hostile\"\nversion = \"0.1.0\"\nworld = \"offload-policy\"\ndescription = \"\"\nstate-schema = 1\n";
/// The manifest of a post-processor.
pub const SCORE_MANIFEST: &str = "name = \"hostile\"\nversion = \"0.1.0\"\nworld = \"probe-postprocessor\"\ndescription = \"\"\nstate-schema = 1\n";

/// What has to become of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Loading is refused, with these words.
    Refused(&'static str),
    /// It loads; calling `export` fails.
    Fails {
        /// `score`, `plan`, `step`, `observe` or `explain`.
        export: &'static str,
        /// The kind as metrics name it.
        kind: &'static str,
        /// Words of the message.
        says: &'static str,
    },
}

/// A file and its manifest.
pub struct Case {
    /// What is wrong with it.
    pub name: String,
    /// The manifest's text.
    pub manifest: String,
    /// The file.
    pub file: Vec<u8>,
    /// What has to become of it.
    pub expected: Expected,
}

/// All cases that can be made without a compiler. Answers are for one part (text), one item of four tokens and one node.
///
/// # Errors
/// A case cannot be built: a mistake in this crate.
pub fn corpus() -> Result<Vec<Case>> {
    let mut all = Vec::new();
    endless(&mut all)?;
    memory(&mut all)?;
    traps(&mut all)?;
    answers(&mut all)?;
    many(&mut all)?;
    contracts(&mut all)?;
    files(&mut all)?;
    Ok(all)
}

fn fails(
    name: impl Into<String>,
    core: &Core,
    export: &'static str,
    kind: &'static str,
    says: &'static str,
) -> Result<Case> {
    let manifest = if export == "score" {
        SCORE_MANIFEST
    } else {
        MANIFEST
    };
    Ok(Case {
        name: name.into(),
        manifest: manifest.to_owned(),
        file: core.build()?,
        expected: Expected::Fails { export, kind, says },
    })
}

fn refused(name: &str, file: Vec<u8>, says: &'static str) -> Case {
    Case {
        name: name.to_owned(),
        manifest: MANIFEST.to_owned(),
        file,
        expected: Expected::Refused(says),
    }
}

const EXPORTS: [&str; 5] = ["score", "plan", "step", "observe", "explain"];

/// An honest plug-in whose `export` does this instead.
fn with_body(export: &str, body: &str) -> Core {
    let mut core = if export == "score" {
        Core::postprocessor()
    } else {
        Core::policy()
    };
    let function = match export {
        "score" => &mut core.score,
        "plan" => &mut core.plan,
        "step" => &mut core.step,
        "observe" => &mut core.observe,
        _ => &mut core.explain,
    };
    body.clone_into(function);
    core
}

fn endless(all: &mut Vec<Case>) -> Result<()> {
    for export in EXPORTS {
        let core = with_body(export, "(loop $on (br $on)) unreachable");
        let name = format!("endless loop in {export}");
        all.push(fails(name, &core, export, "deadline", "past its deadline")?);
    }
    let mut core = with_body("plan", "(call $deeper (i32.const 0))");
    core.extra = "(func $deeper (param i32) (result i32)
        (i32.add (i32.const 1) (call $deeper (i32.add (local.get 0) (i32.const 1)))))"
        .to_owned();
    all.push(fails("endless recursion", &core, "plan", "trap", "stack")?);
    let mut core = Core::policy();
    core.realloc = "(loop $on (br $on)) unreachable".to_owned();
    let name = "endless loop while arguments are handed over";
    all.push(fails(name, &core, "plan", "deadline", "past its deadline")?);
    let mut core = Core::policy();
    core.extra = "(func $start (loop $on (br $on)))(start $start)".to_owned();
    let name = "endless loop while it starts";
    all.push(refused(name, core.build()?, "no instance can be made"));
    // A call of its own now and then, and long passes over memory between them: a host that looks only at calls misses it.
    let core = with_body(
        "plan",
        "(loop $on (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536)) (br $on)) unreachable",
    );
    let name = "endless filling of memory";
    all.push(fails(name, &core, "plan", "deadline", "past its deadline")?);
    Ok(())
}

fn memory(all: &mut Vec<Case>) -> Result<()> {
    // Grows until it is refused and fails as an allocator does.
    let bomb = |grow: &str| {
        with_body(
            "plan",
            &format!("(loop $on (br_if $on (i32.ne (i32.const -1) {grow}))) unreachable"),
        )
    };
    let says = "wanted more memory";
    let one = bomb("(memory.grow (i32.const 4))");
    all.push(fails("memory bomb", &one, "plan", "memory", says)?);
    let mut several = bomb(
        "(i32.or (memory.grow $b (i32.const 1)) (i32.or (memory.grow $c (i32.const 1)) (memory.grow $memory (i32.const 1))))",
    );
    several.memory += "(memory $b 1)(memory $c 1)";
    let name = "memory bomb in several memories";
    all.push(fails(name, &several, "plan", "memory", says)?);
    let mut table = bomb("(table.grow $t (ref.null func) (i32.const 1000))");
    table.extra = "(table $t 1 funcref)".to_owned();
    all.push(fails("bomb of tables", &table, "plan", "memory", says)?);
    let mut several = bomb(
        "(i32.or (table.grow $t (ref.null func) (i32.const 700)) (table.grow $u (ref.null func) (i32.const 700)))",
    );
    several.extra = "(table $t 1 funcref)(table $u 1 funcref)".to_owned();
    all.push(fails(
        "bomb of several tables",
        &several,
        "plan",
        "memory",
        says,
    )?);
    let mut large = Core::policy();
    large.memory = "(memory $memory (export \"memory\") 1000)".to_owned();
    let name = "62 MiB of memory from the start";
    all.push(refused(name, large.build()?, "memory"));
    let mut many = Core::policy();
    many.memory += &"(memory 1)".repeat(40);
    all.push(refused("41 memories", many.build()?, "memor"));
    let mut table = Core::policy();
    table.extra = "(table 10000000 funcref)".to_owned();
    let name = "a table of ten million";
    all.push(refused(name, table.build()?, "table"));
    Ok(())
}

/// A policy that opens its standard output again and again, and keeps each.
fn handles() -> Result<Case> {
    let mut core = with_body(
        "plan",
        "(loop $on (drop (call $open)) (br $on)) unreachable",
    );
    core.world = "holding".to_owned();
    core.wit = "
        package wasi:io@0.2.0 { interface streams { resource output-stream; } }
        package wasi:cli@0.2.0 {
            interface stdout {
                use wasi:io/streams@0.2.0.{output-stream};
                get-stdout: func() -> output-stream;
            }
        }
        world holding { include offload-policy; import wasi:cli/stdout@0.2.0; }
    "
    .to_owned();
    core.imports =
        "(import \"wasi:cli/stdout@0.2.0\" \"get-stdout\" (func $open (result i32)))".to_owned();
    let name = "handles without end";
    fails(name, &core, "plan", "trap", "handle")
}

/// A component that hands over a megabyte while it is instantiated.
fn talkative() -> Result<Vec<u8>> {
    // Of the contract only the names: it never gets so far that types matter.
    let functions = ["plan", "step", "observe"]
        .map(|name| format!("(export \"{name}\" (func $nothing))"))
        .concat();
    Ok(wat::parse_str(format!(
        "(component
            (import \"wasi:random/listener@0.2.0\" (instance $listener
                (export \"tell\" (func (param \"bytes\" (list u8))))))
            (core module $room (memory (export \"memory\") 17) (func (export \"nothing\")))
            (core instance $room (instantiate $room))
            (func $nothing (canon lift (core func $room \"nothing\")))
            (core func $tell (canon lower (func $listener \"tell\") (memory $room \"memory\")))
            (core module $speaker
                (import \"\" \"tell\" (func $tell (param i32 i32)))
                (func $start (call $tell (i32.const 0) (i32.const 1000000)))
                (start $start))
            (core instance (instantiate $speaker (with \"\" (instance (export \"tell\" (func $tell))))))
            (instance $policy {functions})
            (export \"msao:offload/policy@0.1.0\" (instance $policy)))"
    ))?)
}

/// A function of so many bytes that a compiler which looks at whole functions takes long over it.
fn long_function() -> Result<Vec<u8>> {
    let mut core = Core::policy();
    // 11 bytes a line.
    let line = "(local.set $a (i32.add (i32.mul (local.get $a) (local.get $b)) (local.get $c)))";
    core.extra = format!(
        "(func (param $a i32) (param $b i32) (param $c i32) (result i32) {} (local.get $a))",
        line.repeat(120_000)
    );
    core.build()
}

fn traps(all: &mut Vec<Case>) -> Result<()> {
    for export in EXPORTS {
        let core = with_body(export, "unreachable");
        let name = format!("trap in {export}");
        all.push(fails(name, &core, export, "trap", "unreachable")?);
    }
    for (name, body, says) in [
        (
            "division by zero",
            "(i32.div_u (i32.const 1) (i32.const 0))",
            "divide by zero",
        ),
        (
            "read beyond its memory",
            "(i32.load (i32.const 0x7fffffff))",
            "out of bounds",
        ),
        (
            "write far beyond its memory",
            "(i32.store offset=0xfffffff0 (i32.const -1) (i32.const 1)) (i32.const 0)",
            "out of bounds",
        ),
    ] {
        let core = with_body("plan", body);
        all.push(fails(name, &core, "plan", "trap", says)?);
    }
    let mut core = Core::policy();
    core.realloc = "(i32.const 0x7ffffff0)".to_owned();
    let name = "room for arguments beyond its memory";
    all.push(fails(name, &core, "plan", "answer", "cannot be read")?);
    all.push(handles()?);
    all.push(refused(
        "a megabyte handed over while it starts",
        talkative()?,
        "too much data",
    ));
    all.push(refused(
        "a function of more than a megabyte",
        long_function()?,
        "has a function of",
    ));
    let mut core = Core::policy();
    core.extra = "(func $start unreachable)(start $start)".to_owned();
    let name = "trap while it starts";
    all.push(refused(name, core.build()?, "no instance can be made"));
    Ok(())
}

/// A part of which the draft model gets this share.
fn drafting_with(keep: f64) -> PartPlan {
    PartPlan {
        draft: Treatment::keeping(keep),
        ..PartPlan::default()
    }
}

fn answers(all: &mut Vec<Case>) -> Result<()> {
    let right = Decision::default;
    for (name, decision, says) in [
        (
            "patience NaN",
            Decision {
                patience_ms: f64::NAN,
                ..right()
            },
            "patience-ms is NaN",
        ),
        (
            "patience infinite",
            Decision {
                patience_ms: f64::INFINITY,
                ..right()
            },
            "patience-ms is inf",
        ),
        (
            "no drafts a round",
            Decision {
                gamma_max: 0,
                ..right()
            },
            "gamma-max is 0",
        ),
        (
            "a peer that is not there",
            Decision {
                route: 1,
                peer: 7,
                ..right()
            },
            "peer is 7",
        ),
        (
            "a route that is not there",
            Decision {
                route: 9,
                ..right()
            },
            "cannot be read",
        ),
        (
            "keep share NaN",
            Decision {
                parts: vec![drafting_with(f64::NAN)],
                ..right()
            },
            "parts[0].draft.keep is NaN",
        ),
        (
            "keep share 1.5",
            Decision {
                parts: vec![drafting_with(1.5)],
                ..right()
            },
            "parts[0].draft.keep is 1.5",
        ),
        (
            "two parts for one",
            Decision {
                parts: vec![PartPlan::default(); 2],
                ..right()
            },
            "parts has 2 entries",
        ),
        (
            "a memo too long",
            Decision {
                memo: 257,
                ..right()
            },
            "memo has 257 bytes",
        ),
        (
            "a reason that the manifest does not list",
            Decision {
                reason: 3,
                ..right()
            },
            "reason is 3",
        ),
        (
            "terms that the manifest does not list",
            Decision {
                terms: 1,
                ..right()
            },
            "terms has 1 values",
        ),
        (
            "asks for the probe, which the manifest does not",
            Decision { case: 1, ..right() },
            "decision is `probe`",
        ),
        (
            "a case that is not there",
            Decision { case: 7, ..right() },
            "cannot be read",
        ),
    ] {
        let core = Core::deciding(&decision);
        all.push(fails(name, &core, "plan", "answer", says)?);
    }
    let core = with_body("step", "(i32.const 77)");
    let name = "an action that is not there";
    all.push(fails(name, &core, "step", "answer", "cannot be read")?);
    for (name, entry, says) in [
        (
            "an update of NaN",
            (0, f64::NAN, 1.0),
            "updates[0].value is NaN",
        ),
        (
            "an update's weight 2",
            (0, 1.0, 2.0),
            "updates[0].weight is 2",
        ),
        (
            "an operation that is not there",
            (9, 1.0, 1.0),
            "cannot be read",
        ),
    ] {
        let mut core = with_body("observe", "(i32.const 512)");
        core.data.push((512, updates(512, &[entry])));
        all.push(fails(name, &core, "observe", "answer", says)?);
    }
    let mut core = with_body("explain", "(i32.const 512)");
    let text = [600u32.to_le_bytes(), 4u32.to_le_bytes()].concat();
    core.data
        .extend([(512, text), (600, vec![0xff, 0xfe, 0xfd, 0xfc])]);
    let name = "a text that is no UTF-8";
    all.push(fails(name, &core, "explain", "answer", "cannot be read")?);
    for (name, scores, says) in [
        (
            "necessity NaN",
            Scores {
                items: vec![(f64::NAN, Vec::new())],
                updates: Vec::new(),
            },
            "items[0].necessity is NaN",
        ),
        (
            "no item for one",
            Scores {
                items: Vec::new(),
                updates: Vec::new(),
            },
            "items has 0 entries",
        ),
        (
            "a token twice",
            Scores {
                items: vec![(1.0, vec![1, 1])],
                updates: Vec::new(),
            },
            "items[0].keep-order[1] names token 1 a second time",
        ),
        (
            "a token that is not there",
            Scores {
                items: vec![(1.0, vec![4])],
                updates: Vec::new(),
            },
            "items[0].keep-order[0] is 4",
        ),
        (
            "300 updates",
            Scores {
                items: vec![(1.0, Vec::new())],
                updates: vec![(1.0, 1.0); 300],
            },
            "updates has 300 entries",
        ),
    ] {
        all.push(fails(
            name,
            &Core::scoring(&scores),
            "score",
            "answer",
            says,
        )?);
    }
    Ok(())
}

fn many(all: &mut Vec<Case>) -> Result<()> {
    // Room for a million, which the memory limit allows, and then as many numbers as that.
    let grow = "(drop (memory.grow (i32.const 160)))";
    let decision = Decision {
        terms: 1_000_000,
        ..Decision::default()
    };
    let mut core = Core::deciding(&decision);
    core.plan = format!("{grow} (i32.const {ANSWERS})");
    let name = "a million terms";
    all.push(fails(name, &core, "plan", "answer", "is longer than")?);
    // 20,000 items whose keep orders are all the same two million tokens: 160 GB, were they copied.
    let mut core = Core::postprocessor();
    core.memory = "(memory $memory (export \"memory\") 160)".to_owned();
    core.score = "(local $at i32) (local.set $at (i32.const 65536))
        (loop $on
            (i32.store offset=40 (local.get $at) (i32.const 0))
            (i32.store offset=44 (local.get $at) (i32.const 2000000))
            (local.set $at (i32.add (local.get $at) (i32.const 48)))
            (br_if $on (i32.lt_u (local.get $at) (i32.const 1025536))))
        (i32.store (i32.const 512) (i32.const 65536))
        (i32.store (i32.const 516) (i32.const 20000))
        (i32.const 512)"
        .to_owned();
    let name = "keep orders that all lie in the same place";
    all.push(fails(name, &core, "score", "answer", "is longer than")?);
    let mut core = with_body("observe", "(i32.const 512)");
    let list = [0u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat();
    core.data.push((512, list));
    let name = "four billion updates";
    all.push(fails(name, &core, "observe", "answer", "cannot be read")?);
    let mut core = with_body("explain", &format!("{grow} (i32.const 512)"));
    let text = [0u32.to_le_bytes(), 10_000_000u32.to_le_bytes()].concat();
    core.data.push((512, text));
    let name = "ten million letters";
    all.push(fails(name, &core, "explain", "answer", "is longer than")?);
    Ok(())
}

fn contracts(all: &mut Vec<Case>) -> Result<()> {
    for (import, wit) in [
        (
            "wasi:sockets/tcp@0.2.0",
            "package wasi:sockets@0.2.0 { interface tcp { reach: func(); } }",
        ),
        (
            "wasi:http/handler@0.2.0",
            "package wasi:http@0.2.0 { interface handler { reach: func(); } }",
        ),
        (
            "wasi:cli/environment@0.3.0",
            "package wasi:cli@0.3.0 { interface environment { reach: func(); } }",
        ),
        (
            "msao:secrets/keys@0.1.0",
            "package msao:secrets@0.1.0 { interface keys { reach: func(); } }",
        ),
    ] {
        let mut core = with_body("plan", &format!("(call $reach) (i32.const {ANSWERS})"));
        core.world = "curious".to_owned();
        core.wit =
            format!("\n{wit}\nworld curious {{ include offload-policy; import {import}; }}\n");
        core.imports = format!("(import \"{import}\" \"reach\" (func $reach))");
        let says = "which plug-ins do not get";
        all.push(refused(&format!("imports {import}"), core.build()?, says));
    }
    // What follows the 256th must not slip through.
    let mut imports: String = (0..256)
        .map(|i| format!("(import \"wasi:random/source{i}@0.2.0\" (instance))"))
        .collect();
    imports += "(import \"wasi:sockets/tcp@0.2.0\" (instance))";
    let many = wat::parse_str(format!("(component {imports})"))?;
    all.push(refused("257 imports", many, "more than 256 imports"));
    let exports: String = (0..257)
        .map(|i| format!("(export \"msao:offload/policy{i}@0.1.0\" (instance $empty))"))
        .collect();
    let many = wat::parse_str(format!("(component (instance $empty) {exports})"))?;
    all.push(refused("257 exports", many, "more than 256 exports"));
    let post = Core::postprocessor().build()?;
    all.push(refused("wrong world", post, "world offload-policy"));
    let mut case = refused(
        "wrong world, the other way",
        Core::policy().build()?,
        "world probe-postprocessor",
    );
    case.manifest = SCORE_MANIFEST.to_owned();
    all.push(case);
    for (version, says) in [
        ("0.2.0", "a newer version"),
        ("1.0.0", "a newer version"),
        ("0.0.9", "an older version"),
    ] {
        let mut core = Core::policy();
        core.version = version.to_owned();
        all.push(refused(&format!("contract {version}"), core.build()?, says));
    }
    // An interface of the right name with other functions.
    let wat = "(module (memory (export \"memory\") 1)
        (func (export \"other:offload/policy@0.1.0#plan\") (result i32) (i32.const 0)))";
    let mut module = wat::parse_str(wat.replace("other:", "msao:"))?;
    let other = other_contract(&mut module)?;
    all.push(refused("an interface of another type", other, "type"));
    let raised = [
        "memory-mib = 4000",
        "table-elements = 1000000",
        "artifact-mib = 1000",
        "plan-ms = 50",
        "score-ms = 51",
    ];
    for limit in raised {
        let mut case = refused(
            &format!("a manifest that asks for {limit}"),
            Core::policy().build()?,
            "the operator allows",
        );
        case.manifest = format!("{MANIFEST}[limits]\n{limit}\n");
        all.push(case);
    }
    Ok(())
}

/// A component that exports `msao:offload/policy@0.1.0` with one function, of another type.
fn other_contract(module: &mut Vec<u8>) -> Result<Vec<u8>> {
    use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
    let mut resolve = wit_parser::Resolve::new();
    let wit = "package msao:offload@0.1.0; interface policy { plan: func() -> u32; } \
               world other { export policy; }";
    let package = resolve.push_source("other.wit", wit)?;
    let world = resolve.select_world(&[package], Some("other"))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().module(module)?.encode()
}

fn files(all: &mut Vec<Case>) -> Result<()> {
    let honest = Core::policy().build()?;
    all.push(refused("an empty file", Vec::new(), "empty"));
    let module = wat::parse_str(Core::policy().wat())?;
    all.push(refused("a core module", module, "core WebAssembly module"));
    let text = b"(component)".to_vec();
    all.push(refused("a component as text", text, "text"));
    for share in [1, 2, 3] {
        let end = honest.len() * share / 4;
        let cut = honest.get(..end).unwrap_or_default().to_vec();
        all.push(refused(
            &format!("cut off after {share} quarters"),
            cut,
            "damaged",
        ));
    }
    let mut longer = honest.clone();
    longer.extend([0; 100]);
    all.push(refused("100 bytes after its end", longer, "damaged"));
    let zeros = vec![0; 200 << 20];
    all.push(refused("200 MB of zeros", zeros, "artifact-mib"));
    let zeros = vec![0; 1 << 20];
    all.push(refused("1 MB of zeros", zeros, "does not begin"));
    let mut empty = wat::parse_str("(module)")?;
    let nothing = component(&mut empty, "0.1.0", "\nworld nothing {}\n", "nothing")?;
    all.push(refused(
        "a component that exports nothing",
        nothing,
        "exports nothing",
    ));
    Ok(())
}
