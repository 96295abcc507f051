//! What values may be. One place, so that nothing is opened before all is known to be right.

use msao_link::shaper::LinkConfig;

use super::hosts::HostPattern;
use super::{ApiKey, Model, NodeConfig, Role};

/// A key whose value may not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted.
    pub key: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

type Checked = Result<(), Problem>;

fn wrong<T>(key: impl Into<String>, problem: impl Into<String>) -> Result<T, Problem> {
    Err(Problem {
        key: key.into(),
        problem: problem.into(),
    })
}

fn within(key: impl Into<String>, value: u32, least: u32, most: u32) -> Checked {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    wrong(key, format!("is {value}; allowed: {least} to {most}"))
}

fn one_of(key: impl Into<String>, value: &str, allowed: &[&str]) -> Checked {
    if allowed.contains(&value) {
        return Ok(());
    }
    wrong(
        key,
        format!("is \"{value}\"; allowed: {}", allowed.join(", ")),
    )
}

fn named(key: impl Into<String>, value: &str) -> Checked {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=64).contains(&value.len()) && value.chars().all(good) {
        return Ok(());
    }
    wrong(
        key,
        format!("is \"{value}\"; allowed: 1 to 64 letters, digits, `-`, `_` and `.`"),
    )
}

fn hash(key: impl Into<String>, value: &str) -> Checked {
    if value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    wrong(
        key,
        "is no SHA-256; expected: 64 hexadecimal digits, as `printf %s SECRET | sha256sum` prints",
    )
}

/// Checks every value.
///
/// # Errors
/// The first that is wrong.
pub fn check(config: &NodeConfig) -> Checked {
    node(config)?;
    models(config)?;
    api(config)?;
    media(config)?;
    let levels = config.probe.near_duplicates;
    if !(0.0..=16.0).contains(&levels) {
        return wrong(
            "probe.near-duplicates",
            format!("is {levels}; allowed: 0 to 16, in grey levels"),
        );
    }
    sessions(config)?;
    operator(config)?;
    config
        .policy
        .check()
        .or_else(|error| wrong(format!("policy.{}", error.field), error.problem))?;
    config.sandbox.check().or_else(|error| match error {
        msao_registry::sandbox::SandboxError::Config { field, problem } => {
            wrong(format!("sandbox.{field}"), problem)
        }
        error => wrong("sandbox", error.to_string()),
    })?;
    warm(config)?;
    learning(config)?;
    config
        .records
        .check()
        .or_else(|error| wrong("records", error.to_string()))
}

/// More instances made ahead than there may be would keep every generation from being loaded.
fn warm(config: &NodeConfig) -> Checked {
    let (warm, instances) = (config.policy.warm, config.sandbox.instances);
    if warm <= instances {
        return Ok(());
    }
    wrong(
        "policy.warm",
        format!("is {warm}; allowed: 0 to sandbox.instances, which is {instances}"),
    )
}

fn learning(config: &NodeConfig) -> Checked {
    let confident = &config.confident;
    let inside = |value: f64| value > 0.0 && value < 1.0;
    if let Some(budget) = confident.budget.filter(|budget| !inside(*budget)) {
        return wrong(
            "confident.budget",
            format!(
                "is {budget}; allowed: above 0 and below 1; left out, nothing is ever committed unverified in a session"
            ),
        );
    }
    if !inside(confident.delta) {
        return wrong(
            "confident.delta",
            format!("is {}; allowed: above 0 and below 1", confident.delta),
        );
    }
    if !(confident.audit_rate > 0.0 && confident.audit_rate <= 1.0) {
        return wrong(
            "confident.audit-rate",
            format!("is {}; allowed: above 0, at most 1", confident.audit_rate),
        );
    }
    within(
        "confident.settle-drafts",
        confident.settle_drafts,
        1,
        100_000_000,
    )?;
    within(
        "calibration.checkpoint-ms",
        config.calibration.checkpoint_ms,
        50,
        600_000,
    )
}

fn node(config: &NodeConfig) -> Checked {
    named("node.name", &config.node.name)?;
    within("node.drain-s", config.node.drain_s, 0, 3600)
}

fn models(config: &NodeConfig) -> Checked {
    let models = &config.models;
    for (name, model) in [("draft", &models.draft), ("target", &models.target)] {
        if let Some(model) = model {
            one(&format!("models.{name}"), model)?;
        }
    }
    let needs = |name: &str, there: bool, why: &str| {
        if there {
            return Ok(());
        }
        wrong(
            format!("models.{name}"),
            format!("is missing; {why}: add [models.{name}] with its path"),
        )
    };
    match config.node.role {
        Role::Edge => needs(
            "draft",
            models.draft.is_some(),
            "role \"edge\" answers and drafts with it",
        ),
        Role::Cloud => needs(
            "target",
            models.target.is_some(),
            "role \"cloud\" answers and verifies with it",
        ),
        Role::Both => {
            needs(
                "draft",
                models.draft.is_some(),
                "role \"both\" needs both models",
            )?;
            needs(
                "target",
                models.target.is_some(),
                "role \"both\" needs both models",
            )
        }
    }
}

fn one(key: &str, model: &Model) -> Checked {
    let at = |name: &str| format!("{key}.{name}");
    one_of(
        at("precision"),
        &model.precision,
        &["model", "f32", "bf16", "f16"],
    )?;
    one_of(at("quantize"), &model.quantize, &["none", "int8"])?;
    let device = model.device.as_str();
    let number = device.strip_prefix("cuda:").map(str::parse::<u8>);
    if !matches!(device, "cpu" | "cuda") && !matches!(number, Some(Ok(_))) {
        return wrong(
            at("device"),
            format!("is \"{device}\"; allowed: cpu, cuda, cuda:N"),
        );
    }
    within(at("threads"), model.threads, 0, 1024)?;
    within(at("cache-mib"), model.cache_mib, 1, 1 << 20)?;
    within(at("media-cache-mib"), model.media_cache_mib, 0, 1 << 20)?;
    within(at("prefixes"), model.prefixes, 0, 1 << 20)?;
    within(at("waiting"), model.waiting, 1, 65_536)
}

/// A listener's certificate and its key.
fn together(section: &str, certificate: bool, key: bool) -> Checked {
    let missing = match (certificate, key) {
        (true, false) => "tls-key",
        (false, true) => "tls-cert",
        _ => return Ok(()),
    };
    wrong(
        format!("{section}.{missing}"),
        "is missing; a certificate and its key go together, or neither is given",
    )
}

fn api(config: &NodeConfig) -> Checked {
    let api = &config.api;
    named("api.model", &api.model)?;
    together("api", api.tls_cert.is_some(), api.tls_key.is_some())?;
    for (name, ApiKey { sha256, .. }) in &api.keys {
        named(format!("api.keys.{name}"), name)?;
        hash(format!("api.keys.{name}.sha256"), sha256)?;
    }
    within("api.body-mib", api.body_mib, 1, 1024)?;
    within("api.bodies-mib", api.bodies_mib, api.body_mib, 1 << 20)?;
    within("api.body-within-s", api.body_within_s, 1, 3600)?;
    within("api.headers-within-s", api.headers_within_s, 1, 600)?;
    within("api.headers-kib", api.headers_kib, 8, 1024)?;
    within("api.connections", api.connections, 1, 1 << 20)?;
    within("api.requests", api.requests, 1, 65_536)?;
    within("api.max-tokens", api.max_tokens, 1, 1 << 20)?;
    within(
        "api.default-max-tokens",
        api.default_max_tokens,
        1,
        api.max_tokens,
    )?;
    within("api.unread-s", api.unread_s, 1, 3600)
}

fn media(config: &NodeConfig) -> Checked {
    let media = &config.media;
    within("media.items", media.items, 0, 1024)?;
    within("media.mib", media.mib, 1, 1024)?;
    within("media.decoded-mib", media.decoded_mib, 1, 1 << 16)?;
    within("media.decoders", media.decoders, 0, 1024)?;
    within("media.frames", media.frames, 1, 4096)?;
    for (key, value, most) in [
        ("media.megapixels", media.megapixels, 1000.0),
        ("media.video-s", media.video_s, 36_000.0),
        ("media.audio-s", media.audio_s, 36_000.0),
        ("media.fps", media.fps, 60.0),
    ] {
        if !(value > 0.0 && value <= most) {
            return wrong(key, format!("is {value}; allowed: above 0 to {most}"));
        }
    }
    within("media.fetch-s", media.fetch_s, 1, 600)?;
    within("media.fetches", media.fetches, 1, 1024)?;
    if let Some(odd) = (media.fetch.iter()).find(|text| HostPattern::parse(text).is_none()) {
        return wrong(
            "media.fetch",
            format!("has \"{odd}\"; allowed: HOST, *.DOMAIN or *, each with :PORT or without"),
        );
    }
    // One that is larger would find no room however often it is asked for.
    if !media.fetch.is_empty() && media.mib > config.api.bodies_mib {
        return wrong(
            "media.mib",
            format!(
                "is {}; allowed where media.fetch names hosts: 1 to api.bodies-mib, which is {}",
                media.mib, config.api.bodies_mib
            ),
        );
    }
    Ok(())
}

fn sessions(config: &NodeConfig) -> Checked {
    let sessions = &config.sessions;
    let plain = sessions.tls.is_none();
    if config.node.role.serves_nodes() && plain && !sessions.listen.ip().is_loopback() {
        return wrong(
            "sessions.listen",
            format!(
                "is {}, beyond this machine, without TLS; sessions.tls names the folder of ca.pem, node.pem and node.key",
                sessions.listen
            ),
        );
    }
    within("sessions.lease-ms", sessions.lease_ms, 0, 60_000)?;
    within("sessions.heartbeat-ms", sessions.heartbeat_ms, 10, 60_000)?;
    within(
        "sessions.gone-after-ms",
        sessions.gone_after_ms,
        sessions.heartbeat_ms.saturating_mul(2),
        600_000,
    )?;
    within("sessions.most", sessions.most, 1, 65_536)?;
    within("sessions.media-mib", sessions.media_mib, 1, 1 << 20)?;
    let mut names = std::collections::BTreeSet::new();
    for (number, peer) in config.peers.iter().enumerate() {
        let at = |name: &str| format!("peers.{number}.{name}");
        named(at("name"), &peer.name)?;
        if !names.insert(&peer.name) {
            return wrong(at("name"), format!("\"{}\" is given twice", peer.name));
        }
        let port = peer.address.rsplit_once(':').map(|(host, port)| {
            (
                !host.is_empty(),
                port.parse::<u16>().is_ok_and(|port| port > 0),
            )
        });
        if port != Some((true, true)) {
            return wrong(
                at("address"),
                format!("is \"{}\"; expected: HOST:PORT", peer.address),
            );
        }
        if let Some(Err(error)) = peer.shape.as_ref().map(LinkConfig::check) {
            return wrong(at(&format!("shape.{}", error.field)), error.problem);
        }
        if !(peer.price_per_mtok.is_finite()
            && (peer.price_per_mtok >= 0.0 || peer.price_per_mtok == -1.0))
        {
            return wrong(
                at("price-per-mtok"),
                format!(
                    "is {}; allowed: 0 or more, or -1 for unknown",
                    peer.price_per_mtok
                ),
            );
        }
    }
    Ok(())
}

fn operator(config: &NodeConfig) -> Checked {
    let (cert, key) = (&config.operator.tls_cert, &config.operator.tls_key);
    together("operator", cert.is_some(), key.is_some())?;
    for (name, token) in &config.operator.tokens {
        named(format!("operator.tokens.{name}"), name)?;
        hash(format!("operator.tokens.{name}.sha256"), &token.sha256)?;
    }
    if let Some(listen) = config.operator.listen
        && !listen.ip().is_loopback()
        && config.operator.tokens.is_empty()
    {
        return wrong(
            "operator.listen",
            format!(
                "is {listen}, beyond this machine, with no token; add [operator.tokens.NAME] with sha256 and role"
            ),
        );
    }
    Ok(())
}
