//! `msao top`: a node, as it changes.
//!
//! One thread asks the node ([`ask`]) and one reads keys ([`keys`]), so that neither holds up the other; [`app`] is what is shown and
//! what keys do, [`view`] draws it, [`screen`] gives the terminal back on every way out.

mod app;
mod ask;
mod history;
mod keys;
mod screen;
mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget as _;

use self::app::{App, News, Wish};
use self::view::View;
use crate::connect::Common;
use crate::glance::Glance;
use crate::interrupt::Interrupt;
use crate::output::{now_s, say};

/// Between two looks at the node.
const EVERY: Duration = Duration::from_secs(1);
/// A dashboard that waits longer is out of date.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a key may wait.
const KEYS: Duration = Duration::from_millis(100);
/// How long after a failing terminal a signal may come that says why.
const HANGUP: Duration = Duration::from_millis(200);
/// A frame that is printed.
const PRINTED: Rect = Rect::new(0, 0, 100, 32);

/// Watch a node: requests, routes, drafts, link, queues, plug-ins
///
/// Refreshed each second. Keys: q quits, p pauses, r rolls back after a y. Where standard output is no terminal one frame is
/// printed, as with --once.
///
///   msao top
///   msao top --node http://10.0.0.7:8081 --token-file operator.token
///   msao top --once
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct TopArgs {
    /// Print one frame as text, after two looks a second apart. With --json the node's state.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    common: Common,
}

impl TopArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// What went wrong and what to do about it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let output = self.common.output();
        output.or_error(self.ask())
    }

    fn ask(self) -> anyhow::Result<ExitCode> {
        let client = self.common.client()?.patient(PATIENCE);
        let output = self.common.output();
        let clock = Instant::now();
        // Before the screen is taken: what is wrong with the address or the token is told in a line.
        let state = client.get("/v1/state")?;
        if output.json {
            output.answer(&state, |_| String::new())?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut app = App {
            url: client.url().to_owned(),
            ..App::default()
        };
        app.take(News::Look(
            clock.elapsed().as_secs_f64(),
            Box::new(Glance::read(&state)),
        ));
        if self.once || !std::io::stdout().is_terminal() {
            sleep(EVERY);
            if let Ok(state) = client.get("/v1/state") {
                app.take(News::Look(
                    clock.elapsed().as_secs_f64(),
                    Box::new(Glance::read(&state)),
                ));
            }
            say(&text(&app, clock.elapsed().as_secs_f64()))?;
        } else {
            watch(&mut app, &ask::Asker::start(client, clock)?, clock)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Shows the dashboard until somebody wants it to end.
fn watch(app: &mut App, asker: &ask::Asker, clock: Instant) -> anyhow::Result<()> {
    let interrupt = Interrupt::watch_gently()?;
    match show(app, asker, clock, &interrupt) {
        // A terminal that is closed fails and sends SIGHUP, in no order: nobody is left to be told.
        Err(_) if interrupt.wait(HANGUP) => Ok(()),
        done => done,
    }
}

fn show(
    app: &mut App,
    asker: &ask::Asker,
    clock: Instant,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let mut screen = screen::Screen::open()?;
    let keys = keys::Keys::read()?;
    while !interrupt.came() {
        for news in asker.news() {
            app.take(news);
        }
        let (clock_s, now_s) = (clock.elapsed().as_secs_f64(), now_s());
        screen.draw(|frame| {
            frame.render_widget(
                View {
                    app,
                    clock_s,
                    now_s,
                },
                frame.area(),
            )
        })?;
        let Some(key) = keys.next(KEYS)? else {
            continue;
        };
        match app.key(key) {
            Some(Wish::Quit) => break,
            Some(wish) => asker.wish(wish),
            None => {}
        }
    }
    Ok(())
}

/// A frame as text.
fn text(app: &App, clock_s: f64) -> String {
    let mut buffer = Buffer::empty(PRINTED);
    let now_s = now_s();
    View {
        app,
        clock_s,
        now_s,
    }
    .render(PRINTED, &mut buffer);
    view::lines(&buffer)
}
