//! What a configuration may say, and how wrong ones are told.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test's helpers may panic

use std::path::{Path, PathBuf};

use msao_node::config::load::parse;
use msao_node::config::origin::Origin;
use msao_node::config::{Loaded, NodeConfig, Role, load};
use proptest::prelude::*;

const GOOD: &str = "[node]\nname = \"kitchen\"\nrole = \"edge\"\n\n[models.draft]\npath = \"models/demo-draft\"\n\n\
                    [[peers]]\nname = \"cloud\"\naddress = \"cloud.example:7443\"\n";

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, String> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    parse(text, Path::new("/etc/msao/edge.toml"), environment).map_err(|error| error.to_string())
}

#[test]
fn a_good_one_is_read_with_paths_from_its_folder() {
    let loaded = read(GOOD, &[]).unwrap();
    let config = &loaded.config;
    assert_eq!(config.node.role, Role::Edge);
    let draft = config.models.draft.as_ref().unwrap();
    assert_eq!(draft.path, PathBuf::from("/etc/msao/models/demo-draft"));
    assert_eq!(config.node.state, PathBuf::from("/etc/msao/state"));
    assert_eq!(loaded.origins.of("node.name"), Origin::File(2));
    assert_eq!(loaded.origins.of("peers.0.address"), Origin::File(10));
    assert_eq!(loaded.origins.of("api.listen"), Origin::Default);
}

#[test]
fn the_environment_lies_over_the_file() {
    let loaded = read(
        GOOD,
        &[
            ("MSAO_API__LISTEN", "127.0.0.1:9000"),
            ("MSAO_NODE__NAME", "1234"),
            ("MSAO_POLICY__CANARY__MIN_SAMPLES", "50"),
            ("MSAO_LOG__JSON", "true"),
            ("MSAO_MEDIA__FETCH", "[\"*.media.example:8443\"]"),
            ("MSAO_PEERS__0__ADDRESS", "10.0.0.7:7443"),
            ("MSAO_REFERENCE_PYTHON", "no key"),
            ("HOME", "no key either"),
        ],
    )
    .unwrap();
    let config = &loaded.config;
    assert_eq!(config.api.listen.port(), 9000);
    // Reads as a number, and is wanted as a word.
    assert_eq!(config.node.name, "1234");
    assert_eq!(config.policy.canary.min_samples, 50);
    assert!(config.log.json);
    assert_eq!(config.media.fetch, ["*.media.example:8443"]);
    assert_eq!(config.peers[0].address, "10.0.0.7:7443");
    let beyond = read(GOOD, &[("MSAO_PEERS__1__ADDRESS", "10.0.0.8:7443")]);
    assert!(beyond.unwrap_err().contains("peers has 1 entries"));
    assert_eq!(
        loaded.origins.of("policy.canary.min-samples"),
        Origin::Environment("MSAO_POLICY__CANARY__MIN_SAMPLES".into())
    );
}

/// What is written, what is told: the place, the key, and what is allowed.
#[test]
fn what_is_wrong_is_told_with_its_key_its_line_and_what_is_allowed() {
    let with = |more: &str| format!("{GOOD}{more}");
    let cases: [(String, &[&str]); 28] = [
        (
            with("\n[confident]\nbudget = 1.0\n"),
            &[
                ":13:",
                "confident.budget",
                "is 1",
                "above 0 and below 1",
                "left out",
            ],
        ),
        (
            with("\n[confident]\naudit-rate = 0.0\n"),
            &[":13:", "confident.audit-rate", "above 0, at most 1"],
        ),
        (
            with("\n[confident]\ndelta = nan\n"),
            &[":13:", "confident.delta", "above 0 and below 1"],
        ),
        (
            with("\n[confident]\nsettle-drafts = 0\n"),
            &[":13:", "confident.settle-drafts", "1 to 100000000"],
        ),
        (
            with("\n[calibration]\ncheckpoint-ms = 1\n"),
            &[":13:", "calibration.checkpoint-ms", "50 to 600000"],
        ),
        (with("\n[apo]\n"), &[":12:", "apo", "`api`"]),
        (
            with("\n[api]\nlisten = 8080\n"),
            &[":13:", "socket address"],
        ),
        (
            with("\n[api]\nbody-mb = 3\n"),
            &[":13:", "body-mb", "`body-mib`"],
        ),
        (
            with("\n[api]\nbody-mib = 0\n"),
            &[":13:", "api.body-mib", "is 0", "1 to 1024"],
        ),
        (
            with("\n[api]\ntls-cert = \"a.pem\"\n"),
            &["api.tls-key", "is missing"],
        ),
        (
            with("\n[operator]\ntls-key = \"a.key\"\n"),
            &["operator.tls-cert", "is missing"],
        ),
        (
            with("\n[api.keys.me]\nsha256 = \"abc\"\n"),
            &[":13:", "api.keys.me.sha256", "64 hexadecimal"],
        ),
        (
            GOOD.replace("edge", "fog"),
            &[":3:", "fog", "`edge`, `cloud`"],
        ),
        (
            GOOD.replace("role = \"edge\"", "role = \"both\""),
            &["models.target", "is missing"],
        ),
        (
            GOOD.replace("cloud.example:7443", "cloud.example"),
            &[":10:", "peers.0.address", "HOST:PORT"],
        ),
        (
            with("[[peers]]\nname = \"cloud\"\naddress = \"b:1\"\n"),
            &[":12:", "peers.1.name", "given twice"],
        ),
        (
            GOOD.replace("models/demo-draft\"", "m\"\ndevice = \"tpu\""),
            &[":7:", "models.draft.device", "cpu, cuda, cuda:N"],
        ),
        (
            with("\n[policy.canary]\nsteps = [0.5]\n"),
            &[":13:", "policy.canary.steps", "the last one 1"],
        ),
        (
            with("\n[sandbox.limits]\nplan-ms = 0\n"),
            &[":13:", "sandbox.limits.plan-ms", "1 to"],
        ),
        (
            with("\n[policy]\nwarm = 20\n[sandbox]\ninstances = 16\n"),
            &["policy.warm", "0 to sandbox.instances, which is 16"],
        ),
        (
            with("\n[operator]\nlisten = \"0.0.0.0:1\"\n"),
            &[":13:", "operator.listen", "no token"],
        ),
        (
            with("\n[media]\nfps = nan\n"),
            &[":13:", "media.fps", "above 0"],
        ),
        (
            with("\n[media]\nfetch = [\"media.example\", \"https://b.example\"]\n"),
            &[":13:", "media.fetch", "https://b.example", "*.DOMAIN"],
        ),
        (
            with("\n[media]\nfetch-s = 0\n"),
            &[":13:", "media.fetch-s", "is 0", "1 to 600"],
        ),
        (
            with("\n[media]\nfetches = 0\n"),
            &[":13:", "media.fetches", "is 0", "1 to 1024"],
        ),
        (
            with("\n[api]\nbody-mib = 8\nbodies-mib = 8\n[media]\nfetch = [\"*\"]\nmib = 9\n"),
            &[":17:", "media.mib", "1 to api.bodies-mib, which is 8"],
        ),
        (
            with("\n[probe]\nnear-duplicates = nan\n"),
            &[":13:", "probe.near-duplicates", "0 to 16"],
        ),
        (with("\nnode = 3"), &[":12:"]),
    ];
    for (text, words) in cases {
        let error = read(&text, &[]).map(|_| ()).unwrap_err();
        for word in words {
            assert!(
                error.contains(word),
                "\"{word}\" is not in: {error}\n{text}"
            );
        }
    }
}

#[test]
fn a_wrong_variable_is_named() {
    for (variable, value, words) in [
        (
            "MSAO_API__BODY_MIB",
            "0",
            "api.body-mib is 0; allowed: 1 to 1024",
        ),
        ("MSAO_API__BODY_MIB", "big", "invalid type"),
        (
            "MSAO_MEDIA__FETCH",
            "[\"*.\"]",
            "media.fetch has \"*.\"; allowed: HOST",
        ),
        ("MSAO_API__BODIES", "3", "unknown field"),
        ("MSAO_NODE__NAME__X", "3", "no section"),
    ] {
        let error = read(GOOD, &[(variable, value)]).map(|_| ()).unwrap_err();
        assert!(error.starts_with(&format!("{variable}: ")), "{error}");
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn the_shipped_ones_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    for (name, role) in [
        ("edge", Role::Edge),
        ("cloud", Role::Cloud),
        ("single", Role::Both),
    ] {
        let loaded = load(&folder.join(format!("{name}.toml")), []).unwrap();
        assert_eq!(loaded.config.node.role, role);
        for model in [&loaded.config.models.draft, &loaded.config.models.target]
            .into_iter()
            .flatten()
        {
            assert!(model.path.is_dir(), "{}", model.path.display());
        }
    }
}

/// Whoever writes what is in force into a file gets the same again.
#[test]
fn what_is_in_force_reads_back() {
    let config = read(GOOD, &[]).unwrap().config;
    let text = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<NodeConfig>(&text).unwrap(), config);
}

proptest! {
    #[test]
    fn whatever_the_text_there_is_a_configuration_or_an_error(text in "[\\x00-\\x7f]{0,200}") {
        let _ = read(&text, &[]);
    }

    #[test]
    fn whatever_the_variable_there_is_a_configuration_or_an_error(
        name in "MSAO_[A-Z_]{1,20}__[A-Z_]{0,20}",
        value in "[\\x01-\\x7f]{0,40}",
    ) {
        let _ = read(GOOD, &[(&name, &value)]);
    }
}
