//! Landlock: the files that a process may access, restricted permanently by the process itself.
//!
//! Three system calls, made here without a library: two of them are made between `fork` and `exec`, where allocation is not
//! allowed. Names and numbers are from `linux/landlock.h`.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::{io, ptr};

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_BLOCK: u64 = 1 << 11;
const IOCTL_DEV: u64 = 1 << 15;

/// `struct landlock_ruleset_attr`. A kernel that knows fewer fields accepts it if the others are zero.
#[repr(C)]
struct Handled {
    files: u64,
    /// Since version 4: TCP.
    network: u64,
    /// Since version 6: abstract sockets and signals.
    scopes: u64,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    place: i32,
}

/// The version of the kernel's interface; 0 if there is none.
pub(super) fn version() -> u32 {
    // SAFETY: with this flag the call takes no structure, and returns a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<Handled>(), 0, CREATE_RULESET_VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// All file rights that this version can forbid.
fn all_of(version: u32) -> u64 {
    let rights = match version {
        0 | 1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << rights) - 1
}

/// The rights in the program's own folder: everything except devices, sockets and starting programs.
pub(super) fn own_folder(version: u32) -> u64 {
    all_of(version) & !(EXECUTE | MAKE_CHAR | MAKE_BLOCK | MAKE_SOCK | MAKE_FIFO | IOCTL_DEV)
}

/// A rule set that forbids all files except those to read or execute, and also TCP, signals and abstract sockets
/// if the kernel supports it.
pub(super) fn rules<'a>(
    version: u32,
    readable: impl IntoIterator<Item = &'a Path>,
    executable: impl IntoIterator<Item = &'a Path>,
) -> io::Result<OwnedFd> {
    let handled = Handled {
        files: all_of(version),
        network: if version >= 4 { 0b11 } else { 0 },
        scopes: if version >= 6 { 0b11 } else { 0 },
    };
    // SAFETY: the structure is valid during the call, and its size is passed.
    let made =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of::<Handled>(), 0u32) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just created this descriptor, and it has no other owner.
    let rules = unsafe { OwnedFd::from_raw_fd(made as i32) };
    let place = |path: &Path| OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path);
    for path in readable {
        let place = place(path)?;
        let folder = if place.metadata()?.is_dir() { READ_DIR } else { 0 };
        allow(rules.as_fd(), place.as_fd(), READ_FILE | folder)?;
    }
    for path in executable {
        allow(rules.as_fd(), place(path)?.as_fd(), READ_FILE | EXECUTE)?;
    }
    allow(rules.as_fd(), place(Path::new("/dev/null"))?.as_fd(), READ_FILE | WRITE_FILE)?;
    Ok(rules)
}

/// Adds a rule. Does not allocate.
pub(super) fn allow(rules: BorrowedFd, place: BorrowedFd, allowed: u64) -> rustix::io::Result<()> {
    let rule = Beneath { allowed, place: place.as_raw_fd() };
    // SAFETY: the structure is valid during the call and has the form that this kind of rule requires.
    done(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0u32)
    })
}

/// Applies the rules to the calling thread, permanently. Does not allocate.
pub(super) fn restrict(rules: BorrowedFd) -> rustix::io::Result<()> {
    // SAFETY: takes numbers only.
    done(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0u32) })
}

/// The result of a system call that returns 0 or sets `errno`.
pub(super) fn done(answer: libc::c_long) -> rustix::io::Result<()> {
    match answer {
        0 => Ok(()),
        _ => Err(rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::INVAL)),
    }
}
