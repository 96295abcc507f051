//! A frame of the dashboard.
//!
//! ```text
//! node, role, how long it runs                                  what is wrong now
//! Requests   under way, rate                     a curve of requests a second
//! Routes     counts and rates        Drafts and link   acceptance, bytes, peers
//! Models     queues and cache
//! Plug-ins   active, troubles, canary, shadow, before
//! keys, or a question
//! ```

mod parts;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Sparkline, Widget};

use self::parts::{bar, link_of, models_of, rate, routes_of};
use super::app::App;
use super::history::{RECENT_S, SHORT_S};
use crate::glance::{Glance, VerdictKind};
use crate::output::{share, span};
use crate::policy::canary_words;

/// What a frame is drawn of.
pub struct View<'a> {
    /// The dashboard.
    pub app: &'a App,
    /// The second of the program's clock.
    pub clock_s: f64,
    /// Seconds since 1970.
    pub now_s: f64,
}

const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const GOOD: Style = Style::new().fg(Color::Green);
const DIM: Style = Style::new().fg(Color::DarkGray);
const TITLE: Style = Style::new().fg(Color::Cyan);
/// Rows of the routes' table without its head.
const FEWEST_ROUTES: usize = 4;

impl Widget for View<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let nothing = Glance::default();
        let glance = self.app.history.latest().unwrap_or(&nothing);
        let routes = (glance.routes.len() + usize::from(glance.times().is_some()))
            .max(FEWEST_ROUTES)
            .max(glance.peers.len() + 3 + usize::from(glance.unverified > 0));
        let models = glance.draft.iter().chain(&glance.target).count().max(1)
            + usize::from(glance.sessions.is_some());
        let rows = |lines: usize| Constraint::Length(u16::try_from(lines).unwrap_or(u16::MAX));
        let [head, requests, middle, load, plugins, foot] = Layout::vertical([
            rows(1),
            rows(4),
            rows(routes + 3),
            rows(models + 2),
            Constraint::Min(3),
            rows(1),
        ])
        .areas(area);
        self.head(glance, head, buffer);
        self.requests(glance, requests, buffer);
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(58), Constraint::Percentage(42)])
                .areas(middle);
        section("Routes", routes_of(glance, &self.app.history), left, buffer);
        section(
            "Drafts and link",
            link_of(glance, &self.app.history),
            right,
            buffer,
        );
        section("Models", models_of(glance, &self.app.history), load, buffer);
        self.plugins(glance, plugins, buffer);
        self.foot(foot, buffer);
    }
}

/// Lines under a title.
fn section(title: &str, lines: Vec<Line>, area: Rect, buffer: &mut Buffer) {
    let block = Block::bordered()
        .title(Span::styled(format!(" {title} "), TITLE))
        .border_style(DIM);
    let room = usize::from(block.inner(area).height);
    let hidden = (lines.len() + 1).saturating_sub(room);
    let mut shown = lines;
    if shown.len() > room {
        shown.truncate(room.saturating_sub(1));
        shown.push(Line::styled(
            format!("... {hidden} more lines, for which the terminal is too low"),
            DIM,
        ));
    }
    Paragraph::new(shown).block(block).render(area, buffer);
}

impl View<'_> {
    fn head(&self, glance: &Glance, area: Rect, buffer: &mut Buffer) {
        let up = glance
            .started_s
            .map(|it| format!(", up {}", span(self.now_s - it)))
            .unwrap_or_default();
        let mut words = vec![
            Span::styled(
                format!(" {} ({})", glance.node, glance.role),
                Style::new().add_modifier(Modifier::BOLD),
            ),
            Span::raw(format!("  msao {}{up}  {}", glance.version, self.app.url)),
        ];
        if glance.draining {
            words.push(Span::styled("  DRAINING", BAD));
        }
        if self.app.paused {
            words.push(Span::styled("  paused", BAD));
        }
        if let Some((since_s, why)) = &self.app.silent {
            words.push(Span::styled(
                format!("  NO ANSWER for {}: {why}", span(self.clock_s - since_s)),
                BAD,
            ));
        }
        Line::from(words).render(area, buffer);
    }

    fn requests(&self, glance: &Glance, area: Rect, buffer: &mut Buffer) {
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(58), Constraint::Percentage(42)])
                .areas(area);
        let history = &self.app.history;
        let most = glance
            .most
            .map_or_else(|| "?".to_owned(), |it| it.to_string());
        let full = glance
            .most
            .filter(|it| *it > 0)
            .map(|it| glance.under_way as f64 / it as f64);
        let queue = glance.queue_ms.map(|it| format!(" queue {it:.0} ms"));
        let lines = vec![
            Line::from(format!(
                "under way {:>5} of {most:<5} {}{}",
                glance.under_way,
                full.map(bar).unwrap_or_default(),
                queue.unwrap_or_default()
            )),
            Line::from(format!(
                "over    {:>7}   {:>9}, {} in 60 s; {} clients",
                glance.over,
                rate(history.rate(SHORT_S, |it| it.over)),
                rate(history.rate(RECENT_S, |it| it.over)),
                glance.connections
            )),
        ];
        section("Requests", lines, left, buffer);
        let block = Block::bordered()
            .title(Span::styled(" Requests a second ", TITLE))
            .border_style(DIM);
        // The curve is of whole numbers; a tenth of a request a second can be seen.
        let curve: Vec<u64> = history
            .rates(|it| it.over)
            .iter()
            .map(|it| (it * 10.0).round() as u64)
            .collect();
        let width = usize::from(block.inner(right).width);
        let newest = curve
            .get(curve.len().saturating_sub(width)..)
            .unwrap_or_default();
        Sparkline::default()
            .data(newest)
            .style(GOOD)
            .block(block)
            .render(right, buffer);
    }

    fn plugins(&self, glance: &Glance, area: Rect, buffer: &mut Buffer) {
        let mut lines = Vec::new();
        let mut line = |what: &'static str, words: String, style: Style| {
            lines.push(Line::from(vec![
                Span::styled(format!("{what:8} "), DIM),
                Span::styled(words, style),
            ]));
        };
        let plain = Style::new();
        match &glance.active {
            Some(active) => line(
                "active",
                format!(
                    "{}; {} requests, {} under way",
                    active.words(),
                    active.requests,
                    active.in_flight
                ),
                GOOD,
            ),
            None => line("active", "not told".to_owned(), plain),
        }
        if let Some(why) = &glance.not_durable {
            line(
                "trouble",
                format!("the last change is not on the disk: {why}"),
                BAD,
            );
        }
        let canary = glance.canary.as_ref();
        for generation in glance.active.iter().chain(canary.map(|it| &it.candidate)) {
            for words in crate::node::troubles(generation) {
                line(
                    "trouble",
                    format!("generation {}: {words}", generation.number),
                    BAD,
                );
            }
        }
        if let Some(canary) = canary {
            line("canary", canary_words(canary), plain);
            let style = match canary.verdict_kind {
                VerdictKind::Worse => BAD,
                VerdictKind::Fine => GOOD,
                VerdictKind::Hold | VerdictKind::Unknown => plain,
            };
            line("", canary.verdict.clone(), style);
            let (stable, candidate) = (canary.stable_figures, canary.candidate_figures);
            line(
                "",
                format!(
                    "errors {:.1} / {:.1}%, overridden {:.1} / {:.1}%, p95 first token {:.0} / {:.0} ms, it / the others",
                    candidate.errors * 100.0,
                    stable.errors * 100.0,
                    candidate.overrides * 100.0,
                    stable.overrides * 100.0,
                    candidate.ttft_p95_ms,
                    stable.ttft_p95_ms
                ),
                plain,
            );
        }
        if let Some(shadow) = &glance.shadow {
            let (alike, otherwise) = shadow.alike;
            line(
                "shadow",
                format!(
                    "{}; {} alike, {failed} failed, {} not asked",
                    shadow.generation.words(),
                    share(alike, alike + otherwise),
                    shadow.dropped,
                    failed = shadow.failed
                ),
                plain,
            );
        }
        let previous = glance
            .previous
            .as_ref()
            .map_or_else(|| "the built-in fallback".to_owned(), |it| it.words());
        line("before", previous, plain);
        if glance.failing_inputs > 0 {
            line(
                "kept",
                format!(
                    "{} failing inputs (msao node failures)",
                    glance.failing_inputs
                ),
                plain,
            );
        }
        section("Plug-ins", lines, area, buffer);
    }

    fn foot(&self, area: Rect, buffer: &mut Buffer) {
        let line = match (&self.app.question, &self.app.message) {
            (Some(question), _) => {
                Line::styled(format!("y = yes, any other key = no.  {question}"), BAD)
            }
            (None, Some(message)) => Line::raw(message.as_str()),
            (None, None) => Line::styled("q quit   p pause   r roll back", DIM),
        };
        line.render(area, buffer);
    }
}

/// What a buffer shows, without its colours.
pub fn lines(buffer: &Buffer) -> String {
    let area = buffer.area;
    let mut text = String::new();
    for y in area.top()..area.bottom() {
        let row: String = (area.left()..area.right())
            .filter_map(|x| buffer.cell((x, y)))
            .map(|it| it.symbol())
            .collect();
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
