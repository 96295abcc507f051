//! Help of a command with many subcommands: in groups, each with a heading.

use clap::Command;

/// The commands of [`crate::PolicyCommands`], in the order in which an operator uses them.
pub const OPERATING: [&str; 12] = [
    "push", "list", "activate", "canary", "promote", "shadow", "rollback", "off", "tune",
    "history", "remove", "rollout",
];

/// The same command, whose help lists its subcommands under headings. Those that no group names come last, without one.
#[must_use]
pub fn grouped(command: Command, groups: &[(&str, &[&str])]) -> Command {
    let header = *command.get_styles().get_header();
    let literal = *command.get_styles().get_literal();
    let listed: Vec<(String, String)> = command
        .get_subcommands()
        .filter(|it| !it.is_hide_set())
        .map(|it| {
            let about = it.get_about().map(ToString::to_string).unwrap_or_default();
            (
                it.get_name().to_owned(),
                about.lines().next().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let width = listed.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, about): &(String, String)| {
        let padding = " ".repeat(width - name.len());
        format!("  {literal}{name}{literal:#}{padding}  {about}\n")
    };
    let mut text = String::new();
    for (heading, names) in groups {
        text.push_str(&format!("{header}{heading}:{header:#}\n"));
        let find = |name: &&str| listed.iter().find(|(listed, _)| listed == name);
        text.extend(names.iter().filter_map(find).map(line));
        text.push('\n');
    }
    let grouped = |name: &String| {
        groups
            .iter()
            .any(|(_, names)| names.contains(&name.as_str()))
    };
    let rest: String = listed
        .iter()
        .filter(|(name, _)| !grouped(name))
        .map(line)
        .collect();
    if !rest.is_empty() {
        text.push_str(&format!("{header}Others:{header:#}\n{rest}\n"));
    }
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{text}{header}Options:{header:#}\n{{options}}"
    ))
}

#[cfg(test)]
mod tests {
    use clap::{Parser, Subcommand};

    use super::*;
    use crate::PolicyCommands;

    /// Another's command.
    #[derive(Subcommand)]
    enum Other {
        /// Make a new plug-in
        New,
        /// Not in any group
        Odd,
    }

    #[derive(Subcommand)]
    enum Both {
        #[command(flatten)]
        Other(Other),
        #[command(flatten)]
        Ours(PolicyCommands),
    }

    /// About plug-ins.
    #[derive(Parser)]
    #[command(name = "policy")]
    struct Policy {
        /// Answer with one JSON value.
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        command: Both,
    }

    fn command() -> Command {
        grouped(
            <Policy as clap::CommandFactory>::command(),
            &[("Write", &["new"]), ("Operate", &OPERATING)],
        )
    }

    #[test]
    fn the_list_stands_in_groups() {
        command().debug_assert();
        let text = command().render_help().to_string();
        let at = |what: &str| {
            text.find(what)
                .unwrap_or_else(|| panic!("no {what} in\n{text}"))
        };
        let order = [
            "About plug-ins",
            "Usage:",
            "Write:",
            "  new ",
            "Operate:",
            "  push ",
            "  rollout ",
            "Others:",
            "  odd ",
            "Options:",
            "--json",
        ];
        let places = order.map(at);
        assert!(places.is_sorted(), "{text}");
        for name in OPERATING {
            at(&format!("\n  {name} "));
        }
    }

    #[test]
    fn every_command_of_ours_is_in_the_list() {
        let names: Vec<String> = command()
            .get_subcommands()
            .map(|it| it.get_name().to_owned())
            .filter(|it| it != "new" && it != "odd")
            .collect();
        assert_eq!(names, OPERATING);
    }

    #[test]
    fn json_may_stand_before_and_after_our_commands() {
        for line in [["policy", "--json", "list"], ["policy", "list", "--json"]] {
            let matches = command().try_get_matches_from(line).unwrap();
            let (_, list) = matches.subcommand().unwrap();
            assert!(list.get_flag("json"), "{line:?}");
        }
        assert!(matches!(
            Policy::parse_from(["policy", "new"]).command,
            Both::Other(Other::New)
        ));
    }

    #[test]
    fn each_command_teaches_with_an_example() {
        let mut command = command();
        let ours = command.get_subcommands_mut();
        for sub in ours.filter(|it| OPERATING.contains(&it.get_name())) {
            let text = sub.render_long_help().to_string();
            assert!(
                text.contains(&format!("  msao policy {}", sub.get_name())),
                "{text}"
            );
            assert!(
                text.contains("--node <URL>") || sub.get_name() == "rollout",
                "{text}"
            );
        }
    }
}
