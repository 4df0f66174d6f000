//! The new process, before it becomes Python.
//!
//! The parent has many threads, but the child is a copy with only one of them; a lock that another thread held stays locked
//! forever. Therefore nothing here allocates, locks or panics: it is a sequence of system calls on data that was prepared
//! before. The alternative, to start our own binary again and do this there, requires that binary, which a test or a program
//! that uses the library does not have, and loads the GPU libraries for every program.

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

/// Where the new root is built: a folder that exists on every machine and that no program needs.
pub(super) const BASE: &str = "/proc";
/// The program's own folder, in the new root.
pub(super) const WORK: &str = "/tmp";
/// Its size, and the maximum number of files in it.
const WORK_OPTIONS: &[u8] = b"size=64m,nr_inodes=4096,mode=700,uid=1000,gid=1000\0";
/// The user id of the program inside the user namespace.
pub(super) const INNER_ID: u32 = 1000;

/// The program's descriptors: standard input and output, null, requests, answers. They become 0, 1, 2, 3 and 4.
pub(super) const PROGRAM_FDS: usize = 5;

/// Everything that the new process needs, prepared by its parent.
pub(super) struct ChildPlan {
    /// Written to when the parent is ready. The second is the parent's end, which the child has to close.
    pub go: (OwnedFd, RawFd),
    /// Where the first step that fails is reported.
    pub status: OwnedFd,
    pub fds: [OwnedFd; PROGRAM_FDS],
    /// The new root, if there is a mount namespace.
    pub root: Option<Root>,
    /// The user to switch to.
    pub user: Option<u32>,
    /// The working folder.
    pub work: CString,
    /// Landlock's rules, and the rights in the folder `work`; 0 for none.
    pub rules: Option<(OwnedFd, u64)>,
    pub limits: Vec<(Resource, u64, u64)>,
    pub program: CString,
    pub arguments: Vec<CString>,
    pub environment: Vec<CString>,
}

/// A file system that contains only the files that may be read.
pub(super) struct Root {
    pub folders: Vec<CString>,
    pub files: Vec<CString>,
    /// Source and target of each mount, and whether it is a device.
    pub binds: Vec<(CString, CString, bool)>,
}

/// The step that failed, for the parent's error message.
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
            "mount the readable files",
            "change the root",
            "switch to another user",
            "enter the working folder",
            "drop privileges",
            "apply Landlock rules",
            "set up descriptors",
            "set resource limits",
            "apply the system call filter",
            "start Python",
        ];
        NAMES.get(usize::from(number)).copied().unwrap_or("start")
    }
}

/// Becomes Python, or reports the reason to the parent and exits. `arguments` and `environment` are those of the plan, as
/// arrays that end with a null pointer.
pub(super) fn run(
    plan: &ChildPlan,
    filter: Option<&BpfProgram>,
    arguments: &[*const c_char],
    environment: &[*const c_char],
) -> ! {
    let Err((step, error)) = become_python(plan, filter, arguments, environment);
    let code = error.raw_os_error().to_le_bytes();
    // The last steps come after the descriptors have their final numbers.
    let is_late = step as u8 >= ChildStep::Limits as u8;
    let status = if is_late { PROGRAM_FDS as RawFd } else { plan.status.as_raw_fd() };
    // SAFETY: the status pipe has its final or its first number, and stays open until the process ends below.
    let status = unsafe { BorrowedFd::borrow_raw(status) };
    _ = write(status, &[step as u8, code[0], code[1], code[2], code[3]]);
    // SAFETY: ends the process immediately, without running any of the parent's cleanup in its copy.
    unsafe { libc::_exit(127) }
}

fn become_python(
    plan: &ChildPlan,
    filter: Option<&BpfProgram>,
    arguments: &[*const c_char],
    environment: &[*const c_char],
) -> Result<Infallible, (ChildStep, Errno)> {
    let at = |step: ChildStep| move |error: Errno| (step, error);

    // SAFETY: the number is that of the parent's descriptor, of which this is the copy; nothing here uses it.
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
    // Only now, because a change of user would reset it. If the parent has ended by then, its end of the pipe is closed.
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
    // Only now, because the parent may have many descriptors, which are closed by now.
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

/// Builds a separate root: it contains only what may be read, and a folder in memory that is removed with the process.
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

/// Adds attributes to a mount and keeps its other ones.
fn set_attributes(target: &CStr, set: u64, flags: i32) -> rustix::io::Result<()> {
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: path and structure are valid during the call, and the structure's size is passed.
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

/// Moves the descriptors to their final numbers and closes all others. Those of the plan are above [`super::spawn::LOWEST_FD`].
fn arrange(plan: &ChildPlan) -> rustix::io::Result<()> {
    let count = plan.fds.len() as i32;
    for (place, fd) in (0..count).zip(&plan.fds) {
        duplicate(fd.as_raw_fd(), place, 0)?;
    }
    // Keep the status pipe, to report a failure until the last step.
    duplicate(plan.status.as_raw_fd(), count, libc::O_CLOEXEC)?;
    // SAFETY: closes descriptors that the copied process inherited; only 0 to `count` are used after this.
    done(unsafe { libc::syscall(libc::SYS_close_range, count + 1, u32::MAX, 0) })
}

fn duplicate(fd: RawFd, place: RawFd, flags: i32) -> rustix::io::Result<()> {
    // SAFETY: takes numbers; both stay open, and the target number has no owner left in this copy of the process.
    let made = unsafe { libc::dup3(fd, place, flags) };
    done(if made == place { 0 } else { -1 })
}

/// An array in the form of `execve`. Valid as long as `strings` are.
pub(super) fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|it| it.as_ptr()).chain([ptr::null()]).collect()
}
