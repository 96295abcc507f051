//! `msao node calibration`.

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use crate::connect::Common;
use crate::output::{plain, table};

/// Tell what the active plug-ins have learned of outcomes, or have one forget it
///
/// A cell is what a plug-in's `observe` has summed up under a key of its own.
///
///   msao node calibration
///   msao node calibration --reset patient
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct CalibrationArgs {
    /// Forget all that this plug-in has learned. Cannot be undone; needs a token of the role activate.
    #[arg(long, value_name = "PLUG-IN")]
    reset: Option<String>,
    /// Cells of each plug-in that are listed; --json has all.
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "reset")]
    cells: usize,
    #[command(flatten)]
    pub(super) common: Common,
}

pub fn run(args: &CalibrationArgs) -> anyhow::Result<bool> {
    let (client, output) = (args.common.client()?, args.common.output());
    if let Some(plugin) = &args.reset {
        let answer = client.post("/v1/calibration/reset", &json!({ "plugin": plugin }))?;
        output.answer(&answer, |answer| {
            let cells = answer.get("cells").and_then(Value::as_u64).unwrap_or(0);
            format!("{plugin} has forgotten {cells} cells\n")
        })?;
        return Ok(true);
    }
    let value = client.get("/v1/calibration")?;
    let learned = value
        .as_object()
        .context("the node's calibration is not understood: update this program")?;
    let text: String = learned
        .iter()
        .map(|(name, it)| words(&plain(name), it, args.cells))
        .collect();
    output.answer(&value, |_| match text.is_empty() {
        true => "no plug-in is active\n".to_owned(),
        false => text,
    })?;
    Ok(true)
}

/// One plug-in's cells.
fn words(name: &str, calibration: &Value, most: usize) -> String {
    let column = |name: &str| {
        let values = calibration.get(name).and_then(Value::as_array);
        values.cloned().unwrap_or_default()
    };
    let (keys, mean, variance, count) = (
        column("keys"),
        column("mean"),
        column("variance"),
        column("count"),
    );
    if keys.is_empty() {
        return format!("{name}: nothing yet\n");
    }
    let figure = |values: &[Value], at: usize| {
        let value = values.get(at).and_then(Value::as_f64);
        value.map_or_else(|| "-".to_owned(), |it| format!("{it:.4}"))
    };
    let rows: Vec<Vec<String>> = keys
        .iter()
        .enumerate()
        .take(most)
        .map(|(at, key)| {
            vec![
                key.to_string(),
                figure(&count, at),
                figure(&mean, at),
                figure(&variance, at),
            ]
        })
        .collect();
    let more = keys.len().saturating_sub(most);
    let more = if more > 0 {
        format!("  and {more} more\n")
    } else {
        String::new()
    };
    format!(
        "{name}: {} cells\n{}{more}",
        keys.len(),
        table(&["key", "count", "mean", "variance"], &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_listed_so_far() {
        let calibration =
            json!({"keys": [1, 9], "mean": [0.5, 2.0], "variance": [0.0], "count": [4.0, 7.0]});
        assert_eq!(
            words("patient", &calibration, 1),
            "patient: 2 cells\n  key   count    mean  variance\n    1  4.0000  0.5000    0.0000\n  and 1 more\n"
        );
        assert!(words("patient", &calibration, 5).contains("2.0000         -"));
        assert_eq!(words("patient", &json!({}), 5), "patient: nothing yet\n");
    }
}
