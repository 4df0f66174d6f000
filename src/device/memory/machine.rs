//! The memory of this machine and of this process, as Linux reports it.

use std::fs;
use std::path::Path;

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineMemory {
    /// RAM, or the limit of the control group (container, Slurm job) if that is lower.
    pub total: u64,
    /// What can be used without swapping.
    pub available: u64,
}

impl MachineMemory {
    /// The memory now; `None` where the system does not report it.
    pub fn now() -> Option<MachineMemory> {
        let memory = fs::read_to_string("/proc/meminfo").ok()?;
        let limit =
            group_limit(Path::new("/sys/fs/cgroup"), &fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
        let (total, available) = (kibibytes(&memory, "MemTotal:")?, kibibytes(&memory, "MemAvailable:")?);
        Some(MachineMemory { total: total.min(limit), available: available.min(limit) })
    }
}

/// The lowest limit of this process's control group (version 2) and the groups that contain it. `groups` is the text of
/// `/proc/self/cgroup`.
fn group_limit(root: &Path, groups: &str) -> u64 {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let folders = Path::new(group).ancestors().map(|group| root.join(group).join("memory.max"));
    let limits = folders.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.min().unwrap_or(u64::MAX)
}

/// Peak of the memory that this process has had in RAM, in bytes; `None` where the system does not report it.
pub fn peak_resident() -> Option<u64> {
    status("VmHWM:")
}

/// The memory that this process has in RAM now.
pub fn resident() -> Option<u64> {
    status("VmRSS:")
}

fn status(name: &str) -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, name)
}

/// The value of a line such as `VmHWM:     8192 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?;
    Some(value.trim().parse::<u64>().ok()?.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_system_are_read() {
        let text = "VmPeak:\t  9 kB\nVmHWM:\t    8192 kB\nVmRSS: \t 12\n";
        assert_eq!(kibibytes(text, "VmHWM:"), Some(8 << 20));
        assert_eq!((kibibytes(text, "VmRSS:"), kibibytes(text, "VmSwap:")), (None, None));
    }

    #[test]
    fn the_lowest_limit_of_the_control_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("jobs/7/task");
        fs::create_dir_all(&group).unwrap();
        let limit = || group_limit(root.path(), "4:memory:/other\n0::/jobs/7/task\n");
        assert_eq!(limit(), u64::MAX);
        fs::write(group.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("jobs/7/memory.max"), "4096\n").unwrap();
        fs::write(root.path().join("jobs/memory.max"), "8192\n").unwrap();
        assert_eq!(limit(), 4096);
        assert_eq!(group_limit(root.path(), ""), u64::MAX);
    }

    /// A page is in RAM once it has been written.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_contains_what_was_written_and_freed() {
        let written = std::hint::black_box(vec![1u8; 64 << 20]);
        drop(written);
        assert!(peak_resident().unwrap() > 64 << 20);
    }
}
