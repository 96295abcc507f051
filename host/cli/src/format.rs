//! Numbers for people, and the process's memory.

use std::time::Duration;

/// `1.23 G`, with three figures and a decimal prefix.
pub fn si(value: f64) -> String {
    let steps = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (scaled, prefix) = steps
        .into_iter()
        .find(|(size, _)| value >= *size)
        .map_or((value, ""), |(size, prefix)| (value / size, prefix));
    let decimals = match scaled {
        s if s >= 100.0 || (prefix.is_empty() && s.fract() == 0.0) => 0,
        s if s >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$} {prefix}")
        .trim_end()
        .to_owned()
}

/// `1.2 MB`.
pub fn bytes(count: u64) -> String {
    let text = si(count as f64);
    if text.contains(' ') {
        format!("{text}B")
    } else {
        format!("{text} B")
    }
}

/// `12.3 ms` or `4.56 s`.
pub fn duration(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 1000.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}

/// Anonymous memory that this process holds now, in bytes, where the system tells.
pub fn anonymous_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// An error and its causes on one line, each said once: some errors already quote their cause.
pub fn error_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    line
}

/// Whether an error is only that the reader of our output has gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let error = anyhow::anyhow!("no such file")
            .context("a.png: no such file")
            .context("reading");
        assert_eq!(error_line(&error), "reading: a.png: no such file");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(si(0.0), "0");
        assert_eq!(si(999.0), "999");
        assert_eq!(si(1234.0), "1.23 k");
        assert_eq!(si(45_600_000.0), "45.6 M");
        assert_eq!(si(789e9), "789 G");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(bytes(2_500_000), "2.50 MB");
        assert_eq!(duration(Duration::from_micros(1500)), "1.5 ms");
    }
}
