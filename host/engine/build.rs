//! Passes on where libtorch lies: to this crate's own tests, and to the final crates, whose build scripts set
//! their binaries' run path from it. So no binary needs LD_LIBRARY_PATH.
//!
//! Compiles what tch does not reach of CUDA (`cpp/cuda.cpp`) into a library that `src/cuda.rs` carries in itself and opens
//! behind libtorch's CUDA half. That needs CUDA's headers; without them the engine does without it.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    let lib = env::var("DEP_TCH_LIBTORCH_LIB").ok().map(|lib| {
        // The path as it is now, so that a moved checkout's link does not break an installed binary.
        std::fs::canonicalize(&lib).unwrap_or_else(|_| lib.into())
    });
    if let Some(lib) = &lib {
        println!("cargo::metadata=LIBTORCH={}", lib.display());
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("libmsao_cuda.so");
    match lib.as_deref().and_then(headers) {
        Some(headers) => compile(&headers, &out)?,
        None => {
            println!(
                "cargo::warning=no headers of CUDA: on a GPU this build does without CUDA graphs (`cargo xtask setup` fetches them)"
            );
            std::fs::write(&out, [])?;
        }
    }
    Ok(())
}

/// The folders of headers: libtorch's, and those of CUDA that its own ask for.
fn headers(lib: &Path) -> Option<Vec<PathBuf>> {
    let torch = lib.parent()?.join("include");
    let beside = lib.parent()?.join("wheel/nvidia/cu13/include");
    let home = env::var_os("CUDA_HOME").map_or("/usr/local/cuda".into(), PathBuf::from);
    let whole = |folder: &PathBuf| {
        folder.join("cuda_runtime_api.h").exists() && folder.join("crt/host_defines.h").exists()
    };
    let cuda = [beside, home.join("include")].into_iter().find(whole)?;
    println!(
        "cargo::rerun-if-changed={}",
        cuda.join("crt/host_defines.h").display()
    );
    torch
        .join("ATen/cuda/CUDAGraph.h")
        .exists()
        .then(|| vec![torch, cuda])
}

fn compile(headers: &[PathBuf], out: &Path) -> Result<(), Box<dyn Error>> {
    let mut compiler = cc::Build::new();
    compiler
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .pic(true)
        .flag("-fvisibility=hidden")
        .cargo_metadata(false);
    for folder in headers {
        compiler.flag("-isystem").flag(folder);
    }
    let mut command = compiler.get_compiler().to_command();
    command
        .arg("-shared")
        .arg("cpp/cuda.cpp")
        .arg("-o")
        .arg(out);
    let status = command.status()?;
    if !status.success() {
        return Err(format!("cpp/cuda.cpp could not be compiled ({status}): {command:?}").into());
    }
    Ok(())
}
