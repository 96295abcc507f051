//! The energy that the machine says it has used: Linux's powercap counters (RAPL).
//!
//! Counted are the processors (`package-*`) and, where it is told apart, their memory (`dram`); what other zones count lies within
//! one of these, or around them. So it is of everything that the machine did meanwhile, its idling too. Many systems let nobody but
//! root read the counters, and virtual machines mostly have none: then nothing is known.

use std::fs;
use std::path::{Path, PathBuf};

/// Where Linux has them.
pub(crate) const POWERCAP: &str = "/sys/class/powercap";

/// A machine's counters, and what they have counted since [`Energy::begin`].
#[derive(Debug, Default)]
pub(crate) struct Energy {
    zones: Vec<Zone>,
}

#[derive(Debug)]
struct Zone {
    counter: PathBuf,
    /// It begins anew behind so many microjoules.
    range_uj: Option<u64>,
    /// What it said last. None: it said nothing, or what it said before means nothing.
    last_uj: Option<u64>,
    /// None: some of it is not known.
    used_uj: Option<u64>,
}

impl Energy {
    /// The counters of a folder in powercap's layout. One that does not say what it is is none.
    pub(crate) fn of(folder: &Path) -> Energy {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let zones = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // The same packages may be there again under other names, as `intel-rapl-mmio:0`.
            name.strip_prefix("intel-rapl:")?;
            let zone = fs::read_to_string(entry.path().join("name")).ok()?;
            let zone = zone.trim();
            (zone.starts_with("package") || zone == "dram").then(|| Zone {
                counter: entry.path().join("energy_uj"),
                range_uj: number(&entry.path().join("max_energy_range_uj")),
                last_uj: None,
                used_uj: None,
            })
        });
        Energy {
            zones: zones.collect(),
        }
    }

    /// Counts from here on.
    pub(crate) fn begin(&mut self) {
        for zone in &mut self.zones {
            zone.last_uj = number(&zone.counter);
            zone.used_uj = zone.last_uj.map(|_| 0);
        }
    }

    /// Reads the counters. At full power they begin anew within some ten minutes: who waits longer has lost count.
    pub(crate) fn look(&mut self) {
        for zone in &mut self.zones {
            let now = number(&zone.counter);
            let more = zone.last_uj.zip(now).and_then(|(last, now)| {
                if now >= last {
                    return Some(now - last);
                }
                zone.range_uj?.checked_sub(last)?.checked_add(now)
            });
            zone.last_uj = now;
            zone.used_uj = (zone.used_uj.zip(more)).map(|(used, more)| used.saturating_add(more));
        }
    }

    /// Joules since it began. None: the machine does not tell. Counters that stand still tell nothing.
    pub(crate) fn joules(&mut self) -> Option<f64> {
        self.look();
        let used: Option<u64> = self.zones.iter().map(|zone| zone.used_uj).sum();
        used.filter(|used| *used > 0).map(|used| used as f64 / 1e6)
    }
}

/// What a file of one number says.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Puts a zone into a folder, as powercap has it.
    pub(crate) fn zone(folder: &Path, name: &str, is: &str, energy_uj: u64) {
        let zone = folder.join(name);
        fs::create_dir_all(&zone).unwrap();
        fs::write(zone.join("name"), format!("{is}\n")).unwrap();
        fs::write(zone.join("max_energy_range_uj"), "1000000000\n").unwrap();
        fs::write(zone.join("energy_uj"), format!("{energy_uj}\n")).unwrap();
    }

    #[test]
    fn packages_and_their_memory_count_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let all = [
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "dram"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:2", "psys"),
            ("intel-rapl-mmio:0", "package-0"),
        ];
        for (name, is) in all {
            zone(path, name, is, 5_000_000);
        }
        // What the counters belong to is in the same folder.
        fs::create_dir(path.join("intel-rapl")).unwrap();
        let mut energy = Energy::of(path);
        energy.begin();
        for (name, is) in all {
            zone(path, name, is, 6_500_000);
        }
        assert_eq!(energy.joules(), Some(4.5));
        energy.begin();
        zone(path, "intel-rapl:1", "package-1", 6_750_000);
        assert_eq!(energy.joules(), Some(0.25));
    }

    #[test]
    fn counters_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        let counted = |energy_uj| zone(folder.path(), "intel-rapl:0", "package-0", energy_uj);
        counted(900_000_000);
        let mut energy = Energy::of(folder.path());
        energy.begin();
        for energy_uj in [300_000_000, 200_000_000] {
            counted(energy_uj);
            energy.look();
        }
        // 100 J to the end, 300 J from there on, and once more around but for 100 J.
        assert_eq!(energy.joules(), Some(1_300.0));
        // Of one that does not say where it begins anew nobody knows what it has counted.
        fs::remove_file(folder.path().join("intel-rapl:0/max_energy_range_uj")).unwrap();
        let mut energy = Energy::of(folder.path());
        energy.begin();
        fs::write(folder.path().join("intel-rapl:0/energy_uj"), "100").unwrap();
        assert_eq!(energy.joules(), None);
    }

    #[test]
    fn what_is_not_told_is_not_0() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let told = |path: &Path| {
            let mut energy = Energy::of(path);
            energy.begin();
            energy.joules()
        };
        assert_eq!(told(&path.join("nowhere")), None);
        assert_eq!(told(path), None);
        // It stands still.
        zone(path, "intel-rapl:0", "package-0", 7);
        assert_eq!(told(path), None);
        // One of two is not to be read: what the other says is not the machine's.
        zone(path, "intel-rapl:1", "package-1", 7);
        let mut energy = Energy::of(path);
        energy.begin();
        zone(path, "intel-rapl:0", "package-0", 9);
        fs::remove_file(path.join("intel-rapl:1/energy_uj")).unwrap();
        assert_eq!(energy.joules(), None);
        // It comes back, and nobody knows what it counted meanwhile.
        zone(path, "intel-rapl:1", "package-1", 9);
        assert_eq!(energy.joules(), None);
    }
}
