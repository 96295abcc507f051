//! Compiles the kernels. They are made for x86-64; elsewhere a stand-in takes their place and `supported()` is false.

fn main() {
    println!("cargo::rerun-if-changed=cpp");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(3).warnings(true);
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        build
            .flag("-fopenmp")
            // Nothing here throws, and nobody reads errno.
            .flag("-fno-exceptions")
            .flag("-fno-math-errno")
            // GCC 12 warns about its own intrinsics headers.
            .flag("-Wno-uninitialized")
            .flag("-Wno-maybe-uninitialized")
            // Each unit asks for its own instructions; none are asked for here.
            .files(["select", "avx512", "avx2"].map(|name| format!("cpp/{name}.cpp")))
            .compile("msao_kernels");
        // By name and not as an archive: libtorch asks for the same libgomp.so.1, so the process has one team of threads.
        println!("cargo::rustc-link-lib=dylib=gomp");
    } else {
        build.file("cpp/absent.cpp").compile("msao_kernels");
    }
}
