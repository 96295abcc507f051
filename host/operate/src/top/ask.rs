//! The thread that speaks with the node.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use serde_json::json;

use super::EVERY;
use super::app::{News, Wish};
use crate::client::Client;
use crate::glance::Glance;

/// Asks a node each second, and does what is wished. Ends when it is dropped.
pub struct Asker {
    wishes: Sender<Wish>,
    news: Receiver<News>,
}

impl Asker {
    /// Begins.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(client: Client, clock: Instant) -> io::Result<Asker> {
        let (wishes, wished) = channel();
        let (tell, news) = channel();
        thread::Builder::new()
            .name("ask".to_owned())
            .spawn(move || work(&client, clock, &wished, &tell))?;
        Ok(Asker { wishes, news })
    }

    /// What came since the last time.
    pub fn news(&self) -> impl Iterator<Item = News> {
        self.news.try_iter()
    }

    /// Has it do something.
    pub fn wish(&self, wish: Wish) {
        // It ends only with this.
        let _gone = self.wishes.send(wish);
    }
}

fn work(client: &Client, clock: Instant, wishes: &Receiver<Wish>, tell: &Sender<News>) {
    let mut paused = false;
    let mut next = clock + EVERY;
    loop {
        let wait = next.saturating_duration_since(Instant::now());
        let news = match wishes.recv_timeout(wait) {
            Ok(Wish::Pause(pause)) => {
                paused = pause;
                continue;
            }
            Ok(Wish::RollBack) => {
                let done = client.post("/v1/rollback", &json!({ "why": "asked for in msao top" }));
                News::RolledBack(
                    done.map_err(|error| error.to_string())
                        .map(|_| active(client)),
                )
            }
            Ok(Wish::Quit) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                // After a wait that took longer, the next second counts, not all those that were missed.
                next = (next + EVERY).max(Instant::now());
                if paused {
                    continue;
                }
                let state = client.get("/v1/state");
                let at_s = clock.elapsed().as_secs_f64();
                match state {
                    Ok(state) => News::Look(at_s, Box::new(Glance::read(&state))),
                    Err(error) => News::Silent(at_s, error.to_string()),
                }
            }
        };
        if tell.send(news).is_err() {
            return;
        }
    }
}

fn active(client: &Client) -> String {
    let state = client.get("/v1/state").map(|it| Glance::read(&it));
    let active = state.ok().and_then(|it| it.active);
    active.map_or_else(|| "not known".to_owned(), |it| it.words())
}
