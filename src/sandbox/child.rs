//! What happens in the new process before it becomes Python.
//!
//! The process that started it has many threads, of which the copy has one; a lock that another thread held is held for
//! ever. So nothing here allocates, locks or panics: system calls on what was prepared before, one after the other. The
//! alternative, to start our own binary again and do this there at leisure, needs that binary at hand, which a test or a
//! program that uses the library has not, and loads the libraries of a GPU for every program.

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, mkdir, open};
use rustix::io::{Errno, read, write};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::mount::{mount, mount_bind_recursive, mount_change, unmount};
use rustix::process::{
    Resource, Rlimit, Signal, chdir, pivot_root, set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid, set_capabilities, set_no_new_privs};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use seccompiler::BpfProgram;

use super::landlock::{self, done};

/// Where the new root is put together: a folder that every machine has and no program needs.
pub(super) const BASE: &str = "/proc";
/// The folder of the program's own, in the new root.
pub(super) const WORK: &str = "/tmp";
/// Its size, and the number of files it takes.
const WORK_OPTIONS: &[u8] = b"size=64m,nr_inodes=4096,mode=700,uid=1000,gid=1000\0";
/// Who the program is inside the user namespace.
pub(super) const INNER_ID: u32 = 1000;

/// The descriptors of the program: standard input and output, nothing, requests, answers. They become 0, 1, 2, 3 and 4.
pub(super) const PROGRAM_FDS: usize = 5;

/// All that the new process needs, made by its parent.
pub(super) struct ChildPlan {
    /// Written to when the parent has done its part. The second is the parent's end, which the child has to close.
    pub go: (OwnedFd, RawFd),
    /// Where the first step that fails is told.
    pub status: OwnedFd,
    pub fds: [OwnedFd; PROGRAM_FDS],
    /// The new root, where there is a mount namespace of its own.
    pub root: Option<Root>,
    /// The user to become.
    pub user: Option<u32>,
    /// The folder it starts in.
    pub work: CString,
    /// Landlock's rules, and what is allowed in the folder `work`; 0 for nothing.
    pub rules: Option<(OwnedFd, u64)>,
    pub limits: Vec<(Resource, u64, u64)>,
    pub program: CString,
    pub arguments: Vec<CString>,
    pub environment: Vec<CString>,
}

/// A file system of what may be read and nothing else.
pub(super) struct Root {
    pub folders: Vec<CString>,
    pub files: Vec<CString>,
    /// What is shown, where, and whether it is a device.
    pub binds: Vec<(CString, CString, bool)>,
}

/// A step that failed, for the parent's error message.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum ChildStep {
    Parent,
    Session,
    Mount,
    Pivot,
    User,
    Folder,
    Privileges,
    Landlock,
    Descriptors,
    Limits,
    Seccomp,
    Start,
}

impl ChildStep {
    pub fn name(number: u8) -> &'static str {
        const NAMES: [&str; 12] = [
            "wait for the parent process",
            "start a session",
            "mount the files it may see",
            "change the root",
            "become another user",
            "enter its folder",
            "give up privileges",
            "apply Landlock rules",
            "arrange descriptors",
            "set resource limits",
            "apply the system call filter",
            "start Python",
        ];
        NAMES.get(usize::from(number)).copied().unwrap_or("start")
    }
}

/// Becomes Python, or tells the parent why not and ends. `arguments` and `environment` are those of the plan, as arrays
/// that end with a null pointer.
pub(super) fn run(
    plan: &ChildPlan,
    filter: Option<&BpfProgram>,
    arguments: &[*const c_char],
    environment: &[*const c_char],
) -> ! {
    let Err((step, error)) = become_python(plan, filter, arguments, environment);
    let code = error.raw_os_error().to_le_bytes();
    // The last steps come after the descriptors have found their places.
    let is_late = step as u8 >= ChildStep::Limits as u8;
    let status = if is_late { PROGRAM_FDS as RawFd } else { plan.status.as_raw_fd() };
    // SAFETY: the status pipe is at its place or at its first number, and stays open until the process ends below.
    let status = unsafe { BorrowedFd::borrow_raw(status) };
    _ = write(status, &[step as u8, code[0], code[1], code[2], code[3]]);
    // SAFETY: ends the process at once; nothing of the parent's is run down in its copy.
    unsafe { libc::_exit(127) }
}

fn become_python(
    plan: &ChildPlan,
    filter: Option<&BpfProgram>,
    arguments: &[*const c_char],
    environment: &[*const c_char],
) -> Result<Infallible, (ChildStep, Errno)> {
    let at = |step: ChildStep| move |error: Errno| (step, error);

    // SAFETY: the number is that of the parent's descriptor, of which this is the copy; nobody here uses it.
    unsafe { libc::close(plan.go.1) };
    let told = read(&plan.go.0, &mut [0u8; 1]).map_err(at(ChildStep::Parent))?;
    if told == 0 {
        return Err((ChildStep::Parent, Errno::CANCELED));
    }
    setsid().map_err(at(ChildStep::Session))?;

    if let Some(root) = &plan.root {
        mount_root(root).map_err(at(ChildStep::Mount))?;
        enter_root().map_err(at(ChildStep::Pivot))?;
    }
    if let Some(id) = plan.user {
        become_user(id).map_err(at(ChildStep::User))?;
    }
    // Only now, since a change of user would undo it. If the parent is gone by then, its end of the pipe is, too.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(ChildStep::Parent))?;
    let hung_up = &mut [PollFd::new(&plan.go.0, PollFlags::IN)];
    poll(hung_up, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).map_err(at(ChildStep::Parent))?;
    if hung_up[0].revents().contains(PollFlags::HUP) {
        return Err((ChildStep::Parent, Errno::CANCELED));
    }

    chdir(plan.work.as_c_str()).map_err(at(ChildStep::Folder))?;
    let nothing = CapabilitySet::empty();
    let none = CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
    set_capabilities(None, none).map_err(at(ChildStep::Privileges))?;
    set_no_new_privs(true).map_err(at(ChildStep::Privileges))?;
    if let Some((rules, rights)) = &plan.rules {
        if *rights != 0 {
            let folder = open(c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(at(ChildStep::Landlock))?;
            landlock::allow(rules.as_fd(), folder.as_fd(), *rights).map_err(at(ChildStep::Landlock))?;
        }
        landlock::restrict(rules.as_fd()).map_err(at(ChildStep::Landlock))?;
    }
    arrange(plan).map_err(at(ChildStep::Descriptors))?;
    // Only now: the descriptors of the parent, of which there may be many, are closed.
    for &(resource, current, maximum) in &plan.limits {
        let limit = Rlimit { current: Some(current), maximum: Some(maximum) };
        setrlimit(resource, limit).map_err(at(ChildStep::Limits))?;
    }
    if let Some(filter) = filter {
        seccompiler::apply_filter(filter).map_err(|_| (ChildStep::Seccomp, Errno::ACCESS))?;
    }
    // SAFETY: three arrays of C strings that end with a null pointer, alive until the process is replaced.
    unsafe { libc::execve(plan.program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    let error = std::io::Error::last_os_error();
    Err((ChildStep::Start, Errno::from_io_error(&error).unwrap_or(Errno::INVAL)))
}

/// Builds a root of its own: empty but for what may be read, and a folder in memory that goes with the process.
fn mount_root(root: &Root) -> rustix::io::Result<()> {
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    mount(c"tmpfs", c"/proc", c"tmpfs", plain, Some(c"size=1m,mode=755"))?;
    for folder in &root.folders {
        match mkdir(folder.as_c_str(), Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            other => other?,
        }
    }
    for file in &root.files {
        drop(open(file.as_c_str(), OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))?);
    }
    for (source, target, is_device) in &root.binds {
        mount_bind_recursive(source.as_c_str(), target.as_c_str())?;
        let device = if *is_device { 0 } else { MOUNT_ATTR_NODEV };
        let flags = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | device;
        set_attributes(target, flags, libc::AT_RECURSIVE)?;
    }
    let options = CStr::from_bytes_until_nul(WORK_OPTIONS).ok();
    mount(c"tmpfs", c"/proc/tmp", c"tmpfs", plain | MountFlags::NOEXEC, options)
}

fn enter_root() -> rustix::io::Result<()> {
    chdir(c"/proc")?;
    pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    chdir(c"/")?;
    set_attributes(c"/", MOUNT_ATTR_RDONLY, 0)
}

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;

/// Adds attributes to a mount, whatever others it has.
fn set_attributes(target: &CStr, set: u64, flags: i32) -> rustix::io::Result<()> {
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: path and structure live during the call, and the structure's size is told.
    done(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })
}

fn become_user(id: u32) -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

/// Puts the descriptors in their places and closes all others. Those of the plan are above [`super::spawn::LOWEST_FD`].
fn arrange(plan: &ChildPlan) -> rustix::io::Result<()> {
    let count = plan.fds.len() as i32;
    for (place, fd) in (0..count).zip(&plan.fds) {
        duplicate(fd.as_raw_fd(), place, 0)?;
    }
    // To tell of a failure until the very last.
    duplicate(plan.status.as_raw_fd(), count, libc::O_CLOEXEC)?;
    // SAFETY: closes what the copy of a process inherited; nothing after this uses any of it but 0 to `count`.
    done(unsafe { libc::syscall(libc::SYS_close_range, count + 1, u32::MAX, 0) })
}

fn duplicate(fd: RawFd, place: RawFd, flags: i32) -> rustix::io::Result<()> {
    // SAFETY: takes numbers; both stay open, and no owner of the place's number is left in this copy of the process.
    let made = unsafe { libc::dup3(fd, place, flags) };
    done(if made == place { 0 } else { -1 })
}

/// An array as `execve` wants it. Valid as long as `strings` are.
pub(super) fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|it| it.as_ptr()).chain([ptr::null()]).collect()
}
