//! What is kept of each request: a line of `rows.csv`.
//!
//! What was not measured is an empty field, never 0. Columns stand in the order in which [`Key`] and [`Measured`] list them, under
//! the names of their fields.

mod field;
mod folder;
mod results;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use self::field::Field;
pub(crate) use self::field::word;
pub use self::folder::{Finished, Folder, FolderError};
pub use self::results::Results;
use crate::csv;
use crate::plan::{Cell, Purpose};

/// A struct of which each field is a column.
macro_rules! columns {
    ($(#[$about:meta])* $name:ident { $($(#[$told:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name { $($(#[$told])* pub $field: $kind,)* }

        impl $name {
            const COLUMNS: &'static [&'static str] = &[$(stringify!($field)),*];

            /// Tells the first field that has no place in a table: no number, or below 0.
            fn put(&self, fields: &mut Vec<String>) -> Option<&'static str> {
                let mut odd = None;
                $(
                    fields.push(self.$field.text());
                    odd = odd.or(self.$field.is_odd().then_some(stringify!($field)));
                )*
                odd
            }

            pub(super) fn take<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Result<$name, String> {
                Ok($name { $($field: field::read(stringify!($field), fields.next())?,)* })
            }
        }
    };
}
pub(crate) use columns;

columns! {
    /// Which request a row is about.
    Key {
        /// The run that asked it: each start of the program has its own.
        run: String,
        /// [`crate::plan::Turn::id`].
        turn: String,
        /// [`crate::plan::Turn::repeat`].
        repeat: u32,
        /// Timed, or about accuracy alone.
        purpose: Purpose,
        /// Of the data set.
        data: String,
        /// Of the link.
        link: String,
        /// Of the arrivals.
        arrival: String,
        /// Of the policy.
        policy: String,
        /// [`crate::plan::ItemRef::index`].
        index: u32,
        /// [`crate::plan::ItemRef::seed`].
        seed: u64,
    }
}

columns! {
    /// What one request came to. All times are in ms.
    ///
    /// ```
    /// use msao_evaluate::rows::{Measured, Route};
    ///
    /// let measured = Measured {
    ///     item: "q17".to_owned(),
    ///     total_ms: Some(81.5),
    ///     route: Some(Route::Speculate),
    ///     ..Measured::default()
    /// };
    /// assert_eq!(measured.bytes_up, None);
    /// ```
    #[derive(Default)]
    Measured {
        /// The item's name in its data set.
        item: String,
        /// Items of one group depend on each other: the picture, or the question whose rotations they are. Empty: the item is alone.
        group: String,
        /// Which media it has: image, video, audio, text.
        kind: String,
        /// The mix that it was drawn from.
        mix: String,
        /// It asks for a long answer.
        long: bool,
        /// The models were trained on mixes like this one.
        seen_mix: Option<bool>,
        /// How it ended.
        status: Status,
        /// What went wrong.
        error: String,
        /// How right the answer is, 0 to 1, by the data set's own rule.
        score: Option<f64>,
        /// The rule found an answer in the text.
        parsed: Option<bool>,
        /// The way that was taken in the end.
        route: Option<Route>,
        /// What stands behind the answer.
        class: Option<Class>,
        /// The link or the other node failed on the way.
        degraded: Option<bool>,
        /// It began on the edge and was handed on.
        escalated: Option<bool>,
        /// When it was due, since the turn's first that counts might be asked. None: when a client was free.
        arrival_ms: Option<f64>,
        /// When it was sent, since the same moment.
        sent_ms: Option<f64>,
        /// Time that it was given.
        deadline_ms: Option<f64>,
        /// From when it was due, or else sent, to the end of its answer.
        total_ms: Option<f64>,
        /// From the same to the first token.
        ttft_ms: Option<f64>,
        /// Between two tokens: the median of this answer.
        itl_p50_ms: Option<f64>,
        /// The 95th percentile of this answer.
        itl_p95_ms: Option<f64>,
        /// The 99th percentile of this answer.
        itl_p99_ms: Option<f64>,
        /// Of the prompt, media included, before anything is left out.
        prompt_tokens: Option<u32>,
        /// Of the answer.
        tokens: Option<u32>,
        /// From the edge to the cloud.
        bytes_up: Option<u64>,
        /// From the cloud to the edge.
        bytes_down: Option<u64>,
        /// Floating-point operations of the edge, wasted drafts included.
        flops_edge: Option<f64>,
        /// Of the cloud, likewise.
        flops_cloud: Option<f64>,
        /// Of the edge's, those that made drafts which were thrown away.
        flops_wasted: Option<f64>,
        /// Bytes of cache on the edge, times the seconds that they were held.
        cache_byte_seconds_edge: Option<f64>,
        /// On the cloud.
        cache_byte_seconds_cloud: Option<f64>,
        /// The most bytes of activations on the edge.
        activation_bytes_edge: Option<u64>,
        /// On the cloud.
        activation_bytes_cloud: Option<u64>,
        /// That the edge computed for it.
        busy_edge_ms: Option<f64>,
        /// That the cloud computed for it.
        busy_cloud_ms: Option<f64>,
        /// The probe.
        probe_ms: Option<f64>,
        /// All calls of plug-ins.
        plugin_ms: Option<f64>,
        /// Tokens that were drafted.
        drafted: Option<u32>,
        /// Of those, the ones that the target confirmed.
        accepted: Option<u32>,
        /// Share of the answer's tokens that nobody verified.
        unverified_share: Option<f64>,
        /// Joules of both nodes, where it can be told of one request. A machine's counters tell it of a turn alone
        /// ([`Finished::energy_j`]).
        energy_j: Option<f64>,
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// With a whole answer.
    #[default]
    Answered,
    /// Refused for want of room.
    Shed,
    /// Its time was up.
    Late,
    /// Otherwise without a whole answer.
    Failed,
}

/// The way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// Answered on the edge.
    Edge,
    /// Answered in the cloud.
    Cloud,
    /// Both models in the cloud.
    CloudDraft,
    /// The edge drafts, the cloud verifies.
    Speculate,
}

/// What stands behind an answer. Reports keep them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Every token is the target's.
    Exact,
    /// Some tokens were committed unverified, with a guarantee.
    Confident,
    /// The edge's model gave it.
    Edge,
}

/// A request and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which.
    pub key: Key,
    /// What.
    pub measured: Measured,
}

impl Key {
    /// The cell that it belongs to.
    pub fn cell(&self) -> Cell {
        Cell {
            purpose: self.purpose,
            data: self.data.clone(),
            link: self.link.clone(),
            arrival: self.arrival.clone(),
            policy: self.policy.clone(),
        }
    }
}

impl Measured {
    /// It has a whole answer.
    pub fn is_answered(&self) -> bool {
        self.status == Status::Answered
    }

    /// Floating-point operations of both nodes; None unless both are known.
    pub fn flops(&self) -> Option<f64> {
        Some(self.flops_edge? + self.flops_cloud?)
    }

    /// What may not be: the column, and what is allowed.
    pub(crate) fn wrong(&self) -> Option<String> {
        if let Some(field) = self.put(&mut Vec::new()) {
            return Some(format!(
                "{field} is no number, or below 0; leave it empty if it was not measured"
            ));
        }
        for (field, value) in [
            ("score", self.score),
            ("unverified_share", self.unverified_share),
        ] {
            if value.is_some_and(|value| value > 1.0) {
                return Some(format!("{field} is above 1; allowed: 0 to 1"));
            }
        }
        None
    }
}

impl Row {
    /// How right it is, 0 to 1: an answer that did not come is a wrong one. None: nobody scored it.
    pub fn score(&self) -> Option<f64> {
        if self.measured.is_answered() {
            self.measured.score
        } else {
            Some(0.0)
        }
    }

    /// What its score depends on: its group, or else its item, which several repeats may have asked.
    pub fn group(&self) -> Cow<'_, str> {
        match self.measured.group.as_str() {
            "" => Cow::Owned(format!("#{}", self.key.index)),
            group => Cow::Borrowed(group),
        }
    }

    /// The header, with its line end.
    pub(crate) fn header() -> String {
        let mut text = String::new();
        csv::write(
            &mut text,
            Key::COLUMNS.iter().chain(Measured::COLUMNS).copied(),
        );
        text
    }

    /// Its line, with the line end.
    pub(crate) fn line(&self) -> String {
        let mut fields = Vec::with_capacity(Key::COLUMNS.len() + Measured::COLUMNS.len());
        // Rows were looked at before they came here.
        let _odd = (self.key.put(&mut fields), self.measured.put(&mut fields));
        let mut text = String::new();
        csv::write(&mut text, fields.iter().map(String::as_str));
        text
    }

    /// Of a record's fields.
    pub(crate) fn of(fields: &[String]) -> Result<Row, String> {
        let wanted = Key::COLUMNS.len() + Measured::COLUMNS.len();
        if fields.len() != wanted {
            return Err(format!("has {} fields; allowed: {wanted}", fields.len()));
        }
        let mut fields = fields.iter().map(String::as_str);
        Ok(Row {
            key: Key::take(&mut fields)?,
            measured: Measured::take(&mut fields)?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
