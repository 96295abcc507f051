//! Which releases a command is about.

use anyhow::bail;
use clap::Args;
use msao_core::offload::manifest::World;
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::output::{Output, bytes};
use crate::plugin::Plugin;
use crate::release::{Listed, Named, listed, resolve};

/// Releases to take: at most one for each world.
#[derive(Args, Debug, Clone)]
pub struct Chosen {
    /// A release that the node has (NAME@VERSION, or how its digest begins), or a plug-in's folder or .wasm, which is pushed
    /// first. A policy, a post-processor, or one of each; which is which its manifest says.
    #[arg(value_name = "PLUG-IN", num_args = 1..=2, required_unless_present = "no_postprocessor")]
    releases: Vec<String>,
    /// Run without a post-processor from now on.
    #[arg(long)]
    no_postprocessor: bool,
}

/// The body of a change, and what it is about in words.
pub struct Choice {
    /// What the node is sent.
    pub body: Value,
    /// For people.
    pub words: String,
}

impl Chosen {
    /// Finds the releases, and pushes those that lie here.
    ///
    /// # Errors
    /// A name that means none or several, two plug-ins for one place, or what the node says.
    pub fn choice(&self, client: &Client, output: Output) -> anyhow::Result<Choice> {
        let found = find(&self.releases, client, output)?;
        choice_of(&found, self.no_postprocessor)
    }
}

/// The releases of these names; those that lie here are pushed.
pub fn find(names: &[String], client: &Client, output: Output) -> anyhow::Result<Vec<Listed>> {
    let mut there = None;
    names
        .iter()
        .map(|name| match Named::new(name) {
            Named::Here(path) => {
                let plugin = Plugin::read(&path)?;
                plugin.push(client)?;
                let found = plugin.listed();
                output.note(format_args!(
                    "pushed {}, {}",
                    found.words(),
                    bytes(plugin.component_bytes() as f64)
                ));
                Ok(found)
            }
            Named::There(name) => {
                let all = match &mut there {
                    Some(all) => all,
                    none => none.insert(listed(&client.get("/v1/policies")?)),
                };
                Ok(resolve(&name, all)?.clone())
            }
        })
        .collect()
}

/// Each release in its place; what is not named stays as it is.
pub fn choice_of(found: &[Listed], no_postprocessor: bool) -> anyhow::Result<Choice> {
    let mut body = Map::new();
    if no_postprocessor {
        body.insert("postprocessor".to_owned(), json!("nothing"));
    }
    for it in found {
        let place = match it.world {
            World::OffloadPolicy => "policy",
            World::ProbePostprocessor => "postprocessor",
        };
        if body.insert(place.to_owned(), json!(it.release)).is_some() {
            match place {
                "policy" => bail!("two policies are named, and only one can plan: name one"),
                _ if no_postprocessor => bail!(
                    "{} is a post-processor: leave out --no-postprocessor",
                    it.name
                ),
                _ => bail!("two post-processors are named: name one"),
            }
        }
    }
    let mut words: Vec<String> = found.iter().map(Listed::words).collect();
    if no_postprocessor {
        words.push("no post-processor".to_owned());
    }
    Ok(Choice {
        body: Value::Object(body),
        words: words.join(" with "),
    })
}

#[cfg(test)]
mod tests {
    use msao_core::digest::Digest;

    use super::*;
    use crate::release::Release;

    fn listed(name: &str, world: World) -> Listed {
        let digest = Digest::of(name.as_bytes());
        Listed {
            release: Release {
                artifact: digest,
                manifest: digest,
            },
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            world,
            description: String::new(),
            signed: false,
        }
    }

    #[test]
    fn a_manifest_says_which_place_its_plugin_takes() {
        let policy = listed("patient", World::OffloadPolicy);
        let scores = listed("mas", World::ProbePostprocessor);
        let body = |found: &[&Listed], none: bool| {
            let found: Vec<Listed> = found.iter().map(|it| (*it).clone()).collect();
            choice_of(&found, none)
                .map(|it| it.body)
                .map_err(|it| it.to_string())
        };
        let release = |it: &Listed| json!(it.release);
        assert_eq!(
            body(&[&policy], false),
            Ok(json!({"policy": release(&policy)}))
        );
        assert_eq!(
            body(&[&scores, &policy], false),
            Ok(json!({"policy": release(&policy), "postprocessor": release(&scores)}))
        );
        assert_eq!(body(&[], true), Ok(json!({"postprocessor": "nothing"})));
        assert!(
            body(&[&policy, &policy], false)
                .unwrap_err()
                .contains("two policies")
        );
        assert!(
            body(&[&scores, &scores], false)
                .unwrap_err()
                .contains("two post-processors")
        );
        assert!(
            body(&[&scores], true)
                .unwrap_err()
                .contains("--no-postprocessor")
        );
    }
}
