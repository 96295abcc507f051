//! scratch
#![allow(warnings)]
use std::time::Instant;
use wasmtime::{Config, Engine, Store, PoolingAllocationConfig, InstanceAllocationStrategy, OptLevel};
use wasmtime::component::{Component, Linker};
use std::num::NonZeroUsize;
fn cfg(unwind: bool, addr: bool, keep: usize, slots: u32) -> Config {
    let mut s = Config::new();
    let n = 256;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(n).total_core_instances(n*8).total_memories(n*2).total_tables(n*4)
        .max_core_instances_per_component(64).max_memories_per_component(8).max_memories_per_module(8)
        .max_tables_per_component(16).max_tables_per_module(16).max_memory_size(128<<20).table_elements(65536)
        .linear_memory_keep_resident(keep).table_keep_resident(keep);
    s.allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .concurrency_support(false).max_wasm_stack(512<<10).wasm_backtrace_max_frames(NonZeroUsize::new(32))
        .cranelift_opt_level(OptLevel::Speed).cranelift_nan_canonicalization(true).wasm_relaxed_simd(true)
        .relaxed_simd_deterministic(true).wasm_simd(true).wasm_bulk_memory(true).wasm_multi_memory(true)
        .wasm_memory64(false).wasm_tail_call(false).epoch_interruption(true)
        .native_unwind_info(unwind).generate_address_map(addr);
    s
}
fn ms(t: Instant) -> f64 { t.elapsed().as_secs_f64()*1e3 }
fn med(mut v: Vec<f64>) -> f64 { v.sort_by(f64::total_cmp); v[v.len()/2] }
fn timed(n: usize, mut f: impl FnMut()) -> f64 { med((0..n).map(|_| { let t = Instant::now(); f(); ms(t) }).collect()) }
fn main() {
    let lang = std::env::args().nth(1).unwrap();
    if std::env::var_os("KEPT").is_some() {
        let wasm = std::fs::read(format!("/work/main/target/plugins/quickest-{lang}.wasm")).unwrap();
        let manifest = msao_core::offload::manifest::Manifest::parse(&std::fs::read_to_string(format!("/work/main/target/plugins/quickest-{lang}.toml")).unwrap()).unwrap();
        let digest = msao_core::digest::Digest::of(&wasm);
        let mut config = msao_sandbox::SandboxConfig { cache: Some("/tmp/wt/sandbox-bin/kept".into()), ..Default::default() };
        config.limits.memory_mib = 128;
        for _ in 0..6 {
            let sandbox = msao_sandbox::Sandbox::new(&config).unwrap();
            let t = Instant::now();
            let p = sandbox.load_named(&wasm, &digest, &manifest).unwrap();
            println!("load_named {:.3} ms", ms(t));
            let mut v = vec![];
            for i in 2..40 { let t = Instant::now(); p.warm(i).unwrap(); v.push(ms(t)*1e3); }
            println!("instantiate {:.1} us", med(v));
        }
        return;
    }
    let unwind = std::env::args().nth(2).unwrap() == "1";
    let addr = std::env::args().nth(3).unwrap() == "1";
    let wasm = std::fs::read(format!("/work/main/target/plugins/quickest-{lang}.wasm")).unwrap();
    println!("sha256 {:.3} ms", timed(5, || { std::hint::black_box(msao_core::digest::Digest::of(&wasm)); }));
    println!("inspect {:.3} ms", timed(5, || { std::hint::black_box(msao_sandbox::inspect(&wasm).unwrap()); }));
    let engine = Engine::new(&cfg(unwind, addr, 0, 0)).unwrap();
    let path = format!("/tmp/wt/sandbox-bin/{lang}-{}-{}.cwasm", unwind as u8, addr as u8);
    if !std::path::Path::new(&path).exists() {
        let t = Instant::now();
        let c = engine.precompile_component(&wasm).unwrap();
        println!("compile {:.0} ms", ms(t));
        std::fs::write(&path, c).unwrap();
    }
    let code = std::fs::read(&path).unwrap();
    println!("size {} wasm {}", code.len(), wasm.len());
    println!("read {:.3} ms", timed(9, || { std::hint::black_box(std::fs::read(&path).unwrap()); }));
    println!("sha256 code {:.3} ms", timed(5, || { std::hint::black_box(msao_core::digest::Digest::of(&code)); }));
    println!("deserialize+drop {:.3} ms", timed(9, || unsafe { std::hint::black_box(Component::deserialize(&engine, &code).unwrap()); }));
    println!("deserialize_file+drop {:.3} ms", timed(9, || unsafe { std::hint::black_box(Component::deserialize_file(&engine, &path).unwrap()); }));
    let mut v = vec![]; let mut d = vec![]; let mut l = vec![]; let mut i1 = vec![];let mut i2 = vec![];
    for k in 0..9 {
        let t = Instant::now();
        let c = unsafe { if k < 100 { Component::deserialize_file(&engine, &path).unwrap() } else { Component::deserialize(&engine, &code).unwrap() } };
        v.push(ms(t));
        let t = Instant::now();
        let mut linker: Linker<()> = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&c).unwrap();
        let pre = linker.instantiate_pre(&c).unwrap();
        l.push(ms(t));
        let t = Instant::now();
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1<<40);
        let inst = pre.instantiate(&mut store);
        if let Err(e) = &inst { println!("{e:?}"); }
        i1.push(ms(t));
        let t = Instant::now();
        let mut store2 = Store::new(&engine, ());
        store2.set_epoch_deadline(1<<40);
        let inst = pre.instantiate(&mut store2);
        i2.push(ms(t));
        let t = Instant::now();
        drop(store); drop(store2); drop(pre); drop(linker); drop(c);
        d.push(ms(t));
    }
    println!("file: deser {:.3} link {:.3} first inst {:.3} second {:.3} drop {:.3}", med(v), med(l), med(i1), med(i2), med(d));
    // bytes
    let t = Instant::now();
    let c = unsafe { Component::deserialize(&engine, &code).unwrap() };
    let a = ms(t);
    let mut linker: Linker<()> = Linker::new(&engine);
    linker.define_unknown_imports_as_traps(&c).unwrap();
    let pre = linker.instantiate_pre(&c).unwrap();
    let t = Instant::now();
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1<<40);
    pre.instantiate(&mut store);
    println!("bytes: deser {a:.3} first inst {:.3}", ms(t));
    drop(store); drop(pre); drop(c);
    // instantiation in fresh and reused slots
    for keep in [0usize, 65536, 1<<20] {
        let engine = Engine::new(&cfg(unwind, addr, keep, 0)).unwrap();
        let c = unsafe { Component::deserialize_file(&engine, &path).unwrap() };
        let mut linker: Linker<()> = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&c).unwrap();
        let pre = linker.instantiate_pre(&c).unwrap();
        let mut fresh = vec![]; let mut stores = vec![];
        for _ in 0..40 {
            let t = Instant::now();
            let mut store = Store::new(&engine, ());
            store.set_epoch_deadline(1<<40);
            pre.instantiate(&mut store).unwrap();
            fresh.push(ms(t)*1e3);
            stores.push(store);
        }
        let t = Instant::now();
        drop(stores);
        let dropped = ms(t)*1e3/40.0;
        let mut again = vec![]; let mut stores = vec![];
        for _ in 0..40 {
            let t = Instant::now();
            let mut store = Store::new(&engine, ());
            store.set_epoch_deadline(1<<40);
            pre.instantiate(&mut store).unwrap();
            again.push(ms(t)*1e3);
            stores.push(store);
        }
        println!("keep {keep}: fresh {:.1} us, reused {:.1} us, drop {dropped:.1} us", med(fresh), med(again));
    }
}
