//! Bandwidth as people write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

const LEAST_BPS: u64 = 1_000;
const MOST_BPS: u64 = 100_000_000_000;
/// Decimal prefixes, as networks count; the largest first.
const UNITS: [(&str, u64); 4] = [
    ("Gbit/s", 1_000_000_000),
    ("Mbit/s", 1_000_000),
    ("kbit/s", 1_000),
    ("bit/s", 1),
];

/// Bits per second, 1 kbit/s to 100 Gbit/s.
///
/// ```
/// use msao_link::shaper::Bandwidth;
///
/// let bandwidth: Bandwidth = "2.5 Mbit/s".parse()?;
/// assert_eq!(bandwidth.bps(), 2_500_000);
/// assert_eq!(bandwidth.to_string(), "2500 kbit/s");
/// # Ok::<(), msao_link::shaper::BandwidthError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bandwidth(u64);

/// Not a bandwidth that a link can have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no bandwidth; allowed: 1 kbit/s to 100 Gbit/s, as a number and bit/s, kbit/s, Mbit/s or Gbit/s, for \
     instance `20 Mbit/s`"
)]
pub struct BandwidthError(String);

impl Bandwidth {
    /// So many bits per second.
    ///
    /// # Errors
    /// Below 1 kbit/s or above 100 Gbit/s.
    pub fn from_bps(bps: u64) -> Result<Bandwidth, BandwidthError> {
        if (LEAST_BPS..=MOST_BPS).contains(&bps) {
            return Ok(Bandwidth(bps));
        }
        Err(BandwidthError(format!("{bps} bit/s")))
    }

    /// Bits per second.
    pub fn bps(self) -> u64 {
        self.0
    }
}

impl FromStr for Bandwidth {
    type Err = BandwidthError;

    fn from_str(text: &str) -> Result<Bandwidth, BandwidthError> {
        let wrong = || BandwidthError(text.to_owned());
        let unit_at = text.find(char::is_alphabetic).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(unit_at);
        let (_, scale) = (UNITS.iter())
            .find(|(name, _)| *name == unit.trim_end())
            .ok_or_else(wrong)?;
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        // Casting saturates, and what is no number becomes 0: both are out of range.
        Bandwidth::from_bps((number * *scale as f64).round() as u64).map_err(|_| wrong())
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let exact = UNITS
            .iter()
            .find(|(_, scale)| self.0.is_multiple_of(*scale));
        let (unit, scale) = exact.unwrap_or(&("bit/s", 1));
        write!(f, "{} {unit}", self.0 / scale)
    }
}

impl TryFrom<String> for Bandwidth {
    type Error = BandwidthError;

    fn try_from(text: String) -> Result<Bandwidth, BandwidthError> {
        text.parse()
    }
}

impl From<Bandwidth> for String {
    fn from(bandwidth: Bandwidth) -> String {
        bandwidth.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_read_and_nonsense_is_refused() {
        for (text, bps) in [
            ("20 Mbit/s", 20_000_000),
            ("20Mbit/s", 20_000_000),
            (" 0.5 Gbit/s ", 500_000_000),
            ("56.6 kbit/s", 56_600),
        ] {
            assert_eq!(text.parse().map(Bandwidth::bps), Ok(bps), "{text}");
        }
        for text in [
            "",
            "20",
            "Mbit/s",
            "20 mbit/s",
            "20 MB/s",
            "-1 Mbit/s",
            "nan bit/s",
            "999 bit/s",
            "101 Gbit/s",
        ] {
            let error = text.parse::<Bandwidth>().unwrap_err().to_string();
            assert!(error.contains("1 kbit/s to 100 Gbit/s"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bps in LEAST_BPS..=MOST_BPS) {
            let bandwidth = Bandwidth::from_bps(bps).unwrap();
            prop_assert_eq!(bandwidth.to_string().parse(), Ok(bandwidth));
        }
    }
}
