//! What the dashboard shows now, and what keys do to it. No terminal in it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::history::History;
use crate::glance::Glance;

/// What the thread that speaks with the node tells.
#[derive(Debug)]
pub enum News {
    /// A look, at this second of the program's clock.
    Look(f64, Box<Glance>),
    /// No answer, at this second, and why.
    Silent(f64, String),
    /// A rollback is done, or why it is not.
    RolledBack(Result<String, String>),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// End.
    Quit,
    /// Look no more, or again.
    Pause(bool),
    /// Roll back on the node.
    RollBack,
}

/// The dashboard.
#[derive(Debug, Default)]
pub struct App {
    /// Where the node is.
    pub url: String,
    /// What it said.
    pub history: History,
    /// Since which second it has been silent, and why.
    pub silent: Option<(f64, String)>,
    /// Whether it is looked at no more.
    pub paused: bool,
    /// What is to be confirmed.
    pub question: Option<String>,
    /// What became of the last wish.
    pub message: Option<String>,
}

impl App {
    /// Takes what is new.
    pub fn take(&mut self, news: News) {
        match news {
            News::Look(at_s, glance) => {
                self.silent = None;
                self.history.push(at_s, *glance);
            }
            News::Silent(at_s, why) => {
                let since = self.silent.as_ref().map_or(at_s, |(since, _)| *since);
                self.silent = Some((since, why));
            }
            News::RolledBack(Ok(words)) => {
                self.message = Some(format!("rolled back; active is {words}"))
            }
            News::RolledBack(Err(why)) => self.message = Some(format!("not rolled back: {why}")),
        }
    }

    /// What a rollback would do, as a question.
    fn ask(&self) -> Option<String> {
        let glance = self.history.latest()?;
        let goes = match &glance.canary {
            Some(canary) => format!("the canary goes, {}", canary.candidate.words()),
            None => {
                let back = glance
                    .previous
                    .as_ref()
                    .map_or_else(|| "the built-in fallback".to_owned(), |it| it.words());
                format!(
                    "{} goes, {back} comes back",
                    glance.active.as_ref()?.words()
                )
            }
        };
        Some(format!("Roll back on {}? {goes}", glance.node))
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Option<Wish> {
        let interrupt =
            key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        if interrupt {
            return Some(Wish::Quit);
        }
        // Whatever is typed while it is asked answers the question.
        if self.question.take().is_some() {
            return match key.code {
                KeyCode::Char('y') => {
                    self.message = Some("rolling back ...".to_owned());
                    Some(Wish::RollBack)
                }
                _ => {
                    self.message = Some("nothing was changed".to_owned());
                    None
                }
            };
        }
        self.message = None;
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
            KeyCode::Char('p') => {
                self.paused = !self.paused;
                Some(Wish::Pause(self.paused))
            }
            KeyCode::Char('r') => {
                self.question = self.ask();
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> App {
        let mut app = App::default();
        let value = serde_json::from_str(include_str!("../../tests/data/state.json")).unwrap();
        app.take(News::Look(0.0, Box::new(Glance::read(&value))));
        app
    }

    fn press(app: &mut App, key: char) -> Option<Wish> {
        app.key(KeyEvent::from(KeyCode::Char(key)))
    }

    #[test]
    fn a_rollback_happens_after_y_alone() {
        let mut app = app();
        for other in ['n', 'r', 'q', 'Y', ' '] {
            assert_eq!(press(&mut app, 'r'), None);
            assert!(
                app.question
                    .as_ref()
                    .unwrap()
                    .contains("generation 8: patient 0.3.0")
            );
            assert_eq!(press(&mut app, other), None, "{other}");
            assert_eq!(app.question, None);
        }
        assert_eq!(press(&mut app, 'y'), None);
        assert_eq!(press(&mut app, 'r'), None);
        assert_eq!(press(&mut app, 'y'), Some(Wish::RollBack));
        assert_eq!(press(&mut app, 'y'), None);
        app.take(News::RolledBack(Err("no".into())));
        assert_eq!(app.message.as_deref(), Some("not rolled back: no"));
    }

    #[test]
    fn the_question_names_what_goes_and_what_comes() {
        let mut app = app();
        let mut value: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/state.json")).unwrap();
        value["plugins"]["rollout"] = serde_json::Value::Null;
        app.take(News::Look(1.0, Box::new(Glance::read(&value))));
        press(&mut app, 'r');
        assert_eq!(
            app.question.unwrap(),
            "Roll back on edge-1? generation 7: patient 0.2.0 with mas-joint 0.1.0 goes, generation 6: fixed-speculate 0.1.0 comes back"
        );
    }

    #[test]
    fn keys_quit_and_pause() {
        let mut app = app();
        assert_eq!(press(&mut app, 'p'), Some(Wish::Pause(true)));
        assert_eq!(press(&mut app, 'p'), Some(Wish::Pause(false)));
        assert_eq!(press(&mut app, 'q'), Some(Wish::Quit));
        press(&mut app, 'r');
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(app.key(interrupt), Some(Wish::Quit));
        // Nothing is known yet: nothing to ask.
        let mut empty = App::default();
        assert_eq!(press(&mut empty, 'r'), None);
        assert_eq!(empty.question, None);
    }

    #[test]
    fn silence_is_counted_from_its_beginning() {
        let mut app = app();
        app.take(News::Silent(3.0, "a".into()));
        app.take(News::Silent(4.0, "b".into()));
        assert_eq!(app.silent, Some((3.0, "b".into())));
        app.take(News::Look(5.0, Box::default()));
        assert_eq!(app.silent, None);
    }
}
