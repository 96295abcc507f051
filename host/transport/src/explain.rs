//! Errors of the layers below, in words that say what to do.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// What happened to a stream.
pub(crate) enum Cut {
    /// The other side reset it on purpose.
    Cancelled,
    /// Anything else, in words.
    Lost(String),
}

/// What an error of hyper or h2 says of a stream.
pub(crate) fn cut(error: &(dyn Error + 'static)) -> Cut {
    match find::<h2::Error>(error) {
        Some(h2) if h2.is_remote() && h2.is_reset() && h2.reason() == Some(h2::Reason::CANCEL) => {
            Cut::Cancelled
        }
        _ => Cut::Lost(words(error)),
    }
}

/// An error with its causes, as far as they say more.
pub(crate) fn words(error: &(dyn Error + 'static)) -> String {
    if let Some(tls) = find::<rustls::Error>(error) {
        return tls_words(tls);
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // An I/O error hides the error that it was made of from `source`.
        next = match error.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// What a TLS error means for a node's operator.
pub(crate) fn tls_words(error: &rustls::Error) -> String {
    use rustls::Error::{
        AlertReceived, InvalidCertificate, InvalidMessage as Invalid, NoApplicationProtocol,
        NoCertificatesPresented, PeerIncompatible,
    };
    match error {
        InvalidCertificate(certificate) => certificate_words(certificate, "the peer's certificate"),
        AlertReceived(alert) => alert_words(*alert),
        Invalid(InvalidMessage::InvalidContentType) => {
            "the peer does not speak TLS on this connection: set sessions.tls on both nodes or on neither"
                .into()
        }
        NoCertificatesPresented => {
            "the peer shows no certificate: it needs node.pem and node.key of this node's CA".into()
        }
        PeerIncompatible(_) => format!("the peer does not speak TLS 1.3 ({error})"),
        NoApplicationProtocol => "the peer does not speak HTTP/2 (ALPN h2)".into(),
        _ => format!("TLS: {error}"),
    }
}

/// What is wrong with a certificate; `whose` begins the sentence.
pub(crate) fn certificate_words(error: &CertificateError, whose: &str) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("{whose} has expired: make a new one of the same CA")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("{whose} is not valid yet: compare the clocks of both nodes")
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("{whose} is not of the CA in ca.pem")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("{whose} is for another host: {error}")
        }
        _ => format!("{whose} is not accepted: {error}"),
    }
}

fn alert_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => {
            "the peer says that this node's certificate has expired: make a new one of the same CA"
                .into()
        }
        AlertDescription::UnknownCA => {
            "the peer says that this node's certificate is not of its CA: both nodes need certificates of one CA"
                .into()
        }
        AlertDescription::CertificateRequired => {
            "the peer wants a certificate of this node".into()
        }
        AlertDescription::NoApplicationProtocol => {
            "the peer does not speak HTTP/2 (ALPN h2)".into()
        }
        AlertDescription::ProtocolVersion => "the peer does not speak TLS 1.3".into(),
        other => format!("the peer ended TLS with the alert {other:?}"),
    }
}

/// What the first bytes of a connection without TLS give away, where they are not HTTP/2.
pub(crate) fn first_bytes(first: &[u8], server: bool) -> Option<&'static str> {
    match (first, server) {
        ([0x16, 0x03, ..], true) => {
            Some("a TLS client came where TLS is off: set sessions.tls on both nodes or on neither")
        }
        ([0x15, 0x03, ..], false) => {
            Some("the peer wants TLS: set sessions.tls on both nodes or on neither")
        }
        ([b'H', b'T', b'T', b'P', ..], false) => {
            Some("the peer speaks HTTP/1: is this the address of its session listener?")
        }
        ([b'P', b'R', b'I', ..], true) => None,
        ([b'A'..=b'Z', b'A'..=b'Z', ..], true) => {
            Some("an HTTP/1 client came to the listener for nodes")
        }
        ([_, ..], true) => Some("what came is not HTTP/2"),
        ([], false) => Some(
            "the peer hung up without a word: it may want TLS (sessions.tls), or is not a node's session listener",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_found_however_deep() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let io = io::Error::new(io::ErrorKind::InvalidData, tls);
        let outer = io::Error::other(io);
        assert_eq!(
            words(&outer),
            "the peer's certificate has expired: make a new one of the same CA"
        );
        let plain = io::Error::new(io::ErrorKind::ConnectionReset, "reset by somebody");
        assert_eq!(words(&plain), "reset by somebody");
    }

    #[test]
    fn first_bytes_are_named() {
        assert!(
            first_bytes(b"\x16\x03\x01", true)
                .unwrap()
                .contains("TLS client")
        );
        assert!(first_bytes(b"GET / HT", true).unwrap().contains("HTTP/1"));
        assert_eq!(first_bytes(b"PRI * HT", true), None);
        assert_eq!(first_bytes(b"", true), None);
        assert!(
            first_bytes(b"\x15\x03\x03", false)
                .unwrap()
                .contains("wants TLS")
        );
        assert_eq!(first_bytes(b"\0\0\x12\x04", false), None);
        assert!(first_bytes(b"", false).unwrap().contains("without a word"));
    }
}
