//! What things cost: models on kinds of node, and plug-ins. Measured elsewhere, and read here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Result, SimulateError, must, within};
use crate::retention::MediaTokens;

/// Largest figure of any kind.
const MOST: f64 = 1e15;
/// Engines that a profile may have.
const MOST_ENGINES: usize = 256;

/// Measured costs.
///
/// ```
/// let profile = msao_simulate::Profile::measured()?;
/// assert_eq!(profile.engines["twin-zen4"].pass_ms, 29.8);
/// # Ok::<(), msao_simulate::SimulateError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Profile {
    /// For people.
    pub name: String,
    /// What calls of plug-ins cost.
    #[serde(default)]
    pub plugins: PluginCost,
    /// What nodes do for a request beside their models.
    #[serde(default)]
    pub nodes: NodeCosts,
    /// A model on a kind of node each, under the name by which a world calls it.
    pub engines: BTreeMap<String, EngineCost>,
}

/// What a plug-in's calls cost, in ms each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PluginCost {
    /// `plan`: the request waits for it.
    pub plan_ms: f64,
    /// `step`: the draft model's next pass waits for it.
    pub step_ms: f64,
    /// `observe`: nobody waits for it.
    pub observe_ms: f64,
    /// `score`: the request waits for it.
    pub score_ms: f64,
}

/// What nodes do for a request beside their models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct NodeCosts {
    /// An edge, from a request's arrival until it is decided about.
    pub edge: NodeCost,
    /// A node with the target, from a session's arrival over a link until its prompt may be read.
    pub cloud: NodeCost,
}

/// What a node does for a request before a model may read its prompt: requests and frames are taken apart, media decoded, prompts
/// laid out. Requests do so beside each other and beside the models, each on a core of its own, unless the world tells how many
/// cores a node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct NodeCost {
    /// For any request, in ms.
    pub request_ms: f64,
    /// And for what becomes one token of a picture, in ms.
    pub picture_ms_per_token: f64,
    /// Of a clip.
    pub clip_ms_per_token: f64,
    /// Of a sound.
    pub sound_ms_per_token: f64,
}

impl NodeCost {
    /// Of a request with these media, in ms.
    pub(crate) fn ms(&self, media: MediaTokens) -> f64 {
        self.request_ms
            + f64::from(media.pictures) * self.picture_ms_per_token
            + f64::from(media.clips) * self.clip_ms_per_token
            + f64::from(media.sounds) * self.sound_ms_per_token
    }

    fn check(&self, at: &str) -> Result<()> {
        for (name, value) in [
            ("request-ms", self.request_ms),
            ("picture-ms-per-token", self.picture_ms_per_token),
            ("clip-ms-per-token", self.clip_ms_per_token),
            ("sound-ms-per-token", self.sound_ms_per_token),
        ] {
            within(|| format!("{at}.{name}"), value, 0.0, 60_000.0)?;
        }
        Ok(())
    }
}

/// What a model costs on a kind of node.
///
/// A pass over `s` answers and `r` rows in all (an answer has a row for its next token, and one for each draft that is held
/// against the model) takes `pass-ms + (s - 1) * row-ms + (r - s) * draft-ms`, and with it go rows of prompts, each
/// `1000 / prefill-tok-per-s` ms. A pass over prompts alone takes `pass-ms` at least.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EngineCost {
    /// The model, for people.
    #[serde(default)]
    pub model: String,
    /// The kind of node, for people.
    #[serde(default)]
    pub on: String,
    /// A pass over one row, in ms.
    pub pass_ms: f64,
    /// Each answer more in it, in ms.
    pub row_ms: f64,
    /// Each draft more in it, in ms.
    pub draft_ms: f64,
    /// Tokens of a prompt a second.
    pub prefill_tok_per_s: f64,
    /// Encoding what becomes one token, in ms.
    pub encoder_ms_per_token: f64,
    /// Of a clip, where that is something else: frames that are alike are encoded once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_encoder_ms_per_token: Option<f64>,
    /// Of a sound, which has an encoder of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sound_encoder_ms_per_token: Option<f64>,
    /// Share of the layers that the probe runs through, in `[0, 1)`.
    pub probe_share: f64,
    /// Working out what the probe saw, in ms.
    pub probe_ms: f64,
    /// Keys and values of a token, in bytes.
    pub kv_bytes_per_token: f64,
    /// Room for keys and values, in MiB.
    pub kv_mib: f64,
    /// Floating-point operations of a token that is decoded or verified, without attention; a multiply and an add are two.
    pub flops_per_token: f64,
    /// Of a token of a prompt, likewise.
    pub prefill_flops_per_token: f64,
    /// Of attention: of a token for each token before it.
    pub flops_per_token_pair: f64,
    /// Of encoding what becomes one token.
    pub encoder_flops_per_token: f64,
    /// How the engine divides its time.
    #[serde(default)]
    pub limits: EngineLimits,
}

/// How an engine divides its time. The defaults are those of the engine's own `ServiceOptions`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct EngineLimits {
    /// Prompts that wait for room at most; more are refused.
    pub waiting: u32,
    /// Rows of decoding and verifying in a pass at most.
    pub decode_rows: u32,
    /// Rows of prompts in a pass that also decodes, at most.
    pub prompt_rows: u32,
    /// How long such a pass may be made by them, in ms.
    pub prompt_slice_ms: f64,
    /// Rows of prompts in a pass in which nobody decodes, at most.
    pub idle_prompt_rows: u32,
    /// How long such a pass may be, in ms.
    pub idle_prompt_slice_ms: f64,
    /// How long a medium is encoded between two passes, in ms.
    pub encode_slice_ms: f64,
}

impl Default for EngineLimits {
    fn default() -> EngineLimits {
        EngineLimits {
            waiting: 64,
            decode_rows: 256,
            prompt_rows: 128,
            prompt_slice_ms: 100.0,
            idle_prompt_rows: 512,
            idle_prompt_slice_ms: 500.0,
            encode_slice_ms: 20.0,
        }
    }
}

impl Profile {
    /// Figures of the demo pair and of a twin with half a billion parameters, as `docs/` has them; each stands with its source
    /// in `profiles/measured.toml`.
    ///
    /// # Errors
    /// None that a released file has.
    pub fn measured() -> Result<Profile> {
        Profile::parse(include_str!("../profiles/measured.toml"))
    }

    /// What RTX 3090 and A100 are taken to be like: reckoned from data sheets, and not measured. `profiles/rtx3090-a100.toml` has how.
    ///
    /// # Errors
    /// None that a released file has.
    pub fn assumed() -> Result<Profile> {
        Profile::parse(include_str!("../profiles/rtx3090-a100.toml"))
    }

    /// Reads and checks a profile in TOML.
    ///
    /// # Errors
    /// [`SimulateError`], naming the field and what is allowed.
    pub fn parse(text: &str) -> Result<Profile> {
        let profile: Profile = toml::from_str(text).map_err(|error| SimulateError::Syntax {
            what: "profile",
            error: Box::new(error),
        })?;
        profile.check()?;
        Ok(profile)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`SimulateError::Value`], naming the field and what is allowed.
    pub fn check(&self) -> Result<()> {
        let count = self.engines.len();
        must(
            (1..=MOST_ENGINES).contains(&count),
            || "engines".to_owned(),
            || format!("has {count} entries; allowed: 1 to {MOST_ENGINES}"),
        )?;
        for (name, value) in [
            ("plan-ms", self.plugins.plan_ms),
            ("step-ms", self.plugins.step_ms),
            ("observe-ms", self.plugins.observe_ms),
            ("score-ms", self.plugins.score_ms),
        ] {
            within(|| format!("plugins.{name}"), value, 0.0, 60_000.0)?;
        }
        self.nodes.edge.check("nodes.edge")?;
        self.nodes.cloud.check("nodes.cloud")?;
        for (name, engine) in &self.engines {
            engine.check(&format!("engines.{name}"))?;
        }
        Ok(())
    }

    /// The engine that a world calls so.
    pub(crate) fn engine(&self, name: &str, field: impl FnOnce() -> String) -> Result<&EngineCost> {
        self.engines.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.engines.keys().map(String::as_str).collect();
            SimulateError::Value {
                field: field(),
                problem: format!(
                    "is \"{name}\"; allowed: an engine of the profile, which has {}",
                    known.join(", ")
                ),
            }
        })
    }
}

impl EngineCost {
    fn check(&self, at: &str) -> Result<()> {
        let limits = &self.limits;
        // Something that takes no time at all would happen for ever at one moment.
        let least_ms = 1e-6;
        for (name, value, least, most) in [
            ("pass-ms", self.pass_ms, least_ms, 60_000.0),
            ("row-ms", self.row_ms, 0.0, 60_000.0),
            ("draft-ms", self.draft_ms, 0.0, 60_000.0),
            ("prefill-tok-per-s", self.prefill_tok_per_s, 1e-3, MOST),
            (
                "encoder-ms-per-token",
                self.encoder_ms_per_token,
                0.0,
                60_000.0,
            ),
            (
                "clip-encoder-ms-per-token",
                self.clip_encoder_ms_per_token.unwrap_or(0.0),
                0.0,
                60_000.0,
            ),
            (
                "sound-encoder-ms-per-token",
                self.sound_encoder_ms_per_token.unwrap_or(0.0),
                0.0,
                60_000.0,
            ),
            ("probe-share", self.probe_share, 0.0, 0.999),
            ("probe-ms", self.probe_ms, 0.0, 60_000.0),
            ("kv-bytes-per-token", self.kv_bytes_per_token, 1e-3, MOST),
            ("kv-mib", self.kv_mib, 1e-3, MOST),
            ("flops-per-token", self.flops_per_token, 0.0, MOST),
            (
                "prefill-flops-per-token",
                self.prefill_flops_per_token,
                0.0,
                MOST,
            ),
            ("flops-per-token-pair", self.flops_per_token_pair, 0.0, MOST),
            (
                "encoder-flops-per-token",
                self.encoder_flops_per_token,
                0.0,
                MOST,
            ),
            ("limits.waiting", f64::from(limits.waiting), 1.0, 1e9),
            (
                "limits.decode-rows",
                f64::from(limits.decode_rows),
                65.0,
                1e6,
            ),
            (
                "limits.prompt-rows",
                f64::from(limits.prompt_rows),
                1.0,
                1e6,
            ),
            (
                "limits.prompt-slice-ms",
                limits.prompt_slice_ms,
                1e-3,
                60_000.0,
            ),
            (
                "limits.idle-prompt-rows",
                f64::from(limits.idle_prompt_rows),
                1.0,
                1e6,
            ),
            (
                "limits.idle-prompt-slice-ms",
                limits.idle_prompt_slice_ms,
                1e-3,
                60_000.0,
            ),
            (
                "limits.encode-slice-ms",
                limits.encode_slice_ms,
                1e-3,
                60_000.0,
            ),
        ] {
            within(|| format!("{at}.{name}"), value, least, most)?;
        }
        Ok(())
    }

    /// Encoding what becomes these tokens, in ms.
    pub(crate) fn encode_ms(&self, media: MediaTokens) -> f64 {
        let or = |of: Option<f64>| of.unwrap_or(self.encoder_ms_per_token);
        f64::from(media.pictures) * self.encoder_ms_per_token
            + f64::from(media.clips) * or(self.clip_encoder_ms_per_token)
            + f64::from(media.sounds) * or(self.sound_encoder_ms_per_token)
    }

    /// Tokens for which there is room.
    pub(crate) fn capacity(&self) -> u32 {
        // Casting saturates.
        (self.kv_mib * 1_048_576.0 / self.kv_bytes_per_token) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_profile_can_be_used() {
        let profile = Profile::measured().unwrap();
        assert_eq!(profile.engines["paced-draft"].pass_ms, 8.0);
        assert_eq!(profile.engines["demo-target-zen3"].capacity(), 838_860);
        let again = Profile::parse(&toml::to_string(&profile).unwrap()).unwrap();
        assert_eq!(again, profile);
    }

    #[test]
    fn what_is_assumed_can_be_used_and_says_that_it_is() {
        let profile = Profile::assumed().unwrap();
        assert!(profile.name.starts_with("assumed"));
        for engine in profile.engines.values() {
            assert!(engine.model.ends_with("(assumed)") && engine.on.ends_with("(assumed)"));
            // A prompt of 2,000 tokens and its answer find room.
            assert!(engine.capacity() > 100_000);
        }
    }

    #[test]
    fn what_media_take_depends_on_their_kind_where_it_is_told() {
        let media = MediaTokens {
            pictures: 10,
            clips: 100,
            sounds: 1000,
        };
        let plain = Profile::measured().unwrap().engines["twin-zen3"].clone();
        assert!((plain.encode_ms(media) - 2.4 * 1110.0).abs() < 1e-9);
        let told = EngineCost {
            clip_encoder_ms_per_token: Some(0.5),
            sound_encoder_ms_per_token: Some(0.25),
            ..plain
        };
        assert!((told.encode_ms(media) - (24.0 + 50.0 + 250.0)).abs() < 1e-9);
        let node = NodeCost {
            request_ms: 2.0,
            picture_ms_per_token: 1.0,
            clip_ms_per_token: 0.5,
            sound_ms_per_token: 0.25,
        };
        assert_eq!(node.ms(media), 2.0 + 10.0 + 50.0 + 250.0);
        assert_eq!(node.ms(MediaTokens::default()), 2.0);
        // And all of it can be written down and read again.
        let mut profile = Profile::measured().unwrap();
        profile.nodes.cloud = node;
        profile.engines.insert("told".to_owned(), told);
        let again = Profile::parse(&toml::to_string(&profile).unwrap()).unwrap();
        assert_eq!(again, profile);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let whole = include_str!("../profiles/measured.toml");
        for (from, to, named) in [
            (
                "pass-ms = 29.8",
                "pass-ms = 0.0",
                "engines.twin-zen4.pass-ms: is 0; allowed: 0.000001 to",
            ),
            (
                "pass-ms = 29.8",
                "pass-ms = nan",
                "engines.twin-zen4.pass-ms: is NaN",
            ),
            (
                "pass-ms = 29.8",
                "pass-ms = -1",
                "engines.twin-zen4.pass-ms: is -1",
            ),
            (
                "probe-share = 0.2\n",
                "probe-share = 1.0\n",
                "engines.demo-target-zen3.probe-share",
            ),
            (
                "[plugins]",
                "[nodes.edge]\nrequest-ms = -1.0\n[plugins]",
                "nodes.edge.request-ms: is -1",
            ),
            (
                "encoder-ms-per-token = 0.81",
                "encoder-ms-per-token = 0.81\nclip-encoder-ms-per-token = nan",
                "engines.twin-zen4.clip-encoder-ms-per-token: is NaN",
            ),
            (
                "step-ms = 0.0004",
                "step-ms = inf",
                "plugins.step-ms: is inf",
            ),
            (
                "step-ms = 0.0004",
                "steps = 1",
                "the profile cannot be read",
            ),
        ] {
            let error = Profile::parse(&whole.replacen(from, to, 1))
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(named),
                "{error}\nshould begin with {named}"
            );
        }
        let none = Profile {
            engines: BTreeMap::new(),
            ..Profile::measured().unwrap()
        };
        assert!(
            none.check()
                .unwrap_err()
                .to_string()
                .starts_with("engines: has 0 entries")
        );
    }
}
