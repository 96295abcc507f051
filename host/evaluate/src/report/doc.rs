//! A document, and its two dresses.

use std::fmt::Write as _;

/// Paragraphs, tables and pictures in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Doc {
    pub(super) title: String,
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Debug)]
pub(super) enum Part {
    /// From 2.
    Heading(u8, String),
    Text(String),
    List(Vec<String>),
    Table {
        caption: String,
        head: Vec<String>,
        rows: Vec<Line>,
    },
    /// SVG, made here.
    Picture(String),
}

/// A line of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    pub(super) cells: Vec<String>,
    pub(super) look: Look,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    #[default]
    Usual,
    /// The subject's.
    Strong,
    /// Not ranked.
    Pale,
    Good,
    Bad,
}

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0;font-size:13px}caption{text-align:left;font-weight:bold;padding:.3em 0}\
th,td{border:1px solid #ccc;padding:.25em .6em;text-align:left}th{background:#f2f2f2}.pale td{color:#888;font-style:italic}\
.strong td{font-weight:bold}.good td{background:#e7f5e7}.bad td{background:#fbe7e4}svg{max-width:100%;height:auto}\
.wide{overflow-x:auto}";

impl Doc {
    pub(super) fn heading(&mut self, level: u8, text: impl Into<String>) {
        self.parts.push(Part::Heading(level, text.into()));
    }

    pub(super) fn text(&mut self, text: impl Into<String>) {
        self.parts.push(Part::Text(text.into()));
    }

    /// Nothing, if it has no rows.
    pub(super) fn table(&mut self, caption: impl Into<String>, head: &[&str], rows: Vec<Line>) {
        if rows.is_empty() {
            return;
        }
        self.parts.push(Part::Table {
            caption: caption.into(),
            head: head.iter().map(|it| (*it).to_owned()).collect(),
            rows,
        });
    }

    pub(super) fn html(&self) -> String {
        let title = escape(&self.title);
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\">\n<title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        );
        for part in &self.parts {
            match part {
                Part::Heading(level, text) => put(
                    &mut out,
                    format_args!("<h{level}>{}</h{level}>", escape(text)),
                ),
                Part::Text(text) => put(&mut out, format_args!("<p>{}</p>", escape(text))),
                Part::List(entries) => {
                    let entries: String = entries
                        .iter()
                        .map(|it| format!("<li>{}</li>\n", escape(it)))
                        .collect();
                    put(&mut out, format_args!("<ul>\n{entries}</ul>"));
                }
                Part::Table {
                    caption,
                    head,
                    rows,
                } => {
                    let head: String = head
                        .iter()
                        .map(|it| format!("<th>{}</th>", escape(it)))
                        .collect();
                    put(
                        &mut out,
                        format_args!(
                            "<div class=\"wide\"><table><caption>{}</caption>\n<tr>{head}</tr>",
                            escape(caption)
                        ),
                    );
                    for row in rows {
                        let cells: String = row
                            .cells
                            .iter()
                            .map(|it| format!("<td>{}</td>", escape(it)))
                            .collect();
                        let class = match row.look {
                            Look::Usual => "",
                            Look::Strong => " class=\"strong\"",
                            Look::Pale => " class=\"pale\"",
                            Look::Good => " class=\"good\"",
                            Look::Bad => " class=\"bad\"",
                        };
                        put(&mut out, format_args!("<tr{class}>{cells}</tr>"));
                    }
                    put(&mut out, format_args!("</table></div>"));
                }
                Part::Picture(svg) => put(&mut out, format_args!("{svg}")),
            }
        }
        out.push_str("</body></html>\n");
        out
    }

    pub(super) fn markdown(&self) -> String {
        let mut out = format!("# {}\n", flat(&self.title));
        for part in &self.parts {
            match part {
                Part::Heading(level, text) => {
                    let marks = "#".repeat((*level).into());
                    put(&mut out, format_args!("\n{marks} {}", flat(text)));
                }
                Part::Text(text) => put(&mut out, format_args!("\n{}", flat(text))),
                Part::List(entries) => {
                    out.push('\n');
                    for entry in entries {
                        put(&mut out, format_args!("- {}", flat(entry)));
                    }
                }
                Part::Table {
                    caption,
                    head,
                    rows,
                } => {
                    let line = |cells: &[String]| {
                        let cells: Vec<String> = cells.iter().map(|it| flat(it)).collect();
                        format!("| {} |", cells.join(" | "))
                    };
                    put(
                        &mut out,
                        format_args!("\n**{}**\n\n{}", flat(caption), line(head)),
                    );
                    put(&mut out, format_args!("|{}", "---|".repeat(head.len())));
                    for row in rows {
                        let mut cells = row.cells.clone();
                        if row.look == Look::Pale
                            && let Some(first) = cells.first_mut()
                        {
                            first.push_str(" (not ranked)");
                        }
                        put(&mut out, format_args!("{}", line(&cells)));
                    }
                }
                // The page has them.
                Part::Picture(_) => {}
            }
        }
        out
    }
}

/// For HTML and SVG. What XML has no place for becomes a space.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            it if it.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&it) => escaped.push(' '),
            it => escaped.push(it),
        }
    }
    escaped
}

/// For Markdown: on one line, and nothing that it would take for its own or for HTML.
fn flat(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '*' | '`' | '[' | ']' | '\\' => {
                out.push('\\');
                out.push(it);
            }
            it if it.is_control() => out.push(' '),
            it => out.push(it),
        }
    }
    out
}

pub(super) fn put(out: &mut String, line: std::fmt::Arguments) {
    // A String takes whatever it is given.
    let _written = writeln!(out, "{line}");
}

/// A number with three digits that count, or whole if it is large.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "?".to_owned();
    }
    if size >= 1e15 || (size > 0.0 && size < 1e-3) {
        return format!("{value:.2e}");
    }
    let digits = match size {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// A large number with a prefix of thousands.
pub(super) fn large(value: f64) -> String {
    for (size, prefix) in [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value.abs() >= size {
            return format!("{} {prefix}", number(value / size));
        }
    }
    number(value)
}

/// A dash for what was not measured.
pub(super) fn or_dash(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.map_or("-".to_owned(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_place() {
        let evil = "<script>alert('x')</script>|`&\n\u{0}";
        let mut doc = Doc {
            title: evil.to_owned(),
            ..Doc::default()
        };
        doc.heading(2, evil);
        doc.text(evil);
        doc.parts.push(Part::List(vec![evil.to_owned()]));
        doc.table(
            evil,
            &[evil],
            vec![Line {
                cells: vec![evil.to_owned()],
                look: Look::Pale,
            }],
        );
        let html = doc.html();
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;alert(&#39;x&#39;)"));
        let markdown = doc.markdown();
        assert!(
            !markdown.contains("<script") && markdown.contains("\\|\\`&amp;   (not ranked) |"),
            "{markdown}"
        );
        let before = doc.parts.len();
        doc.table("empty", &[], Vec::new());
        assert_eq!(doc.parts.len(), before);
    }

    #[test]
    fn numbers_have_three_digits() {
        let all = [
            0.0, 0.12345, 1.2345, 12.345, 123.45, 12_345.6, 1.5e18, 0.000_012,
        ];
        assert_eq!(
            all.map(number),
            [
                "0.000", "0.123", "1.23", "12.3", "123", "12346", "1.50e18", "1.20e-5"
            ]
        );
        assert_eq!(
            [950.0, 1_500.0, 2.5e9, 3e17].map(large),
            ["950", "1.50 k", "2.50 G", "300 P"]
        );
        assert_eq!(or_dash(None, number), "-");
        assert_eq!(number(f64::NAN), "?");
    }
}
