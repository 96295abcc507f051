//! C: bindings by wit-bindgen, a core module by zig's clang and wasi-libc, a component by wit-component.

use std::fs;
use std::path::{Path, PathBuf};

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;
use wit_component::ComponentEncoder;

use crate::build::{BuildError, Source, at, run, world_of};
use crate::{Language, Tools};

/// Links what the C library pulls in by itself, and nothing that would need the host. The stack is set: zig's own of 16 MiB is
/// more than a node lets a plug-in have by default.
const FLAGS: [&str; 8] = [
    "-target",
    "wasm32-wasi",
    "-mexec-model=reactor",
    "-std=c11",
    "-O2",
    "-s",
    "-Wl,-z,stack-size=262144",
    "-Wall",
];

/// Builds `policy.c`, which includes `bindings.h`.
pub(crate) fn build(
    source: &Source,
    contract: &Path,
    scratch: &Path,
    made: &Path,
    tools: &Tools,
) -> Result<(), BuildError> {
    let world = world_of(
        source,
        Language::C,
        "exports_msao_offload_explanation_explain",
    )?;
    let bindings = bind(contract, &world, &scratch.join("bindings"))?;
    let module = scratch.join("module.wasm");
    let zig = tools.zig().map_err(BuildError::Missing)?;
    let mut compile = zig.command();
    compile
        .arg("cc")
        .args(FLAGS)
        .arg("-I")
        .arg(&bindings)
        .arg(source.folder.join(Language::C.source()))
        .arg(bindings.join("bindings.c"))
        .arg(bindings.join("bindings_component_type.o"))
        .arg("-o")
        .arg(&module);
    run(&mut compile)?;

    let bytes = fs::read(&module).map_err(at(&module))?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| {
            BuildError::Unexpected(format!(
                "the module cannot be made a component: {error:#}. Calls of the C library that need files, clocks or \
                 output are not to be had in the sandbox"
            ))
        })?;
    fs::write(made, component).map_err(at(made))
}

/// Writes `bindings.h`, `bindings.c` and the object that names the world.
fn bind(contract: &Path, world: &str, folder: &Path) -> Result<PathBuf, BuildError> {
    let wrong = |error: anyhow::Error| {
        BuildError::Unexpected(format!("no bindings of world {world}: {error:#}"))
    };
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(contract).map_err(wrong)?;
    let id = resolve
        .select_world(&[package], Some(world))
        .map_err(wrong)?;
    let options = wit_bindgen_c::Opts {
        rename_world: Some("bindings".to_owned()),
        ..wit_bindgen_c::Opts::default()
    };
    let mut files = Files::default();
    options
        .build()
        .generate(&mut resolve, id, &mut files)
        .map_err(wrong)?;
    fs::create_dir_all(folder).map_err(at(folder))?;
    for (name, bytes) in files.iter() {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(at(&path))?;
    }
    Ok(folder.to_owned())
}
