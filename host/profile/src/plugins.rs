//! What calls of plug-ins cost: `msao policy bench` measures them.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use msao_pair::pair::Places;
use msao_simulate::PluginCost;
use serde_json::Value;

/// The policy and the post-processor that are measured.
pub(crate) const POLICY: &str = "msao";
pub(crate) const POSTPROCESSOR: &str = "mas-joint";
/// The policies by which nodes are asked.
pub(crate) const AT_EDGE: &str = "edge-only";
pub(crate) const IN_CLOUD: &str = "cloud-only";
/// Each function is called for so long, in seconds.
const SECONDS: &str = "0.5";

/// Fails where a component is missing.
pub(crate) fn check(places: &Places) -> Result<()> {
    for name in [POLICY, POSTPROCESSOR, AT_EDGE, IN_CLOUD] {
        let path = places.plugins.join(format!("{name}.wasm"));
        ensure!(
            path.is_file(),
            "there is no {}; `cargo xtask plugins` makes it, or name another folder with --plugins",
            path.display()
        );
    }
    Ok(())
}

pub(crate) fn measure(places: &Places) -> Result<PluginCost> {
    let (policy, score) = (bench(places, POLICY)?, bench(places, POSTPROCESSOR)?);
    let of = |calls: &BTreeMap<String, f64>, call: &str| {
        let found = calls.get(call).copied();
        found.with_context(|| format!("`msao policy bench` says nothing of {call}"))
    };
    Ok(PluginCost {
        plan_ms: of(&policy, "plan")?,
        step_ms: of(&policy, "step")?,
        observe_ms: of(&policy, "observe")?,
        score_ms: of(&score, "score")?,
    })
}

/// Median times in ms, by call.
fn bench(places: &Places, name: &str) -> Result<BTreeMap<String, f64>> {
    let mut command = Command::new(&places.msao);
    command.args(["policy", "--json", "bench"]);
    command.arg(places.plugins.join(format!("{name}.wasm")));
    command.args(["--seconds", SECONDS]);
    let output = (command.stdin(Stdio::null()).output())
        .with_context(|| places.msao.display().to_string())?;
    if !output.status.success() {
        bail!(
            "`msao policy bench` of {name} failed: {}{}",
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    read(&serde_json::from_slice(&output.stdout)?)
}

fn read(told: &Value) -> Result<BTreeMap<String, f64>> {
    let figures = told.get("figures").and_then(Value::as_array);
    let each = figures.context("`msao policy bench` told no figures")?;
    let each = each.iter().map(|it| {
        let call = it.get("call").and_then(Value::as_str);
        let ns = it.get("p50-ns").and_then(Value::as_f64);
        let (call, ns) = call.zip(ns).context("a figure without a call or a time")?;
        Ok((call.to_owned(), ns / 1e6))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_told_in_ms_by_call() {
        let told = json!({ "plugin": "msao 0.1.0", "figures": [
            { "call": "plan", "calls": 9, "p50-ns": 4300.0, "p99-ns": 9e3 },
            { "call": "step", "calls": 9, "p50-ns": 400.0, "p99-ns": 9e3 },
        ] });
        let calls = read(&told).unwrap();
        assert_eq!(calls["plan"], 0.0043);
        assert_eq!(calls["step"], 0.0004);
        assert!(read(&json!({ "figures": [{ "call": "plan" }] })).is_err());
        assert!(read(&json!({})).is_err());
    }
}
