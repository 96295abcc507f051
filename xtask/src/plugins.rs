//! `cargo xtask plugins`: every policy, post-processor and example as a component under `target/plugins`.
//!
//! ```text
//! target/
//!   guests/                  cargo's folder for what is compiled to WebAssembly
//!   plugins/NAME.wasm        the component
//!   plugins/NAME.toml        its manifest
//!   plugins/NAME.inputs      for what cargo does not build: a hash of what it was made of
//! ```

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::places::{Places, target_folder};
use crate::run::{cargo, must};
use crate::toolchain::{self, WASM_TARGET};
use crate::{guest_tools, setup};

/// Folders whose folders are plug-ins. Those without a manifest (the SDK, templates) are none.
const SHELVES: [&str; 3] = ["policies", "plugins", "plugins/examples"];

/// `cargo xtask plugins`.
pub fn command(places: &Places) -> Result<ExitCode> {
    let made = ensure(places)?;
    println!(
        "\n{} components in {}",
        made.len(),
        folder(places)?.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Where components lie.
fn folder(places: &Places) -> Result<PathBuf> {
    Ok(target_folder(places)?.join("plugins"))
}

/// A plug-in in the tree.
struct Guest {
    name: String,
    folder: PathBuf,
}

impl Guest {
    fn is_rust(&self) -> bool {
        self.folder.join("Cargo.toml").is_file()
    }

    fn manifest(&self) -> PathBuf {
        self.folder.join("policy.toml")
    }
}

/// Makes the components that are written in Rust, which takes no more than cargo. Returns their folder.
pub fn ensure_rust(places: &Places) -> Result<PathBuf> {
    let rust: Vec<Guest> = find(places)?.into_iter().filter(Guest::is_rust).collect();
    let plugins = build_rust(places, &rust)?;
    manifests(rust.iter(), &plugins)?;
    setup::row(
        "plug-ins",
        &format!("{} in {}", rust.len(), plugins.display()),
    );
    Ok(plugins)
}

/// Fetches the tools and makes all components that are not there or whose sources have changed. Returns their names.
pub fn ensure(places: &Places) -> Result<Vec<String>> {
    let (rust, others): (Vec<_>, Vec<_>) = find(places)?.into_iter().partition(Guest::is_rust);
    let plugins = build_rust(places, &rust)?;
    others_than_rust(places, &others, &plugins)?;
    let all = || rust.iter().chain(&others);
    manifests(all(), &plugins)?;
    setup::row(
        "plug-ins",
        &format!("{} in {}", all().count(), plugins.display()),
    );
    Ok(all().map(|guest| guest.name.clone()).collect())
}

fn manifests<'a>(guests: impl Iterator<Item = &'a Guest>, plugins: &Path) -> Result<()> {
    for guest in guests {
        let own = plugins.join(format!("{}.toml", guest.name));
        put(&guest.manifest(), &own)?;
    }
    Ok(())
}

fn build_rust(places: &Places, rust: &[Guest]) -> Result<PathBuf> {
    if !toolchain::ensure_wasm_target(places) {
        bail!("plug-ins are built for {WASM_TARGET}: rustup target add {WASM_TARGET}");
    }
    let plugins = folder(places)?;
    fs::create_dir_all(&plugins).with_context(|| format!("cannot make {}", plugins.display()))?;

    let target = target_folder(places)?.join("guests");
    must(
        guest_cargo(places, "build")
            .args(["--release", "--workspace", "--target", WASM_TARGET])
            .arg("--target-dir")
            .arg(&target),
    )?;
    for guest in rust {
        let file = format!("{}.wasm", guest.name.replace('-', "_"));
        let built = target.join(WASM_TARGET).join("release").join(file);
        put(&built, &plugins.join(format!("{}.wasm", guest.name)))?;
    }
    Ok(plugins)
}

/// cargo for the workspace of guests.
pub fn guest_cargo(places: &Places, verb: &str) -> std::process::Command {
    let mut cargo = cargo();
    cargo
        .arg(verb)
        .arg("--manifest-path")
        .arg(places.root.join("plugins").join("Cargo.toml"))
        .current_dir(places.root.join("plugins"));
    cargo
}

fn find(places: &Places) -> Result<Vec<Guest>> {
    let mut guests = Vec::new();
    for shelf in SHELVES {
        let shelf = places.root.join(shelf);
        let entries =
            fs::read_dir(&shelf).with_context(|| format!("cannot read {}", shelf.display()))?;
        for entry in entries.flatten() {
            let folder = entry.path();
            let Ok(manifest) = fs::read_to_string(folder.join("policy.toml")) else {
                continue;
            };
            let name = name_of(&manifest)
                .with_context(|| format!("{}/policy.toml has no name", folder.display()))?;
            guests.push(Guest {
                name: name.to_owned(),
                folder,
            });
        }
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(guests)
}

/// The manifest's own name: its first key of this kind, before any table. Whether it is a good one the host checks.
fn name_of(manifest: &str) -> Option<&str> {
    let line = manifest
        .lines()
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| line.strip_prefix("name = "))?;
    line.trim().strip_prefix('"')?.strip_suffix('"')
}

/// Builds what cargo does not, where its sources or the tools have changed.
fn others_than_rust(places: &Places, guests: &[Guest], plugins: &Path) -> Result<()> {
    let mut stale = Vec::new();
    for guest in guests {
        let component = plugins.join(format!("{}.wasm", guest.name));
        let stamp = plugins.join(format!("{}.inputs", guest.name));
        let inputs = inputs(places, guest)?;
        if !component.is_file() || fs::read_to_string(&stamp).ok().as_deref() != Some(&inputs) {
            stale.push((guest, component, stamp, inputs));
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    guest_tools::ensure(places)?;
    for (guest, component, stamp, inputs) in stale {
        let mut build = cargo();
        build
            .args(["run", "--quiet", "--package", "msao-guests", "--"])
            .arg(&guest.folder)
            .arg(&component)
            .current_dir(&places.root);
        must(&mut build)?;
        fs::write(&stamp, inputs).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    Ok(())
}

/// A hash of everything that a component is made of: sources, contract, tools and what calls them.
fn inputs(places: &Places, guest: &Guest) -> Result<String> {
    let root = &places.root;
    let mut hasher = DefaultHasher::new();
    for folder in [
        &guest.folder,
        &root.join("wit"),
        &root.join("host/guests/src"),
    ] {
        let entries =
            fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.is_file());
        files.sort();
        for file in files {
            file.file_name().hash(&mut hasher);
            read(&file)?.hash(&mut hasher);
        }
    }
    read(&root.join("plugins/toolchains.txt"))?.hash(&mut hasher);
    Ok(format!("{:016x}\n", hasher.finish()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Copies a file where it differs: what has not changed keeps its time, and what is mapped by a running test its bytes.
fn put(from: &Path, to: &Path) -> Result<()> {
    let bytes = read(from)?;
    if fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let fresh = to.with_extension("new");
    fs::write(&fresh, bytes)
        .and_then(|()| fs::rename(&fresh, to))
        .with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_manifests_not_a_parameters() {
        assert_eq!(name_of("name = \"a-b\"\nversion = \"1\"\n"), Some("a-b"));
        assert_eq!(name_of("version = \"1\"\n[[term]]\nname = \"t\"\n"), None);
    }

    #[test]
    fn a_file_that_has_not_changed_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let put_again = |text: &str| {
            fs::write(&from, text).unwrap();
            put(&from, &to).unwrap();
            fs::metadata(&to).unwrap().modified().unwrap()
        };
        let first = put_again("one");
        assert_eq!(put_again("one"), first);
        put_again("two");
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
    }

    #[test]
    fn every_plug_in_of_the_tree_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let places = Places {
            cache: root.join("cache"),
            root,
        };
        let guests = find(&places).unwrap();
        let names: Vec<&str> = guests.iter().map(|guest| guest.name.as_str()).collect();
        for name in [
            "cloud-only",
            "msao",
            "perllm",
            "saliency-only",
            "mas-joint",
            "quickest-c",
            "quickest-rust",
        ] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
    }
}
