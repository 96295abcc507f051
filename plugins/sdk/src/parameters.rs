//! Parameters by name instead of by number.

/// A type that a parameter's number is read as.
pub trait FromParameter {
    /// Reads the number. The host holds parameters against the manifest's ranges, so a number that does not fit comes
    /// from a declaration that does not; it is cut to what fits.
    fn from_parameter(value: f64) -> Self;
}

impl FromParameter for f64 {
    fn from_parameter(value: f64) -> Self {
        value
    }
}

impl FromParameter for u32 {
    fn from_parameter(value: f64) -> Self {
        value as u32
    }
}

impl FromParameter for i64 {
    fn from_parameter(value: f64) -> Self {
        value as i64
    }
}

impl FromParameter for bool {
    fn from_parameter(value: f64) -> Self {
        value != 0.0
    }
}

/// Declares a plug-in's parameters, in the order of its `policy.toml`: `f64` for a *float*, `u32` or `i64` for an *int*,
/// `bool`, and `u32` for the number of a *choice*.
///
/// ```
/// use msao_plugin::parameters;
///
/// parameters! {
///     struct Settings {
///         gamma: u32,
///         rtt_limit: f64,
///         greedy: bool,
///     }
/// }
///
/// let settings = Settings::read(&[4.0, 60.0, 1.0]);
/// assert_eq!((settings.gamma, settings.rtt_limit, settings.greedy), (4, 60.0, true));
/// // A unit test can hold these against the manifest's names.
/// assert_eq!(Settings::NAMES, ["gamma", "rtt_limit", "greedy"]);
/// ```
#[macro_export]
macro_rules! parameters {
    (
        $(#[$meta:meta])*
        $visibility:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_visibility:vis $field:ident: $type:ty),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        $visibility struct $name {
            $($(#[$field_meta])* $field_visibility $field: $type),*
        }

        impl $name {
            /// Their names in order, as Rust writes them.
            #[allow(dead_code, reason = "for tests")]
            $visibility const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            /// Reads the numbers that the host hands over. One that is missing is 0.
            $visibility fn read(params: &[f64]) -> Self {
                let mut numbers = params.iter().copied();
                $name {
                    $($field: $crate::FromParameter::from_parameter(numbers.next().unwrap_or(0.0))),*
                }
            }
        }
    };
}
