//! Keys, read by a thread of their own.
//!
//! When a terminal goes away under a program, reading its keys may never return (crossterm 0.29 reads on after the error).
//! So whoever looks at the dashboard must not be the one who reads: it ends on SIGHUP, and this thread with the program.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};

/// Keys as they are pressed.
pub struct Keys(Receiver<io::Result<KeyEvent>>);

impl Keys {
    /// Reads from now on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn read() -> io::Result<Keys> {
        let (tell, told) = channel();
        let read = move || loop {
            let key = match event::read() {
                Ok(Event::Key(key)) if key.kind == KeyEventKind::Press => Ok(key),
                Ok(_) => continue,
                Err(error) => Err(error),
            };
            let last = key.is_err();
            if tell.send(key).is_err() || last {
                return;
            }
        };
        thread::Builder::new().name("keys".to_owned()).spawn(read)?;
        Ok(Keys(told))
    }

    /// The next key, if one comes within `wait`.
    ///
    /// # Errors
    /// Keys cannot be read any more.
    pub fn next(&self, wait: Duration) -> io::Result<Option<KeyEvent>> {
        match self.0.recv_timeout(wait) {
            Ok(key) => key.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the terminal has gone")),
        }
    }
}
