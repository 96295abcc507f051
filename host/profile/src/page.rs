//! A profile as a file: each figure under a line that says how it was measured.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};
use msao_evaluate::profiled::Figure;
use msao_pair::pair::{CACHE_MIB, WAITING};
use msao_simulate::{NodeCost, PluginCost};

use crate::PRECISION;
use crate::engine::{ANSWERS, DRAFTS, EngineFigures, PASSES};
use crate::nodes::NodeFigures;
use crate::plugins::{POLICY, POSTPROCESSOR};
use crate::questions::Kind;

/// What was measured, by which the file is written.
pub(crate) struct Page<'a> {
    pub machine: &'a str,
    pub threads: u16,
    pub plugins: &'a PluginCost,
    pub draft: (&'a Path, &'a EngineFigures),
    pub target: (&'a Path, &'a EngineFigures),
    pub nodes: &'a NodeFigures,
}

/// Tables that are being written.
#[derive(Default)]
struct Tables {
    text: String,
    table: String,
    figures: Vec<Figure>,
    odd: Option<String>,
}

impl Tables {
    fn table(&mut self, name: &str) {
        let _ = write!(self.text, "\n[{name}]\n");
        name.clone_into(&mut self.table);
    }

    fn word(&mut self, name: &str, word: &str) {
        // A string of TOML's is one of Rust's, but for some escapes of what is no letter.
        let word: String = word
            .chars()
            .map(|it| match it {
                '"' | '\\' => '\'',
                it if it.is_control() => ' ',
                it => it,
            })
            .collect();
        let _ = writeln!(self.text, "{name} = \"{word}\"");
    }

    /// In four digits, so that people can read it.
    fn figure(&mut self, name: &str, value: f64, how: &str) {
        if !value.is_finite() {
            self.odd
                .get_or_insert_with(|| format!("{}.{name}", self.table));
        }
        let value: f64 = format!("{value:.3e}").parse().unwrap_or(value);
        let _ = write!(self.text, "# {how}\n{name} = {value:?}\n");
        self.figures.push(Figure {
            table: self.table.clone(),
            name: name.to_owned(),
            value,
            how: how.to_owned(),
        });
    }
}

impl Page<'_> {
    /// The file's text, and the same as figures.
    ///
    /// # Errors
    /// A figure is no number.
    pub fn written(&self) -> Result<(String, Vec<Figure>)> {
        let mut out = Tables {
            text: format!(
                "# What `msao bench profile` measured on {}. Models in {PRECISION}, threads of each: {}.\n\nname = \"measured here\"\n",
                self.machine.replace('\n', " "),
                self.threads
            ),
            ..Tables::default()
        };
        out.table("plugins");
        for (name, value, plugin) in [
            ("plan-ms", self.plugins.plan_ms, POLICY),
            ("step-ms", self.plugins.step_ms, POLICY),
            ("observe-ms", self.plugins.observe_ms, POLICY),
            ("score-ms", self.plugins.score_ms, POSTPROCESSOR),
        ] {
            out.figure(
                name,
                value,
                &format!("`msao policy bench` of {plugin}: the median"),
            );
        }
        let count = self.nodes.questions;
        out.table("nodes.edge");
        node(
            &mut out,
            &self.nodes.edge,
            &format!(
                "an edge that answers by itself: what a client waits for one token less the time in which the model computed, {count} questions"
            ),
        );
        out.table("nodes.cloud");
        node(
            &mut out,
            &self.nodes.cloud,
            "the same questions answered by the target over a link that takes no time: what that takes longer, likewise",
        );
        let (folder, found) = self.draft;
        let told = (self.nodes.draft_token_ms, self.nodes.draft_tokens);
        self.engine(&mut out, "draft", folder, found, told);
        let (folder, found) = self.target;
        let told = (self.nodes.target_token_ms, self.nodes.target_tokens);
        self.engine(&mut out, "target", folder, found, told);
        if let Some(odd) = out.odd {
            anyhow::bail!("{odd} is no number: what it is made of was not measured");
        }
        ensure!(!out.figures.is_empty(), "nothing was measured");
        Ok((out.text, out.figures))
    }

    fn engine(
        &self,
        out: &mut Tables,
        name: &str,
        folder: &Path,
        found: &EngineFigures,
        (token_ms, tokens): (f64, u64),
    ) {
        out.table(&format!("engines.{name}"));
        out.word("model", &format!("{}, {PRECISION}", folder.display()));
        out.word("on", &format!("{}, {}", self.machine, found.kernels));
        let place = match name {
            "draft" => "the edge",
            _ => "the cloud",
        };
        out.figure(
            "pass-ms",
            token_ms,
            &format!("a token of an answer of {place}'s through the whole node, {tokens} tokens"),
        );
        let service = format!(
            "the service: {ANSWERS} answers at once, {:.1} rows a pass, beside one alone",
            found.rows
        );
        // Sharing a pass shares what the model does. What the node does for a token it does for each.
        let (row_ms, how) = match self.threads {
            1 => (
                found.row_ms + (token_ms - found.pass_ms).max(0.0),
                format!(
                    "{service}; and by what a token through the node takes longer than a pass of the service"
                ),
            ),
            // There may be other cores for it.
            _ => (found.row_ms, service),
        };
        out.figure("row-ms", row_ms, &how);
        out.figure(
            "draft-ms",
            found.draft_ms,
            &format!("the service: a verdict on {DRAFTS} drafts beside one token, medians of {PASSES} each"),
        );
        out.figure(
            "prefill-tok-per-s",
            found.prefill_tok_per_s,
            &format!(
                "the service: {} prompts, each the first about its medium; beginnings that it kept count as read",
                found.prompts
            ),
        );
        for (kind, per_token_ms) in &found.encoders {
            let name = match kind {
                Kind::Text => continue,
                Kind::Picture => "encoder-ms-per-token",
                Kind::Clip => "clip-encoder-ms-per-token",
                Kind::Sound => "sound-encoder-ms-per-token",
            };
            let how = format!(
                "the same, {}: time of the encoder by token of the medium",
                kind.name()
            );
            out.figure(name, *per_token_ms, &how);
        }
        out.figure("probe-share", found.probe_share, "of the model's layers");
        out.figure(
            "probe-ms",
            found.probe_ms,
            "the same prompts once more with the probe in front: what that took beyond encoding and its layers, the median",
        );
        out.figure(
            "kv-bytes-per-token",
            found.kv_bytes_per_token,
            "the cache, by the tokens that it has room for",
        );
        out.figure("kv-mib", f64::from(CACHE_MIB), "as the nodes were given it");
        for (name, value, how) in [
            (
                "flops-per-token",
                found.flops_per_token,
                "the meter, passes over an answer",
            ),
            (
                "prefill-flops-per-token",
                found.prefill_flops_per_token,
                "the meter, prompts",
            ),
            (
                "flops-per-token-pair",
                found.flops_per_token_pair,
                "4 by layers by heads by their size",
            ),
            (
                "encoder-flops-per-token",
                found.encoder_flops_per_token,
                "the meter, all media together",
            ),
        ] {
            out.figure(name, value.max(0.0), how);
        }
        out.table(&format!("engines.{name}.limits"));
        let _ = write!(
            out.text,
            "# as the nodes were given it; the others are the engine's defaults\nwaiting = {WAITING}\n"
        );
    }
}

fn node(out: &mut Tables, cost: &NodeCost, how: &str) {
    out.figure(
        "request-ms",
        cost.request_ms,
        &format!("{how}; the middle of those about words alone"),
    );
    for (name, value, kind) in [
        (
            "picture-ms-per-token",
            cost.picture_ms_per_token,
            "a picture",
        ),
        ("clip-ms-per-token", cost.clip_ms_per_token, "a clip"),
        ("sound-ms-per-token", cost.sound_ms_per_token, "a sound"),
    ] {
        out.figure(
            name,
            value,
            &format!("what those about {kind} took longer, by token of it"),
        );
    }
}

#[cfg(test)]
mod tests {
    use msao_simulate::Profile;

    use super::*;

    fn found() -> EngineFigures {
        EngineFigures {
            kernels: "avx2",
            pass_ms: 1.0,
            row_ms: 0.123_456,
            rows: 7.5,
            draft_ms: 0.0,
            prefill_tok_per_s: 12_345.678,
            prompts: 64,
            encoders: vec![(Kind::Picture, 0.5), (Kind::Sound, 0.25)],
            probe_share: 0.5,
            probe_ms: 0.0,
            kv_bytes_per_token: 640.0,
            flops_per_token: 2.74e6,
            prefill_flops_per_token: 2.53e6,
            flops_per_token_pair: 3200.0,
            encoder_flops_per_token: 4.0e6,
        }
    }

    fn written(found: &EngineFigures) -> Result<(String, Vec<Figure>)> {
        let plugins = PluginCost {
            plan_ms: 0.0043,
            step_ms: 0.0004,
            observe_ms: 0.0035,
            score_ms: 0.242,
        };
        let nodes = NodeFigures {
            edge: NodeCost {
                request_ms: 1.5,
                clip_ms_per_token: 0.75,
                ..NodeCost::default()
            },
            cloud: NodeCost::default(),
            draft_token_ms: 0.4,
            target_token_ms: 1.25,
            draft_tokens: 400,
            target_tokens: 300,
            questions: 64,
        };
        Page {
            machine: "a processor of \"ours\", 2 cores",
            threads: 1,
            plugins: &plugins,
            draft: (Path::new("models/demo-draft"), found),
            target: (Path::new("models/demo-target"), found),
            nodes: &nodes,
        }
        .written()
    }

    #[test]
    fn what_is_written_is_a_profile_and_says_how_each_figure_was_measured() {
        let (text, figures) = written(&found()).unwrap();
        let profile = Profile::parse(&text).unwrap();
        assert_eq!(profile.plugins.plan_ms, 0.0043);
        assert_eq!(profile.nodes.edge.clip_ms_per_token, 0.75);
        let target = &profile.engines["target"];
        // The target's token takes a quarter of a millisecond more than its pass, for each answer; the draft's took less.
        assert_eq!((target.pass_ms, target.row_ms), (1.25, 0.3735));
        let draft = &profile.engines["draft"];
        assert_eq!((draft.pass_ms, draft.row_ms), (0.4, 0.1235));
        assert_eq!(target.prefill_tok_per_s, 12_350.0);
        assert_eq!(target.sound_encoder_ms_per_token, Some(0.25));
        assert_eq!(target.clip_encoder_ms_per_token, None);
        assert_eq!(target.limits.waiting, WAITING);
        let mut lines = text.lines().peekable();
        let mut figures_found = 0;
        while let Some(line) = lines.next() {
            let next = lines.peek().unwrap_or(&"");
            if line.starts_with("# ") && next.contains(" = ") {
                figures_found += 1;
            }
        }
        // All of them, and the limit.
        assert_eq!(figures_found, figures.len() + 2);
        assert!(figures.iter().all(|figure| !figure.how.is_empty()));
    }

    #[test]
    fn what_was_not_measured_is_named() {
        let none = EngineFigures {
            prefill_tok_per_s: f64::NAN,
            ..found()
        };
        let error = written(&none).unwrap_err().to_string();
        assert!(
            error.starts_with("engines.draft.prefill-tok-per-s is no number"),
            "{error}"
        );
    }
}
