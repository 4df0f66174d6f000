//! Starts Python in the sandbox, and cleans up after it.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, ptr};

use anyhow::{Context, Result, anyhow, bail};
use rustix::io::{Errno, fcntl_dupfd_cloexec, read, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Signal, WaitId, WaitIdOptions, getrlimit, pidfd_send_signal, waitid};
use seccompiler::BpfProgram;

use super::child::{self, BASE, ChildPlan, ChildStep, INNER_ID, Root, WORK};
use super::landlock;
use super::python::Python;

/// Descriptors for the new process start here, above their final numbers.
const LOWEST_FD: RawFd = 16;
/// The user that programs run as if we are root: `nobody`.
const NOBODY: u32 = 65_534;

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

const MIB: u64 = 1 << 20;

/// The isolation of programs on this machine.
pub(super) struct Confinement {
    pub namespaces: bool,
    /// Version of Landlock's interface; 0 if it does not work.
    pub landlock: u32,
    pub filter: Option<BpfProgram>,
    /// Whether programs run as `nobody` because we are root.
    pub other_user: bool,
}

/// The resource limits of one program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// Seconds of processor time.
    pub seconds: u64,
    /// Bytes of address space.
    pub memory: u64,
}

/// A running program. Everything that belongs to it is removed when this is dropped.
pub(super) struct SandboxProcess {
    /// Identifies the process permanently; its number could be reused.
    handle: OwnedFd,
    id: u32,
    is_reaped: bool,
}

/// The program's ends of its pipes.
pub(super) struct PipeEnds {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub requests: OwnedFd,
    pub answers: OwnedFd,
}

impl Confinement {
    /// Starts Python with `arguments`.
    ///
    /// # Errors
    /// A layer does not work here; the error names the step that failed.
    pub fn spawn(
        &self,
        python: &Python,
        arguments: &[&str],
        ends: PipeEnds,
        allowance: Allowance,
    ) -> Result<SandboxProcess> {
        let readable = python.readable();
        let rules = match self.landlock {
            0 => None,
            version => {
                let rules = landlock::rules(version, readable.iter().map(PathBuf::as_path), python.executables());
                // Only a separate file system has a size limit and is removed with the process. Without one, the program
                // cannot write.
                let rights = if self.namespaces { landlock::own_folder(version) } else { 0 };
                Some((above(rules.context("create Landlock rules")?)?, rights))
            }
        };
        let (go_end, go) = pipe_with(PipeFlags::CLOEXEC)?;
        let (told, status) = pipe_with(PipeFlags::CLOEXEC)?;
        let PipeEnds { stdin, stdout, stderr, requests, answers } = ends;
        let plan = ChildPlan {
            go: (above(go_end)?, go.as_raw_fd()),
            status: above(status)?,
            fds: [above(stdin)?, above(stdout)?, above(stderr)?, above(requests)?, above(answers)?],
            root: self.namespaces.then(|| root_of(&readable)).transpose()?,
            user: self.other_user.then_some(if self.namespaces { INNER_ID } else { NOBODY }),
            work: if self.namespaces { text(Path::new(WORK))? } else { c"/".to_owned() },
            rules,
            limits: self.limits(allowance),
            program: text(&python.executable)?,
            arguments: strings(std::iter::once(python.executable.as_os_str()).chain(arguments.iter().map(OsStr::new)))?,
            environment: environment()?,
        };
        let (pid, handle) = self.clone_process(&plan)?;
        let process = SandboxProcess { handle, id: pid as u32, is_reaped: false };
        // From here on, an error drops `process`, which kills the process.
        drop(plan);
        if self.namespaces {
            map_ids(pid, self.other_user).context("map the user into its namespace")?;
        }
        retry_on_intr(|| rustix::io::write(&go, &[1])).context("start the new process")?;
        let mut failure = [0; 5];
        // The end of the pipe closes when Python starts.
        if retry_on_intr(|| read(&told, &mut failure))? == failure.len() {
            let [step, code @ ..] = failure;
            let error = io::Error::from_raw_os_error(i32::from_le_bytes(code));
            bail!("{}: {error}", ChildStep::name(step));
        }
        Ok(process)
    }

    /// A copy of this process, which becomes Python: its number and its handle.
    fn clone_process(&self, plan: &ChildPlan) -> Result<(i32, OwnedFd)> {
        let (arguments, environment) = (child::pointers(&plan.arguments), child::pointers(&plan.environment));
        let namespaces = if self.namespaces { NAMESPACES } else { 0 };
        let flags = libc::CLONE_PIDFD | namespaces | libc::SIGCHLD;
        let mut handle: RawFd = -1;
        // SAFETY: without CLONE_VM the new process has a copy of the memory and continues after this call as after `fork`;
        // it makes system calls only (see `child`) and never returns. `handle` is written in this process.
        let pid = unsafe {
            libc::syscall(
                libc::SYS_clone,
                flags as libc::c_ulong,
                ptr::null_mut::<libc::c_void>(),
                &raw mut handle,
                ptr::null_mut::<libc::c_int>(),
                0,
            )
        };
        match pid {
            0 => child::run(plan, self.filter.as_ref(), &arguments, &environment),
            ..0 => Err(anyhow!(io::Error::last_os_error()).context("create a process")),
            // SAFETY: the call has just created this descriptor, and it has no other owner.
            _ => Ok((pid as i32, unsafe { OwnedFd::from_raw_fd(handle) })),
        }
    }

    fn limits(&self, allowance: Allowance) -> Vec<(Resource, u64, u64)> {
        // In its namespace, only the program is counted; without one, all processes of its user are.
        let tasks = if self.namespaces { 64 } else { 4_096 };
        let wanted = [
            (Resource::As, allowance.memory, allowance.memory),
            (Resource::Cpu, allowance.seconds, allowance.seconds),
            (Resource::Fsize, 64 * MIB, 64 * MIB),
            (Resource::Nofile, 64, 64),
            (Resource::Core, 0, 0),
            (Resource::Memlock, 0, 0),
            (Resource::Nproc, tasks, tasks),
            // The first value is the stack size of threads; the runner raises its own to the second.
            (Resource::Stack, 8 * MIB, allowance.memory),
        ];
        let within = |(resource, current, maximum): (Resource, u64, u64)| {
            // A process without privileges cannot raise its limits above ours.
            let ours = getrlimit(resource).maximum.unwrap_or(u64::MAX);
            (resource, current.min(ours), maximum.min(ours))
        };
        wanted.map(within).into()
    }
}

/// Maps the user of the new process in its user namespace to a user outside: ourselves, or `nobody`.
fn map_ids(pid: i32, other_user: bool) -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let map = |ours: u32| match other_user {
        // Ourselves while the files are mounted.
        true => format!("0 {ours} 1\n{INNER_ID} {NOBODY} 1\n"),
        false => format!("{INNER_ID} {ours} 1\n"),
    };
    if !other_user {
        fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    }
    fs::write(format!("/proc/{pid}/uid_map"), map(user))?;
    fs::write(format!("/proc/{pid}/gid_map"), map(group))
}

/// The root with these files.
fn root_of(readable: &[PathBuf]) -> Result<Root> {
    let mut root = Root { folders: Vec::new(), files: Vec::new(), binds: Vec::new() };
    let null = PathBuf::from("/dev/null");
    for path in readable.iter().chain([&null]) {
        let inside = |path: &Path| text(&Path::new(BASE).join(path.strip_prefix("/").unwrap_or(path)));
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        for folder in above.into_iter().rev().skip(1) {
            root.folders.push(inside(folder)?);
        }
        if path.is_dir() {
            root.folders.push(inside(path)?)
        } else {
            root.files.push(inside(path)?)
        }
        root.binds.push((text(path)?, inside(path)?, *path == null));
    }
    root.folders.push(text(&Path::new(BASE).join(WORK.trim_start_matches('/')))?);
    Ok(root)
}

/// The complete environment of the program.
fn environment() -> Result<Vec<CString>> {
    let variables = [
        "PATH=/usr/bin:/bin",
        "LANG=C.UTF-8",
        "PYTHONUTF8=1",
        // Equal programs iterate over equal sets in equal order.
        "PYTHONHASHSEED=0",
        "OMP_NUM_THREADS=1",
        "OPENBLAS_NUM_THREADS=1",
    ];
    strings(variables.map(OsStr::new).into_iter())
}

fn text(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("`{}` is not a valid path", path.display()))
}

fn strings<'a>(all: impl Iterator<Item = &'a OsStr>) -> Result<Vec<CString>> {
    all.map(|it| Ok(CString::new(it.as_bytes())?)).collect()
}

/// The same descriptor under a number that is above the program's final ones.
fn above(fd: OwnedFd) -> Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(&fd, LOWEST_FD)?)
}

impl SandboxProcess {
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Kills the program if it does not end by itself within `patience`. Returns how it ended, for a message.
    pub fn end(mut self, patience: Duration) -> String {
        use rustix::event::{PollFd, PollFlags, poll};
        let timeout = patience.try_into().ok();
        _ = poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], timeout.as_ref());
        self.kill()
    }

    fn kill(&mut self) -> String {
        // In a process namespace, it is the first process, and all others end with it. Without one, the filter prevents
        // others.
        _ = pidfd_send_signal(&self.handle, Signal::KILL);
        self.is_reaped = true;
        let ended = loop {
            match waitid(WaitId::PidFd(self.handle.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                other => break other.ok().flatten(),
            }
        };
        match ended.map(|it| (it.exit_status(), it.terminating_signal())) {
            Some((Some(code), _)) => format!("exit status {code}"),
            Some((_, Some(signal))) => Signal::from_named_raw(signal)
                .map_or_else(|| format!("signal {signal}"), |it| format!("{it:?}").replace("Signal::", "SIG")),
            _ => "unknown".to_owned(),
        }
    }
}

impl Drop for SandboxProcess {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.kill();
        }
    }
}
