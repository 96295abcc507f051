//! What a file is, found out by parsing alone: nothing of it is compiled or run.

use std::collections::BTreeMap;

use msao_core::offload::manifest::World;
use semver::Version;
use serde::{Deserialize, Serialize};
use wasmparser::{Chunk, ComponentExternalKind, KnownCustom, Parser, Payload};

use crate::call::text;
use crate::config::required_export;
use crate::error::LoadError;
use crate::wasi;

/// The version of `msao:offload` in `wit/`, which this host speaks.
pub const CONTRACT: Version = Version::new(0, 1, 0);
const PACKAGE: &str = "msao:offload";

/// Imports, and exports, that a component may have. An honest one has a few dozen; all are listed, or none would be checked.
pub const MAX_NAMES: usize = 256;
/// Producers that are listed at most.
const MAX_PRODUCERS: usize = 64;
/// Characters of a name that are kept.
const MAX_NAME: usize = 128;
/// Bytes that a function may have. The compiler looks at a function as a whole, and what it does with one grows faster than
/// its size. CPython's largest has 417 KiB. How many functions there are is bounded by the artifact's size alone.
pub const MAX_FUNCTION: usize = 1 << 20;
/// Components and modules within each other at most.
const MAX_DEPTH: usize = 64;

/// What a component is, as far as its file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// Bytes.
    pub size: u64,
    /// Worlds of the contract that it can serve.
    pub worlds: Vec<World>,
    /// Whether it explains its plans.
    pub explains: bool,
    /// What it exports of the contract, with the version: `policy` -> `0.1.0`.
    pub contract: BTreeMap<String, Version>,
    /// Everything that it exports.
    pub exports: Vec<String>,
    /// Everything that it imports.
    pub imports: Vec<String>,
    /// The tools that made it, for instance `language Rust`.
    pub producers: Vec<String>,
    /// Core modules in it.
    pub modules: usize,
}

/// Parses `bytes` without compiling anything.
///
/// # Errors
/// Where it is no component, or a damaged one. Whether it may be loaded is for [`crate::Sandbox::load`] to say.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, LoadError> {
    kind(bytes)?;
    let mut found = Inspection {
        size: bytes.len() as u64,
        worlds: Vec::new(),
        explains: false,
        contract: BTreeMap::new(),
        exports: Vec::new(),
        imports: Vec::new(),
        producers: Vec::new(),
        modules: 0,
    };
    parse(bytes, &mut found)?;
    for name in &found.exports {
        if let Some((interface, version)) = contract_name(name) {
            found.contract.insert(interface.to_owned(), version);
        }
    }
    for world in [World::OffloadPolicy, World::ProbePostprocessor] {
        if found.contract.contains_key(required_export(world)) {
            found.worlds.push(world);
        }
    }
    found.explains = found.contract.contains_key("explanation");
    Ok(found)
}

/// Tells a component from everything else that somebody might send.
fn kind(bytes: &[u8]) -> Result<(), LoadError> {
    match bytes {
        [] => Err(LoadError::Empty),
        [0x7f, b'E', b'L', b'F', ..] => match wasmtime::Engine::detect_precompiled(bytes) {
            Some(_) => Err(LoadError::Precompiled),
            None => Err(LoadError::NotWasm("it is a native program or library")),
        },
        // Magic, version, layer.
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Err(LoadError::CoreModule),
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', _, _, _, _, ..] => Err(LoadError::Damaged(
            "its header names a version of WebAssembly that does not exist".to_owned(),
        )),
        _ if b"\0asm\x0d\0\x01\0".starts_with(bytes) => {
            Err(LoadError::Damaged("it ends within its header".to_owned()))
        }
        _ if bytes.trim_ascii_start().starts_with(b"(") => Err(LoadError::NotWasm(
            "it looks like WebAssembly as text; assemble it first",
        )),
        _ => Err(LoadError::NotWasm(
            "it does not begin as WebAssembly does (\\0asm)",
        )),
    }
}

fn parse(bytes: &[u8], found: &mut Inspection) -> Result<(), LoadError> {
    let damaged =
        |error: wasmparser::BinaryReaderError| LoadError::Damaged(text(&error.to_string()));
    let mut parsers = Vec::new();
    let mut parser = Parser::new(0);
    let mut rest = bytes;
    loop {
        let (consumed, payload) = match parser.parse(rest, true).map_err(damaged)? {
            Chunk::Parsed { consumed, payload } => (consumed, payload),
            // Not reached: all there is has been handed over, and the parser knows it.
            Chunk::NeedMoreData(_) => {
                return Err(LoadError::Damaged("it ends too early".to_owned()));
            }
        };
        rest = rest.get(consumed..).unwrap_or_default();
        let outermost = parsers.is_empty();
        match payload {
            Payload::ComponentImportSection(imports) if outermost => {
                for import in imports {
                    let name = import.map_err(damaged)?.name.name;
                    list(&mut found.imports, "imports", name)?;
                }
            }
            Payload::ComponentExportSection(exports) if outermost => {
                for export in exports {
                    let export = export.map_err(damaged)?;
                    if export.kind == ComponentExternalKind::Instance
                        || export.kind == ComponentExternalKind::Func
                    {
                        list(&mut found.exports, "exports", export.name.name)?;
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                let bytes = body.range().len();
                if bytes > MAX_FUNCTION {
                    return Err(LoadError::LongFunction {
                        bytes,
                        limit: MAX_FUNCTION,
                    });
                }
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Producers(fields) = section.as_known() {
                    // What tools say of themselves is told, never relied on: a bad section is passed over.
                    let _ = producers(fields, &mut found.producers);
                }
            }
            Payload::ModuleSection { parser: inner, .. } => {
                found.modules += 1;
                enter(&mut parsers, &mut parser, inner)?;
            }
            Payload::ComponentSection { parser: inner, .. } => {
                enter(&mut parsers, &mut parser, inner)?;
            }
            Payload::End(_) => match parsers.pop() {
                Some(outer) => parser = outer,
                None if rest.is_empty() => return Ok(()),
                None => {
                    return Err(LoadError::Damaged(format!(
                        "{} bytes follow its end",
                        rest.len()
                    )));
                }
            },
            _ => {}
        }
    }
}

fn enter(parsers: &mut Vec<Parser>, parser: &mut Parser, inner: Parser) -> Result<(), LoadError> {
    if parsers.len() >= MAX_DEPTH {
        return Err(LoadError::Damaged(format!(
            "more than {MAX_DEPTH} components lie within each other"
        )));
    }
    parsers.push(std::mem::replace(parser, inner));
    Ok(())
}

fn producers(
    fields: wasmparser::ProducersSectionReader,
    into: &mut Vec<String>,
) -> wasmparser::Result<()> {
    for field in fields {
        let field = field?;
        for value in field.values {
            let value = value?;
            let line = match (value.name, value.version) {
                (name, "") => format!("{} {name}", field.name),
                (name, version) => format!("{} {name} {version}", field.name),
            };
            let line = short(&line);
            if into.len() < MAX_PRODUCERS && !into.contains(&line) {
                into.push(line);
            }
        }
    }
    Ok(())
}

fn list(into: &mut Vec<String>, what: &'static str, name: &str) -> Result<(), LoadError> {
    if into.len() >= MAX_NAMES {
        return Err(LoadError::TooMany {
            what,
            limit: MAX_NAMES,
        });
    }
    into.push(short(name));
    Ok(())
}

/// A name as it is told: bounded, and without what would steer a terminal. One with such characters in it is none of the
/// contract's and none of WASI's, before and after.
fn short(name: &str) -> String {
    let short = name.chars().take(MAX_NAME);
    short
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// `msao:offload/policy@0.1.0` as `policy` and its version.
fn contract_name(name: &str) -> Option<(&str, Version)> {
    let (interface, version) = (name.strip_prefix(PACKAGE)?.strip_prefix('/')?).split_once('@')?;
    Some((interface, Version::parse(version).ok()?))
}

/// Whether a plug-in made for `version` of the contract runs here. Before 1.0.0 that asks for the same minor version.
fn speaks(version: &Version) -> bool {
    (version.major, version.minor) == (CONTRACT.major, CONTRACT.minor)
        && version.pre == CONTRACT.pre
}

fn spoken() -> String {
    format!("{PACKAGE} {}.{}.x", CONTRACT.major, CONTRACT.minor)
}

fn check_version(name: &str, version: &Version) -> Result<(), LoadError> {
    if speaks(version) {
        return Ok(());
    }
    Err(LoadError::OtherVersion {
        export: name.to_owned(),
        age: if *version > CONTRACT {
            "a newer"
        } else {
            "an older"
        },
        spoken: spoken(),
    })
}

impl Inspection {
    /// Checks that it can serve `world` here and asks for nothing else.
    ///
    /// # Errors
    /// The first thing that is in the way.
    pub fn check(&self, world: World) -> Result<(), LoadError> {
        self.problems(world).into_iter().next().map_or(Ok(()), Err)
    }

    /// Everything that is in the way of its serving `world` here, as far as its file says: first what it exports, then what
    /// it imports.
    pub fn problems(&self, world: World) -> Vec<LoadError> {
        let export = required_export(world);
        let mut problems = Vec::new();
        match self.contract.get(export) {
            Some(version) => {
                problems.extend(check_version(&self.export_name(export, version), version).err());
            }
            None => problems.push(LoadError::WrongWorld {
                wanted: world,
                export,
                found: match self.exports.as_slice() {
                    [] => "nothing".to_owned(),
                    exports => exports.join(", ").chars().take(200).collect(),
                },
            }),
        }
        if world == World::OffloadPolicy
            && let Some(version) = self.contract.get("explanation")
        {
            let name = self.export_name("explanation", version);
            problems.extend(check_version(&name, version).err());
        }
        for import in &self.imports {
            match contract_name(import) {
                // Its types, which everything of the contract uses. Interfaces with functions are the plug-in's to export.
                Some(("types", version)) => problems.extend(check_version(import, &version).err()),
                _ if wasi::offered(import) => {}
                _ => problems.push(LoadError::Import {
                    import: import.clone(),
                    hint: wasi::hint(import),
                }),
            }
        }
        problems
    }

    /// The full name of one of the contract's exports, as the component spells it.
    pub(crate) fn full_name(&self, interface: &str) -> Option<String> {
        let version = self.contract.get(interface)?;
        Some(self.export_name(interface, version))
    }

    fn export_name(&self, interface: &str, version: &Version) -> String {
        format!("{PACKAGE}/{interface}@{version}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_speaks_the_version_that_wit_defines() {
        let wit = include_str!("../../../wit/worlds.wit");
        let package = wit.lines().next().unwrap();
        assert_eq!(package, format!("package {PACKAGE}@{CONTRACT};"));
    }

    #[test]
    fn later_patches_are_spoken_and_other_versions_are_not() {
        for (version, spoken) in [
            ("0.1.0", true),
            ("0.1.7", true),
            ("0.1.0-draft", false),
            ("0.2.0", false),
            ("0.0.9", false),
            ("1.0.0", false),
        ] {
            assert_eq!(speaks(&version.parse().unwrap()), spoken, "{version}");
        }
    }

    #[test]
    fn all_that_is_in_the_way_is_told() {
        let found = Inspection {
            size: 1,
            worlds: Vec::new(),
            explains: true,
            contract: BTreeMap::from([("explanation".into(), Version::new(0, 9, 0))]),
            exports: Vec::new(),
            imports: vec![
                "msao:offload/types@0.2.0".into(),
                "wasi:filesystem/types@0.2.0".into(),
                "own:thing/it".into(),
                "msao:offload/types@0.1.3".into(),
            ],
            producers: Vec::new(),
            modules: 1,
        };
        let told: Vec<String> = (found.problems(World::OffloadPolicy).iter())
            .map(ToString::to_string)
            .collect();
        let named = ["policy", "explanation@0.9.0", "types@0.2.0", "own:thing/it"];
        assert_eq!(told.len(), named.len(), "{told:#?}");
        for (told, named) in told.iter().zip(named) {
            assert!(told.contains(named), "{told}\nshould name {named}");
        }
        let first = found.check(World::OffloadPolicy).unwrap_err().to_string();
        assert_eq!(first, told[0]);
    }

    fn sized(bytes: &[u8]) -> Vec<u8> {
        // One byte of LEB128.
        assert!(bytes.len() < 128);
        [&[bytes.len() as u8], bytes].concat()
    }

    #[test]
    fn names_in_a_hostile_file_steer_no_terminal() {
        let producer = [
            sized(b"producers").as_slice(),
            &[1],
            &sized(b"language"),
            &[1],
            &sized(b"Rust\x1b[2J"),
            &sized(b"1.0\n\xc2\x9b31m"),
        ]
        .concat();
        let import = [&[1, 0][..], &sized(b"own:thing/it\x1b]0;mine\x07"), &[1, 0]].concat();
        let file = [
            &b"\0asm\x0d\0\x01\0"[..],
            &[0],
            &sized(&producer),
            &[10],
            &sized(&import),
        ]
        .concat();
        let found = inspect(&file).unwrap();
        assert_eq!(found.producers, ["language Rust [2J 1.0  31m"]);
        assert_eq!(found.imports, ["own:thing/it ]0;mine "]);
        for problem in found.problems(World::OffloadPolicy) {
            let told = problem.to_string();
            assert!(!told.contains(char::is_control), "{told:?}");
        }
    }

    #[test]
    fn files_of_other_kinds_are_told_apart() {
        for (bytes, named) in [
            (&b""[..], "empty"),
            (b"\0as", "damaged"),
            (b"\0asm\x01\0\0\0", "core WebAssembly module"),
            (b"\0asm\x02\0\0\0", "damaged"),
            (b"(component)", "as text"),
            (b"\x7fELF", "native program"),
            (&[0; 4096], "does not begin"),
            (b"\0asm\x0d\0\x01\0\x07\xff", "damaged"),
        ] {
            let error = inspect(bytes).unwrap_err().to_string();
            assert!(error.contains(named), "{error}\nshould say {named}");
        }
    }
}
