//! The WASI that standard libraries of guest languages insist on, without anything behind it.
//!
//! Rust, Python and others link a few interfaces of WASI 0.2 even into a program that uses none of them. A plug-in gets
//! those, and nothing from them: no arguments, no variables, no files, no input, clocks that stand still at zero. Randomness
//! is a fixed sequence, the same in every instance, which goes on from call to call of an instance: hash tables want seeds,
//! and answers must not depend on them. What is written to standard output or standard error is thrown away but for the last
//! words of both, which a failure shows. Every other function stops the call.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, Resource, ResourceAny, ResourceType, Val};
use wasmtime::{StoreContextMut, format_err};

use crate::instance::State;

/// Bytes of standard error that are kept for a failure.
const MAX_LAST_WORDS: usize = 2048;
/// Bytes that a stream takes at once.
const STREAM_ROOM: u64 = 4096;
/// Bytes of randomness that one call may ask for.
const MAX_RANDOM: u64 = 4096;

/// What every resource is: no file, socket or clock stands behind any.
pub struct Nothing;

/// Whether the import called `name` is one that guest languages insist on.
pub fn offered(name: &str) -> bool {
    let Some((interface, version)) = name.split_once('@') else {
        return false;
    };
    let package = interface.split_once('/').map(|(package, _)| package);
    let listed = [
        "wasi:cli",
        "wasi:io",
        "wasi:clocks",
        "wasi:random",
        "wasi:filesystem",
    ];
    package.is_some_and(|package| listed.contains(&package)) && version.starts_with("0.2.")
}

/// What an author can do about an import that is not offered.
pub fn hint(name: &str) -> &'static str {
    if name.starts_with("wasi:") {
        "; build without it (componentize-py: --stub-wasi; jco: --disable all)"
    } else {
        ""
    }
}

/// Gives `linker` everything that `component` imports. Its imports have been checked.
pub fn link(linker: &mut Linker<State>, component: &Component) -> wasmtime::Result<()> {
    let engine = component.engine().clone();
    let ty = component.component_type();
    for (name, import) in ty.imports(&engine) {
        let ComponentItem::ComponentInstance(instance) = import.ty else {
            continue;
        };
        let mut into = linker.instance(name)?;
        let interface = name.split('@').next().unwrap_or(name).to_owned();
        for (item, export) in instance.exports(&engine) {
            match export.ty {
                ComponentItem::Resource(_) => {
                    into.resource(item, ResourceType::host::<Nothing>(), |_, _| Ok(()))?;
                }
                ComponentItem::ComponentFunc(_) => {
                    let full = format!("{interface}.{item}");
                    into.func_new(item, move |store, _, args, results| {
                        answer(&full, store, args, results)
                    })?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn nothing(store: &mut StoreContextMut<State>) -> wasmtime::Result<Val> {
    let handle: Resource<Nothing> = Resource::new_own(0);
    Ok(Val::Resource(ResourceAny::try_from_resource(
        handle, store,
    )?))
}

/// What each function answers; those that are not here stop the call.
fn answer(
    function: &str,
    mut store: StoreContextMut<State>,
    args: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    let ok = || Val::Result(Ok(None));
    let result = match function {
        "wasi:cli/environment.get-environment"
        | "wasi:cli/environment.get-arguments"
        | "wasi:filesystem/preopens.get-directories" => Val::List(Vec::new()),
        "wasi:cli/environment.initial-cwd"
        | "wasi:cli/terminal-stdin.get-terminal-stdin"
        | "wasi:cli/terminal-stdout.get-terminal-stdout"
        | "wasi:cli/terminal-stderr.get-terminal-stderr"
        | "wasi:filesystem/types.filesystem-error-code" => Val::Option(None),
        "wasi:cli/stdin.get-stdin"
        | "wasi:cli/stdout.get-stdout"
        | "wasi:cli/stderr.get-stderr"
        | "wasi:io/streams.[method]output-stream.subscribe"
        | "wasi:io/streams.[method]input-stream.subscribe" => nothing(&mut store)?,
        "wasi:io/streams.[method]output-stream.check-write" => {
            Val::Result(Ok(Some(Box::new(Val::U64(STREAM_ROOM)))))
        }
        "wasi:io/streams.[method]output-stream.write"
        | "wasi:io/streams.[method]output-stream.blocking-write-and-flush" => {
            keep(&mut store, args.get(1));
            ok()
        }
        "wasi:io/streams.[method]output-stream.flush"
        | "wasi:io/streams.[method]output-stream.blocking-flush" => ok(),
        "wasi:io/streams.[method]input-stream.read"
        | "wasi:io/streams.[method]input-stream.blocking-read" => {
            Val::Result(Err(Some(Box::new(Val::Variant("closed".to_owned(), None)))))
        }
        "wasi:io/poll.[method]pollable.ready" => Val::Bool(true),
        "wasi:io/poll.[method]pollable.block" => return Ok(()),
        "wasi:clocks/monotonic-clock.now" => Val::U64(0),
        "wasi:clocks/monotonic-clock.resolution" => Val::U64(1),
        "wasi:clocks/wall-clock.now" | "wasi:clocks/wall-clock.resolution" => Val::Record(vec![
            ("seconds".to_owned(), Val::U64(0)),
            ("nanoseconds".to_owned(), Val::U32(0)),
        ]),
        "wasi:random/random.get-random-bytes"
        | "wasi:random/insecure.get-insecure-random-bytes" => {
            let Some(&Val::U64(count @ 0..=MAX_RANDOM)) = args.first() else {
                return Err(format_err!(
                    "the plug-in asks for more than {MAX_RANDOM} random bytes at once"
                ));
            };
            let bytes = (0..count).map(|_| Val::U8(store.data_mut().random() as u8));
            Val::List(bytes.collect())
        }
        "wasi:random/random.get-random-u64" | "wasi:random/insecure.get-insecure-random-u64" => {
            Val::U64(store.data_mut().random())
        }
        "wasi:random/insecure-seed.insecure-seed"
        | "wasi:random/insecure-seed.get-insecure-seed" => {
            let data = store.data_mut();
            Val::Tuple(vec![Val::U64(data.random()), Val::U64(data.random())])
        }
        "wasi:cli/exit.exit" | "wasi:cli/exit.exit-with-code" => {
            return Err(format_err!("the plug-in ended itself (wasi:cli/exit)"));
        }
        _ => return Err(format_err!("plug-ins have no {function}")),
    };
    match results {
        [slot] => {
            *slot = result;
            Ok(())
        }
        _ => Err(format_err!("{function} has another type than WASI 0.2's")),
    }
}

/// Keeps the end of what a plug-in writes, for the case that the call fails.
fn keep(store: &mut StoreContextMut<State>, bytes: Option<&Val>) {
    let Some(Val::List(bytes)) = bytes else {
        return;
    };
    let words = &mut store.data_mut().last_words;
    words.extend(bytes.iter().map(|byte| match byte {
        Val::U8(byte) => *byte,
        _ => b'?',
    }));
    let excess = words.len().saturating_sub(MAX_LAST_WORDS);
    words.drain(..excess);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_standard_libraries_need_is_offered() {
        for (name, expected) in [
            ("wasi:cli/environment@0.2.6", true),
            ("wasi:random/random@0.2.0", true),
            ("wasi:sockets/tcp@0.2.0", false),
            ("wasi:http/outgoing-handler@0.2.0", false),
            ("wasi:cli/environment@0.3.0", false),
            ("wasi:cli/environment", false),
            ("wasi:keyvalue/store@0.2.0", false),
            ("env", false),
        ] {
            assert_eq!(offered(name), expected, "{name}");
        }
    }
}
