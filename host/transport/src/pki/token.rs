//! Tokens that operators and clients show.

use std::fmt;

use msao_core::digest::Digest;

use super::PkiError;

/// What a token begins with, so that one that was published by mistake is recognised.
const PREFIX: &str = "msao_";
const BYTES: usize = 32;

/// A token: 256 random bits. Shown once to whoever is to have it; configurations hold its hash.
pub struct Token(String);

impl Token {
    /// Draws one.
    ///
    /// # Errors
    /// [`PkiError::Random`].
    pub fn draw() -> Result<Token, PkiError> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(PkiError::Random)?;
        // A digest is as many bytes, and writes itself in hexadecimal.
        Ok(Token(format!("{PREFIX}{}", Digest(bytes))))
    }

    /// The token itself, as its holder sends it.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// What the configuration holds.
    pub fn sha256(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

/// Never shows the secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Token(sha256 {})", self.sha256().short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_do_not_show_themselves() {
        let (one, other) = (Token::draw().unwrap(), Token::draw().unwrap());
        assert_ne!(one.secret(), other.secret());
        assert_eq!(one.secret().len(), PREFIX.len() + 64);
        assert!(!format!("{one:?}").contains(one.secret()));
    }
}
