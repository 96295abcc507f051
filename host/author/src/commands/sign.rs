//! `msao policy keygen` and `msao policy sign`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use msao_registry::SigningKeyFile;
use serde::Serialize;

use super::Which;
use super::signed;
use crate::files;
use crate::output::Output;
use crate::plugin::Project;

/// Make a key that signs plug-ins
///
/// The private key is written to a new file that only you can read (ed25519, PKCS#8 PEM, as openssl reads it). The public
/// key is printed: operators who trust you list it under policy.keys.
///
///   msao policy keygen ~/.config/msao/author.pem
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct KeygenArgs {
    /// The new file.
    file: PathBuf,
}

#[derive(Debug, Serialize)]
struct Key {
    file: PathBuf,
    public: String,
}

pub fn keygen(args: &KeygenArgs, output: Output) -> anyhow::Result<bool> {
    if args.file.exists() {
        bail!(
            "{} is there already; a key is never overwritten: name another file",
            args.file.display()
        );
    }
    if let Some(folder) = args.file.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let key = SigningKeyFile::generate()?;
    key.write_new(&args.file)?;
    let made = Key {
        file: args.file.clone(),
        public: key.public().to_string(),
    };
    output.answer(&made, |made| {
        format!(
            "{}: keep it to yourself. What operators list:\n\n  [policy.keys]\n  your-name = \"{}\"\n",
            made.file.display(),
            made.public
        )
    })?;
    Ok(true)
}

/// Sign a plug-in's component and manifest
///
/// Writes target/NAME.msao.sig. A signature speaks for one component with one manifest: after a build, or a change of
/// policy.toml, sign again. The serial orders releases; nodes refuse one that is older than what they have had. It is one
/// more than that of the signature that is there, or what --serial says.
///
///   msao policy sign --key ~/.config/msao/author.pem
///   msao policy sign . --key author.pem --serial 7
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct SignArgs {
    #[command(flatten)]
    which: Which,
    /// The private key, as `keygen` made it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The release's number, 1 or more.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    serial: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Written {
    signature: PathBuf,
    serial: u64,
    key: String,
    component: String,
    manifest: String,
}

pub fn sign(args: &SignArgs, output: Output) -> anyhow::Result<bool> {
    let project = Project::open(&args.which.path)?;
    let release = signed::release(&project)?;
    // A release that no node would load is not worth a signature.
    project.load(true)?;
    let key = SigningKeyFile::read(&args.key)?;
    let place = signed::place(&project.component);
    let serial = match args.serial {
        Some(serial) => serial,
        None => match signed::read(&project.component) {
            Ok(None) => 1,
            Ok(Some(before)) => before.serial.saturating_add(1),
            Err(error) => {
                return Err(error.context(
                    "the signature that is there cannot be read, so its serial is not known: say --serial",
                ));
            }
        },
    };
    let signature = key.sign(release, serial);
    files::write(&place, signature.to_text().as_bytes())?;
    let written = Written {
        signature: place,
        serial,
        key: key.public().to_string(),
        component: release.artifact.to_string(),
        manifest: release.manifest.to_string(),
    };
    output.answer(&written, |written| {
        format!(
            "{}: serial {}, by {}\n",
            written.signature.display(),
            written.serial,
            written.key
        )
    })?;
    Ok(true)
}
