//! Runs plug-ins: the only crate that knows wasmtime.
