//! The memory of this machine and of this process, as Linux reports it.

use std::fs;

/// Peak of the memory that this process has had in RAM, in bytes; `None` where the system does not report it.
pub fn peak_resident() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
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

    /// A page is in RAM once it has been written.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_contains_what_was_written_and_freed() {
        let written = std::hint::black_box(vec![1u8; 64 << 20]);
        drop(written);
        assert!(peak_resident().unwrap() > 64 << 20);
    }
}
