//! What the policy that decided says of its decision itself, added to the host's account of it.

use msao_core::offload::record::DecisionRecord;
use msao_registry::Plugins;

/// The policy's own words about `record`, or why there are none. Calls a plug-in: on a blocking thread only.
pub fn own_words(plugins: &Plugins, record: &DecisionRecord) -> String {
    let said = match plugins.explain(record) {
        Ok(words) => indented(&words),
        Err(why) => format!("  none: {why}\n"),
    };
    format!("\nIn the policy's own words\n{said}")
}

/// Lines from inside a plug-in, without what would steer a terminal.
fn indented(words: &str) -> String {
    let plain = |line: &str| -> String {
        let plain = line.chars().map(|c| if c.is_control() { ' ' } else { c });
        plain.collect()
    };
    let lines = words.trim_end().lines();
    lines.map(|line| format!("  {}\n", plain(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_from_inside_a_plug_in_steer_no_terminal() {
        assert_eq!(
            indented("the link is slow\n\x1b[2Jgamma\tis 4\r\n"),
            "  the link is slow\n   [2Jgamma is 4\n"
        );
    }
}
