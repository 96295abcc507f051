//! Passes on where libtorch lies: to this crate's own tests, and to the final crates, whose build scripts set
//! their binaries' run path from it. So no binary needs LD_LIBRARY_PATH.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        // The path as it is now, so that a moved checkout's link does not break an installed binary.
        let lib = std::fs::canonicalize(&lib).unwrap_or_else(|_| lib.clone().into());
        println!("cargo::metadata=LIBTORCH={}", lib.display());
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
