//! The terminal, which is given back as it was.

use std::io;

use ratatui::{DefaultTerminal, Frame};

/// A terminal that shows nothing but the dashboard. Dropping it gives it back: at the end, and where an error ends the
/// program. A panic gives it back too, before its message is printed: `try_init` sees to that.
pub struct Screen {
    terminal: Option<DefaultTerminal>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// The terminal's; it is as it was then.
    pub fn open() -> io::Result<Screen> {
        // Made first: what fails half-way is undone by dropping this.
        let mut screen = Screen { terminal: None };
        screen.terminal = Some(ratatui::try_init()?);
        Ok(screen)
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// The terminal's.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> io::Result<()> {
        match &mut self.terminal {
            Some(terminal) => terminal.draw(draw).map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if ratatui::try_restore().is_err() {
            // The terminal is gone. Dropped, ratatui's would write of it to standard error, which is gone too, and panic.
            std::mem::forget(self.terminal.take());
        }
    }
}
