//! A plug-in on this disk, as it is pushed: component, manifest, and perhaps a signature.
//!
//! The layout is the one that `msao policy build` and `msao policy sign` leave. What the files say is checked by the node that
//! they are pushed to; here only as much is read as it takes to find them.

use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use msao_core::digest::Digest;
use msao_core::offload::manifest::Manifest;
use serde_json::{Value, json};

use crate::client::Client;
use crate::files;
use crate::release::{Listed, Release};

/// Bytes of a component at most: what a node takes.
const MAX_COMPONENT: u64 = 256 << 20;
/// Bytes of a manifest or a signature at most.
const MAX_TEXT: u64 = 64 << 10;

/// A plug-in, read.
#[derive(Debug)]
pub struct Plugin {
    manifest: Manifest,
    release: Release,
    component_bytes: usize,
    body: Value,
}

impl Plugin {
    /// Reads a plug-in: a folder with `policy.toml` and `target/NAME.wasm`, its `policy.toml`, or a component `NAME.wasm` with
    /// `NAME.toml` or `policy.toml` beside it, or `policy.toml` one folder up. A signature is `NAME.msao.sig` beside the component.
    ///
    /// # Errors
    /// Naming the file, and what makes it.
    pub fn read(path: &Path) -> anyhow::Result<Plugin> {
        let parent = path
            .parent()
            .filter(|it| !it.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let is_manifest = path.file_name().is_some_and(|name| name == "policy.toml");
        let path = if is_manifest { parent } else { path };
        if !path.exists() {
            bail!(
                "{} is not there: name a plug-in's folder or its .wasm",
                path.display()
            );
        }
        let manifest_path = if path.is_dir() {
            path.join("policy.toml")
        } else {
            // Its own comes first: a folder may hold many plug-ins.
            let beside = [path.with_extension("toml"), parent.join("policy.toml")];
            let there = beside.into_iter().find(|path| path.is_file());
            there.unwrap_or_else(|| parent.join("..").join("policy.toml"))
        };
        if !manifest_path.is_file() {
            bail!(
                "{} is missing: a plug-in is a folder with policy.toml and target/NAME.wasm, as `msao policy new` makes one, \
                 or NAME.wasm with NAME.toml or policy.toml beside it, or policy.toml one folder up",
                manifest_path.display()
            );
        }
        let manifest_text = files::read_text(&manifest_path, MAX_TEXT)?;
        let manifest =
            Manifest::parse(&manifest_text).with_context(|| manifest_path.display().to_string())?;
        let component = match path.is_dir() {
            true => path.join("target").join(format!("{}.wasm", manifest.name)),
            false => path.to_owned(),
        };
        if !component.is_file() {
            bail!(
                "{} is missing: run `msao policy build {}` first",
                component.display(),
                path.display()
            );
        }
        let wasm = files::read(&component, MAX_COMPONENT)?;
        let signature_path = component.with_extension("msao.sig");
        let signature = signature_path
            .is_file()
            .then(|| files::read_text(&signature_path, MAX_TEXT))
            .transpose()?;
        Ok(Plugin {
            release: Release {
                artifact: Digest::of(&wasm),
                manifest: Digest::of(manifest_text.as_bytes()),
            },
            component_bytes: wasm.len(),
            body: json!({
                "component": STANDARD.encode(&wasm),
                "manifest": manifest_text,
                "signature": signature,
            }),
            manifest,
        })
    }

    /// Bytes of its component.
    pub fn component_bytes(&self) -> usize {
        self.component_bytes
    }

    /// As a node lists it.
    pub fn listed(&self) -> Listed {
        Listed {
            release: self.release,
            name: self.manifest.name.clone(),
            version: self.manifest.version.to_string(),
            world: self.manifest.world,
            description: self.manifest.description.clone(),
            signed: self.body.get("signature").is_some_and(Value::is_string),
        }
    }

    /// Brings it to a node. Pushing what is there already changes nothing.
    ///
    /// # Errors
    /// What the node says; or it has got something else than what was sent.
    pub fn push(&self, client: &Client) -> anyhow::Result<Value> {
        let answer = client.post("/v1/policies", &self.body)?;
        let got = answer
            .get("release")
            .cloned()
            .map(serde_json::from_value::<Release>);
        match got {
            Some(Ok(release)) if release == self.release => Ok(answer),
            _ => bail!(
                "{} has kept another release than the one that was sent: {answer}",
                client.url()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MANIFEST: &str = "name = \"patient\"\nversion = \"0.1.0\"\nworld = \"offload-policy\"\ndescription = \"d\"\nstate-schema = 1\n";

    #[test]
    fn a_plugin_is_found_by_its_folder_its_manifest_and_its_component() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let told = |path: &Path| format!("{:#}", Plugin::read(path).unwrap_err());
        assert!(told(&at("nowhere")).contains("is not there"));
        assert!(told(folder.path()).contains("msao policy new"));
        fs::write(at("policy.toml"), MANIFEST).unwrap();
        assert!(told(folder.path()).contains("msao policy build"));
        fs::create_dir(at("target")).unwrap();
        fs::write(at("target/patient.wasm"), b"\0asm").unwrap();
        let unsigned = Plugin::read(folder.path()).unwrap();
        assert_eq!(unsigned.body["signature"], Value::Null);
        fs::write(at("target/patient.msao.sig"), "format = 1\n").unwrap();
        for path in [
            folder.path().to_owned(),
            at("policy.toml"),
            at("target/patient.wasm"),
        ] {
            let plugin = Plugin::read(&path).unwrap();
            assert_eq!(plugin.release, unsigned.release);
            assert_eq!(plugin.release.artifact, Digest::of(b"\0asm"));
            assert_eq!(plugin.body["component"], "AGFzbQ==");
            assert_eq!(plugin.body["signature"], "format = 1\n");
            assert_eq!(plugin.body["manifest"], MANIFEST);
        }
        fs::write(at("policy.toml"), "name = 3").unwrap();
        assert!(told(folder.path()).contains("policy.toml"));
    }
}
