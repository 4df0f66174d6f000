//! The escape suite: programs that try to leave the sandbox, to leave something behind or to write their own verdict. Each
//! fails to, and leaves neither a process nor a file. The suite runs as the user who runs the tests, again as an ordinary
//! user, and again without namespaces.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rft::sandbox::{CallOutcome, Program, PythonValue, Sandbox, SandboxLimits, SandboxSession};

use crate::code_eval::sandbox;
use crate::progress::{ends, until};
use crate::require::require;

/// Set in a run of the suite that has no namespaces.
const WITHOUT: &str = "RFT_TEST_WITHOUT_NAMESPACES";

/// Seconds that are more than a program here needs that ends by itself.
const LONG: u64 = 120;

/// Definitions that the programs share.
const PRELUDE: &str = r#"
import ctypes, gc, os, sys, threading, time

def tries(*acts):
    "The acts that went through without an error."
    done = []
    for number, act in enumerate(acts):
        try:
            act()
        except Exception:
            continue
        done.append(number)
    return done

def syscall(*arguments):
    "The error number of a system call; 0 if there is none."
    library = ctypes.CDLL(None, use_errno=True)
    answer = library.syscall(*[ctypes.c_long(it) if isinstance(it, int) else it for it in arguments])
    return ctypes.get_errno() if answer == -1 else 0
"#;

/// A program, and a folder of the test that it must not touch.
struct Trial {
    outside: tempfile::TempDir,
    session: SandboxSession,
    id: u32,
    /// The process namespace.
    namespace: Option<PathBuf>,
}

impl Trial {
    /// Loads a program, in which `OUTSIDE` is the folder's path.
    fn new(sandbox: &Sandbox, source: &str) -> Trial {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "the secret").unwrap();
        let source = format!("{PRELUDE}\nOUTSIDE = {:?}\n{source}", outside.path().to_str().unwrap());
        let limits = SandboxLimits::time(Duration::from_secs(10 * LONG));
        let session = sandbox.load(&Program { source: &source, entry_point: "f" }, &limits).unwrap();
        let id = session.process_id();
        Trial { outside, session, id, namespace: fs::read_link(format!("/proc/{id}/ns/pid")).ok() }
    }

    fn call(&mut self, seconds: u64) -> CallOutcome {
        self.session.call(&[], Duration::from_secs(seconds))
    }

    /// Ends the program, and checks that it has left nothing and changed nothing.
    fn end(self) {
        let Trial { outside, session, id, namespace } = self;
        let own = fs::read_link("/proc/self/ns/pid").ok();
        drop(session);
        assert!(!Path::new(&format!("/proc/{id}")).exists(), "process {id} is still there");
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(stat) = fs::read_to_string(process.path().join("stat")) else { continue };
            // After the name, which may contain anything: state, parent, group, session.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            assert!(fields[2] != id.to_string() && fields[3] != id.to_string(), "left behind: {stat}");
            let its = fs::read_link(process.path().join("ns/pid")).ok();
            let is_inside = namespace.is_some() && namespace != own && its == namespace;
            assert!(!is_inside, "left behind: {stat}");
        }
        let names: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        let secret = outside.path().join("secret");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "the secret");
        let links = std::os::unix::fs::MetadataExt::nlink(&fs::metadata(&secret).unwrap());
        assert_eq!(links, 1, "a hard link was made");
        let prefix = format!("rft-escape-{id}");
        for folder in [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into(), "/dev/shm".into(), ".".into()] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                assert!(!entry.file_name().to_string_lossy().starts_with(&prefix), "{entry:?}");
            }
        }
    }
}

/// Runs a program once, for at most this many seconds; `None` if the sandbox does not work, so that the test is skipped.
fn outcome(source: &str, seconds: u64) -> Option<CallOutcome> {
    let mut trial = Trial::new(sandbox()?, source);
    let outcome = trial.call(seconds);
    trial.end();
    Some(outcome)
}

/// The program returns an empty list: none of its attempts succeeded.
fn nothing_goes_through(source: &str) {
    let Some(outcome) = outcome(source, LONG) else { return };
    assert_eq!(outcome, CallOutcome::Value(PythonValue::List(Vec::new())), "{source}");
}

/// The program returns error numbers, all of them "no such call".
fn no_such_calls(source: &str) {
    let Some(outcome) = outcome(source, LONG) else { return };
    let CallOutcome::Value(PythonValue::List(errors)) = &outcome else { panic!("{outcome:?}") };
    assert!(!errors.is_empty() && errors.iter().all(|it| *it == PythonValue::int(38)), "{errors:?}");
}

fn dies(source: &str, how: &str) {
    let Some(outcome) = outcome(source, LONG) else { return };
    assert!(matches!(&outcome, CallOutcome::Died(why) if why.contains(how)), "{outcome:?}");
}

/// The program ends by `os._exit(0)`. On a busy machine that can take longer than the fifth of a second that a process has
/// to end in after it has closed its channel, and then it is killed.
fn exits(source: &str) {
    let Some(outcome) = outcome(source, LONG) else { return };
    let is_expected = |why: &str| why.contains("exit status 0") || why.contains("SIGKILL");
    assert!(matches!(&outcome, CallOutcome::Died(why) if is_expected(why)), "{outcome:?}");
}

#[test]
fn escape_by_an_object_that_equals_all() {
    let source = "class Yes:\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(): return Yes()";
    let Some(found) = outcome(source, LONG) else { return };
    assert!(
        matches!(&found, CallOutcome::Value(value @ PythonValue::Opaque) if *value != PythonValue::int(7)),
        "{found:?}"
    );
    // A subclass of a plain type counts as what it holds, whatever its methods say.
    let source = "class Yes(int):\n    def __eq__(self, other): return True\n    def __int__(self): return 7\n    \
                  __repr__ = __index__ = __str__ = __int__\ndef f(): return [Yes(3)]";
    assert_eq!(outcome(source, LONG), Some(CallOutcome::Value(PythonValue::List(vec![PythonValue::int(3)]))));
}

#[test]
fn escape_by_claiming_to_be_a_plain_type() {
    let source = "class Liar:\n    __class__ = int\n    def __int__(self): return 7\n    __index__ = __repr__ = __int__\n\
                  def f(): return Liar()";
    let Some(found) = outcome(source, LONG) else { return };
    assert!(matches!(found, CallOutcome::Value(PythonValue::Opaque)), "{found:?}");
}

#[test]
fn escape_by_setting_the_verdict_in_frames_and_ending() {
    let source = r#"
def f():
    frame = sys._getframe()
    while frame:
        for name in ("stat", "details", "progress", "verdict", "expected"):
            frame.f_locals[name] = 0
        frame = frame.f_back
    os._exit(0)
"#;
    exits(source);
}

#[test]
fn escape_by_looking_for_the_expected_value() {
    // Everything in the interpreter, including objects that are only referenced.
    let source = r#"
def f():
    found, frame = [], sys._getframe()
    while frame:
        found += list(frame.f_locals) + list(frame.f_globals)
        frame = frame.f_back
    for thing in gc.get_objects():
        if isinstance(thing, dict):
            found += [key for key in thing if isinstance(key, str)]
    return [name for name in found if "expect" in name and "test" in name or name in ("verdict", "answers", "solution")]
"#;
    nothing_goes_through(source);
}

#[test]
fn escape_by_starting_a_program() {
    nothing_goes_through(
        r#"
def f():
    here = "rft-escape-%d" % os.getpid()
    return tries(
        lambda: os.posix_spawn("/usr/bin/touch", ["touch", OUTSIDE + "/spawned"], {}),
        lambda: os.system("touch " + OUTSIDE + "/system") and 1 / 0,
        lambda: __import__("subprocess").run([sys.executable or "python3", "-c", ""], check=True),
        lambda: os.execv("/bin/sh", ["sh", "-c", "touch " + OUTSIDE + "/exec"]),
        lambda: os.execv("/usr/bin/env", ["env"]),
    )
"#,
    );
}

#[test]
fn escape_by_reading_and_writing_files() {
    nothing_goes_through(
        r#"
import io
def f():
    return tries(
        lambda: io.open(OUTSIDE + "/written", "w"),
        lambda: io.open(OUTSIDE + "/secret").read(),
        lambda: io.open(OUTSIDE + "/secret", "a"),
        lambda: os.listdir(OUTSIDE),
        lambda: os.remove(OUTSIDE + "/secret"),
        lambda: os.rename(OUTSIDE + "/secret", OUTSIDE + "/moved"),
        lambda: os.truncate(OUTSIDE + "/secret", 0),
        lambda: open("/etc/passwd").read(),
        lambda: open("/etc/shadow").read(),
        lambda: open("/rft-escape", "w"),
        lambda: open("/var/tmp/rft-escape", "w"),
        lambda: open("/dev/shm/rft-escape", "w"),
        lambda: os.mkdir("/rft-escape"),
        lambda: open("/dev/kmsg"),
        lambda: open("/dev/tty"),
    )
"#,
    );
}

#[test]
fn escape_by_reading_the_environment() {
    let source = "def f(): return sorted(os.environ)";
    let Some(outcome) = outcome(source, LONG) else { return };
    let names = ["LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH", "PYTHONHASHSEED", "PYTHONUTF8"];
    // Python sets LC_CTYPE itself on some machines.
    let CallOutcome::Value(PythonValue::List(found)) = outcome else { panic!("{outcome:?}") };
    let found: Vec<PythonValue> = found.into_iter().filter(|it| *it != PythonValue::str("LC_CTYPE")).collect();
    assert_eq!(found, names.map(PythonValue::str));
}

#[test]
fn escape_by_proc() {
    nothing_goes_through(
        r#"
def f():
    return tries(
        lambda: open("/proc/self/environ").read(),
        lambda: open("/proc/%d/environ" % os.getppid()).read(),
        lambda: open("/proc/self/mem", "r+b"),
        lambda: os.listdir("/proc/1/root"),
        lambda: os.listdir("/proc/self/cwd/.."),
        lambda: open("/proc/sys/kernel/core_pattern", "w"),
        lambda: open("/proc/1/root" + OUTSIDE + "/secret").read(),
        lambda: os.listdir("/sys"),
    )
"#,
    );
}

#[test]
fn escape_by_links() {
    nothing_goes_through(
        r#"
def f():
    def through(link):
        with open(link) as file: return file.read()
    try:
        os.symlink(OUTSIDE, "folder")
        os.symlink(OUTSIDE + "/secret", "file")
        os.symlink(OUTSIDE + "/new", "new")
    except PermissionError:
        pass
    return tries(
        lambda: through("file"),
        lambda: through("folder/secret"),
        lambda: os.listdir("folder"),
        lambda: open("new", "w"),
        lambda: os.link(OUTSIDE + "/secret", "hard"),
        lambda: os.link("file", "hard", follow_symlinks=True) or through("hard"),
        lambda: os.link("/etc/passwd", "passwd"),
        lambda: os.chdir("folder") or os.listdir("."),
        lambda: os.listdir("../../../../.." + OUTSIDE),
    )
"#,
    );
}

#[test]
fn escape_by_changing_modes_owners_and_times() {
    nothing_goes_through(
        r#"
def f():
    secret = OUTSIDE + "/secret"
    return tries(
        lambda: os.chmod(secret, 0o777),
        lambda: os.chown(secret, os.getuid(), os.getgid()),
        lambda: os.utime(secret, (0, 0)),
        lambda: os.setxattr(secret, "user.rft", b"x"),
        lambda: os.chmod(".", 0o777),
        lambda: os.mkfifo("fifo"),
        lambda: os.mknod("node"),
        lambda: os.chroot("."),
    )
"#,
    );
}

#[test]
fn escape_by_a_fork_bomb() {
    nothing_goes_through(
        r#"
def f():
    def fork():
        if os.fork() == 0:
            while True: os.fork()
    return tries(*[fork] * 20, os.forkpty)
"#,
    );
}

#[test]
fn escape_by_a_daemon() {
    nothing_goes_through(
        r#"
def f():
    def daemon():
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(1000)
            os._exit(0)
    return tries(daemon, os.setsid, lambda: os.setpgid(0, 0))
"#,
    );
}

#[test]
fn escape_by_system_calls_that_make_processes() {
    // fork, vfork, clone with and without namespaces, clone3; numbers of x86-64.
    if cfg!(target_arch = "x86_64") {
        no_such_calls(
            r#"
def f():
    flags = [17, 0x4000 | 17, 0x100 | 17, 0x10000000 | 17, 0x20000000 | 0x10f00]
    clones = [syscall(56, flag, 0, 0, 0, 0) for flag in flags]
    arguments = ctypes.create_string_buffer(88)
    return clones + [syscall(57), syscall(58), syscall(435, arguments, 88)]
"#,
        );
    }
}

#[test]
fn escape_by_other_privileged_system_calls() {
    // ptrace, mount, umount, setns, unshare, pivot_root, chroot, process_vm_readv and _writev, kcmp, keyctl, add_key,
    // request_key, bpf, perf_event_open, io_uring_setup, userfaultfd, kexec_load, init_module, memfd_create, inotify_init,
    // fanotify_init, execveat, open_by_handle_at, shmget, msgget, semget, personality, prctl, seccomp, capset, reboot,
    // swapon, acct, quotactl, pidfd_open, pidfd_getfd, pidfd_send_signal, memfd_secret, landlock_restrict_self,
    // mount_setattr, fsopen, quotactl_fd, modify_ldt, vmsplice, mlockall, setpriority, ioprio_set, sched_setaffinity
    if cfg!(target_arch = "x86_64") {
        no_such_calls(
            r#"
def f():
    numbers = [101, 165, 166, 308, 272, 155, 161, 310, 311, 312, 250, 248, 249, 321, 298, 425, 323, 246, 175, 319, 253,
               300, 322, 304, 29, 68, 64, 135, 157, 317, 126, 169, 167, 163, 179, 434, 438, 424, 447, 446, 442, 430, 443,
               154, 278, 151, 141, 251, 203]
    return [syscall(number, 0, 0, 0, 0, 0) for number in numbers]
"#,
        );
        // The calls of the x32 and of the 32-bit interface have other numbers.
        no_such_calls("def f(): return [syscall(0x40000000 | number, 0, 0, 0) for number in (41, 57, 101, 520, 521)]");
    }
}

#[test]
fn escape_by_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    nothing_goes_through(&format!(
        r#"
import socket
def f():
    return tries(
        lambda: socket.create_connection(("127.0.0.1", {port}), timeout=2),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM),
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        lambda: socket.socket(socket.AF_UNIX).connect(OUTSIDE + "/socket"),
        lambda: socket.socket(socket.AF_UNIX).connect("\0rft-escape"),
        lambda: socket.socket(socket.AF_UNIX).bind("socket"),
        lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
        lambda: socket.socketpair(),
        lambda: socket.gethostbyname("localhost.localdomain."),
    )
"#
    ));
    let heard = listener.accept();
    assert_eq!(heard.unwrap_err().kind(), ErrorKind::WouldBlock, "a connection was made");
}

#[test]
fn escape_by_signals() {
    nothing_goes_through(
        r#"
import fcntl, signal
def f():
    own = lambda: fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())
    return tries(
        lambda: os.kill(-1, signal.SIGKILL),
        lambda: os.kill(os.getppid(), signal.SIGTERM),
        lambda: os.kill(0, signal.SIGTERM),
        lambda: os.kill(1, signal.SIGTERM),
        lambda: os.killpg(os.getpgid(0), signal.SIGKILL),
        lambda: signal.pidfd_send_signal(0, signal.SIGKILL),
        own,
        lambda: fcntl.fcntl(0, 10, signal.SIGKILL),
    )
"#,
    );
}

#[test]
fn escape_by_taking_privileges() {
    nothing_goes_through(
        r#"
def f():
    import resource
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    return tries(
        lambda: os.setuid(0),
        lambda: os.seteuid(0),
        lambda: os.setgid(0),
        lambda: os.setgroups([0]),
        lambda: os.nice(-5),
        lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
        lambda: os.sched_setaffinity(0, {0}),
        lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
        lambda: resource.setrlimit(resource.RLIMIT_CPU, (most + 1, most + 1)),
        lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
        lambda: resource.prlimit(os.getppid() or 1, resource.RLIMIT_CPU, (1, 1)),
    )
"#,
    );
}

#[test]
fn escape_by_being_root() {
    let Some(outcome) = outcome("def f(): return [os.getuid(), os.geteuid(), os.getgid(), os.getegid()]", LONG) else {
        return;
    };
    if sandbox().unwrap().layers().other_user {
        let CallOutcome::Value(PythonValue::List(ids)) = &outcome else { panic!("{outcome:?}") };
        assert!(ids.iter().all(|id| *id != PythonValue::int(0)), "{ids:?}");
    }
}

#[test]
fn escape_by_memory() {
    let Some(outcome) = outcome("def f(): return len(bytearray(10 << 30))", LONG) else { return };
    assert!(matches!(&outcome, CallOutcome::Raised(what) if what.starts_with("MemoryError")), "{outcome:?}");
}

#[test]
fn escape_by_filling_the_disk() {
    let source = r#"
def f():
    written = 0
    try:
        for number in range(100):
            with open("rft-escape-%d" % number, "wb", buffering=0) as file:
                for piece in range(16): written += file.write(b"x" * (1 << 20))
    except OSError:
        pass
    return written
"#;
    let Some(outcome) = outcome(source, LONG) else { return };
    let CallOutcome::Value(written) = &outcome else { panic!("{outcome:?}") };
    let most = if sandbox().unwrap().layers().namespaces { 64 << 20 } else { 0 };
    assert!(written.number().unwrap() <= f64::from(most), "{written}");
}

#[test]
fn escape_by_printing_a_gigabyte() {
    let Some(sandbox) = sandbox() else { return };
    let source = "def f():\n    for _ in range(1 << 10): os.write(1, b'x' * (1 << 20))\n    return 7";
    assert_eq!(outcome(source, LONG), Some(CallOutcome::Value(PythonValue::int(7))), "the output is not read");
    let script = "while True: print('x' * (1 << 20))";
    let died = sandbox.stdout(script, "", &SandboxLimits::time(Duration::from_secs(LONG))).unwrap();
    assert!(matches!(&died, CallOutcome::Died(why) if why.contains("printed more")), "{died:?}");
}

#[test]
fn escape_by_a_huge_answer() {
    dies("def f(): return 'x' * (2 << 20)", "more than");
    let Some(sandbox) = sandbox() else { return };
    // Many answers that are each just below the limit.
    let mut trial = Trial::new(sandbox, "def f(): return 'x' * 1000000");
    let last = (0..20).map(|_| trial.call(LONG)).find(|it| !matches!(it, CallOutcome::Value(_)));
    assert!(matches!(last, Some(CallOutcome::Died(_))), "{last:?}");
    trial.end();
}

#[test]
fn escape_by_a_slow_answer() {
    let source = "def f():\n    while True: os.write(4, b'x'); time.sleep(0.05)";
    assert!(matches!(outcome(source, 2), None | Some(CallOutcome::TimedOut)));
}

#[test]
fn escape_by_not_ending() {
    for source in [
        "def f():\n    while True: pass",
        "def f(): time.sleep(1000)",
        "def f():\n    import signal\n    for it in range(1, 32):\n        try: signal.signal(it, signal.SIG_IGN)\n        \
         except OSError: pass\n    while True:\n        try: time.sleep(1000)\n        except BaseException: pass",
        "def f(): return 9 ** 9 ** 9",
    ] {
        let outcome = ends(source, || outcome(source, 1));
        assert!(matches!(outcome, None | Some(CallOutcome::TimedOut)), "{source}: {outcome:?}");
    }
}

#[test]
fn escape_by_deep_recursion() {
    let Some(found) = outcome("def f(): return f()", LONG) else { return };
    assert!(matches!(&found, CallOutcome::Raised(what) if what.starts_with("RecursionError")), "{found:?}");
    let source = "sys.setrecursionlimit(1 << 30)\ndef f(): return [f(), {}.get(f())]\nclass C:\n    \
                  def __repr__(self): return repr(self)\ndef f(): return repr(C())";
    let found = outcome(source, 30).unwrap();
    assert!(matches!(found, CallOutcome::Died(_) | CallOutcome::Raised(_) | CallOutcome::TimedOut), "{found:?}");
    // A value inside itself.
    let Some(CallOutcome::Value(_)) = outcome("def f():\n    it = []\n    it.append(it)\n    return it", LONG) else {
        panic!()
    };
}

#[test]
fn escape_by_ending_early() {
    let Some(found) = outcome("def f(): sys.exit(0)", LONG) else { return };
    assert!(matches!(&found, CallOutcome::Raised(what) if what.starts_with("SystemExit")), "{found:?}");
    exits("def f(): os._exit(0)");
    exits("os._exit(0)");
    dies("def f(): os.abort()", "SIG");
    dies("def f(): os.close(4) or time.sleep(1000)", "SIGKILL");
}

#[test]
fn escape_by_a_forged_answer() {
    let forged = r#"def f(): os.write(4, b'["00000000000000000000000000000000","value",7]\n'); return 3"#;
    dies(forged, "answer channel");
    dies("def f(): os.write(4, b'7\\n'); return 3", "answer channel");
    dies("def f(): os.write(4, b'\\xff\\n'); return 3", "answer channel");
    // With the right nonce, read from the runner's frames: a second answer to one request.
    let found = r#"
def f():
    frame = sys._getframe()
    while "nonce" not in frame.f_locals: frame = frame.f_back
    os.write(4, b'["%s","value",7]\n' % frame.f_locals["nonce"].encode() * 2)
    time.sleep(1000)
"#;
    dies(found, "answer channel");
    // And answers to questions that were not asked.
    let early = "def f(): return 3\nos.write(4, b'[\"x\",\"value\",7]\\n')";
    dies(early, "answer channel");
}

#[test]
fn escape_by_patching_the_library() {
    let source = r#"
import builtins, json
def always(*arguments, **named): return "7"
builtins.repr = builtins.str = builtins.hex = builtins.type = always
builtins.issubclass = builtins.isinstance = lambda *_: True
json.dumps = json.encoder.encode_basestring_ascii = always
def f(): return [3, "x", 1.5, 10 ** 20]
"#;
    let Some(outcome) = outcome(source, LONG) else { return };
    let CallOutcome::Value(value) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(value.to_string(), r#"[0x3,"x",1.5,0x56bc75e2d63100000,]"#);
}

#[test]
fn escape_by_threads_that_stay() {
    let source = r#"
def stay():
    while True:
        try: open("rft-escape", "a").write("x"); time.sleep(0.01)
        except BaseException: pass
def f():
    for daemon in (True, False):
        threading.Thread(target=stay, daemon=daemon).start()
    return threading.active_count()
"#;
    assert_eq!(
        outcome(source, LONG).unwrap_or(CallOutcome::Value(PythonValue::int(3))),
        CallOutcome::Value(PythonValue::int(3))
    );
}

#[test]
fn escape_by_many_threads() {
    let source = r#"
def f():
    count = 0
    try:
        for _ in range(5000):
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
            count += 1
    except RuntimeError:
        pass
    return count
"#;
    let Some(found) = outcome(source, LONG) else { return };
    let CallOutcome::Value(count) = &found else { panic!("{found:?}") };
    let most = if sandbox().unwrap().layers().namespaces { 64.0 } else { 4_096.0 };
    assert!(count.number().unwrap() <= most, "{count}");
}

#[test]
fn escape_by_what_is_inherited() {
    // Only the program's own five descriptors are open.
    let source = "def f():\n    def is_open(it):\n        try: os.fstat(it)\n        except OSError: return False\n        \
                  return True\n    return [it for it in range(64) if is_open(it)]";
    let Some(outcome) = outcome(source, LONG) else { return };
    assert_eq!(outcome, CallOutcome::Value(PythonValue::List((0..5).map(PythonValue::int).collect())));
}

#[test]
fn programs_do_not_see_each_other() {
    let Some(sandbox) = sandbox() else { return };
    let namespaces = sandbox.layers().namespaces.then_some(()).ok_or("without them no program can write a file");
    let Some(()) = require("namespaces", namespaces) else { return };
    let mut writer = Trial::new(sandbox, "def f(): open('note', 'w').write('x'); return os.path.exists('note')");
    assert_eq!(writer.call(LONG), CallOutcome::Value(PythonValue::Bool(true)));
    let mut reader = Trial::new(sandbox, "def f(): return os.path.exists('note')");
    assert_eq!(reader.call(LONG), CallOutcome::Value(PythonValue::Bool(false)));
    writer.end();
    reader.end();
}

#[test]
fn scripts_read_their_input_and_print() {
    let Some(sandbox) = sandbox() else { return };
    let limits = SandboxLimits::time(Duration::from_secs(LONG));
    let run = |source: &str, stdin: &str| sandbox.stdout(source, stdin, &limits).unwrap();
    let text = |text: &str| CallOutcome::Value(PythonValue::str(text));
    assert_eq!(run("print(sum(map(int, input().split())))", "1 2 3\n"), text("6\n"));
    assert_eq!(run("if __name__ == '__main__': print('é')\nexit()", ""), text("é\n"));
    let long = "x".repeat(300_000);
    assert_eq!(run("import sys; sys.stdout.write(sys.stdin.read())", &long), text(&long));
    assert_eq!(run("import sys; sys.exit(3)", ""), CallOutcome::Raised("SystemExit: 3".into()));
    assert_eq!(run("print(1 / 0)", ""), CallOutcome::Raised("ZeroDivisionError: division by zero".into()));
    assert!(matches!(run("import os; print('x', flush=True); os._exit(1)", ""), CallOutcome::Died(_)));
    let threads = "import threading\nthreading.stack_size(1 << 27)\nthreading.Thread(target=lambda: print(5)).start()";
    assert_eq!(run(threads, ""), text("5\n"));
    let short = SandboxLimits::time(Duration::from_secs(3));
    assert_eq!(sandbox.stdout("while True: pass", "", &short).unwrap(), CallOutcome::TimedOut);
}

#[test]
fn calls_continue_after_an_exception_and_end_with_the_program() {
    let Some(sandbox) = sandbox() else { return };
    let source = "calls = 0\ndef f(x):\n    global calls\n    calls += 1\n    return x[calls]";
    let load =
        |source| sandbox.load(&Program { source, entry_point: "f" }, &SandboxLimits::time(Duration::from_secs(LONG)));
    let mut session = load(source).unwrap();
    let limit = Duration::from_secs(LONG);
    let list = PythonValue::List(vec![PythonValue::int(5), PythonValue::int(6)]);
    assert_eq!(session.call(std::slice::from_ref(&list), limit), CallOutcome::Value(PythonValue::int(6)));
    assert_eq!(session.call(&[list], limit), CallOutcome::Raised("IndexError: list index out of range".into()));
    assert!(matches!(session.call(&[PythonValue::Float(f64::NAN)], limit), CallOutcome::Raised(_)));
    let mut session = load("x = 1").unwrap();
    assert_eq!(session.call(&[], limit), CallOutcome::Raised("NameError: `f` is not defined".into()));
    let mut session = load("def f(:").unwrap();
    assert!(matches!(session.call(&[], limit), CallOutcome::Raised(what) if what.starts_with("SyntaxError")));
}

#[test]
fn values_are_passed_and_returned_unchanged() {
    let Some(sandbox) = sandbox() else { return };
    let program = Program { source: "def f(*all): return [x for x in all]", entry_point: "f" };
    let mut session = sandbox.load(&program, &SandboxLimits::time(Duration::from_secs(LONG))).unwrap();
    let huge = num_bigint::BigInt::from(-7).pow(20_001);
    let values = vec![
        PythonValue::None,
        PythonValue::Bool(true),
        PythonValue::int(-3),
        PythonValue::int(i64::MAX),
        PythonValue::Int(huge),
        PythonValue::Float(0.1),
        PythonValue::Float(5e-324),
        PythonValue::Float(f64::INFINITY),
        PythonValue::Float(f64::NEG_INFINITY),
        PythonValue::str("a\"\\\n\u{0}\u{7f}é\u{1f600}"),
        PythonValue::List(vec![PythonValue::Tuple(vec![]), PythonValue::Tuple(vec![PythonValue::int(1)])]),
        PythonValue::Dict(vec![
            (PythonValue::str("k"), PythonValue::List(vec![])),
            (PythonValue::int(2), PythonValue::None),
        ]),
        PythonValue::Set(vec![]),
        PythonValue::Set(vec![PythonValue::int(1), PythonValue::str("1")]),
    ];
    let CallOutcome::Value(PythonValue::List(back)) = session.call(&values, Duration::from_secs(LONG)) else {
        panic!()
    };
    assert_eq!(back, values);
    // Equality is Python's; types and signs must be the same too.
    for (value, back) in values.iter().zip(&back) {
        assert_eq!(std::mem::discriminant(value), std::mem::discriminant(back), "{value} {back}");
    }
    let odd = [PythonValue::Float(f64::NAN), PythonValue::Float(-0.0)];
    let CallOutcome::Value(PythonValue::List(back)) = session.call(&odd, Duration::from_secs(LONG)) else { panic!() };
    assert!(
        matches!(back[..], [PythonValue::Float(nan), PythonValue::Float(zero)] if nan.is_nan() && zero.is_sign_negative())
    );
}

#[test]
fn values_of_other_types_are_opaque() {
    let Some(sandbox) = sandbox() else { return };
    let source = r#"
import collections, enum
Point = collections.namedtuple("Point", "x y")
class Color(enum.IntEnum): RED = 1
def f(): return [iter([]), range(3), b"x", 1j, f, int, "\ud800", Point(1, 2), Color.RED, collections.Counter("a"),
                 collections.OrderedDict(a=1), frozenset([1])]
"#;
    let mut session =
        sandbox.load(&Program { source, entry_point: "f" }, &SandboxLimits::time(Duration::from_secs(LONG))).unwrap();
    let CallOutcome::Value(PythonValue::List(found)) = session.call(&[], Duration::from_secs(LONG)) else { panic!() };
    let (opaque, plain) = found.split_at(7);
    assert!(opaque.iter().all(|it| matches!(it, PythonValue::Opaque)), "{opaque:?}");
    let plain: Vec<String> = plain.iter().map(PythonValue::to_string).collect();
    assert_eq!(plain, ["(0x1,0x2,)", "1", r#"{"a":0x1,}"#, r#"{"a":0x1,}"#, "set([0x1,])"]);
}

#[test]
fn many_threads_can_run_programs() {
    let Some(sandbox) = sandbox() else { return };
    let ids: Vec<u32> = std::thread::scope(|scope| {
        let run = |number: i64| {
            move || {
                let mut trial = Trial::new(sandbox, &format!("def f(): return {number}"));
                assert_eq!(trial.call(LONG), CallOutcome::Value(PythonValue::int(number)));
                let id = trial.id;
                trial.end();
                id
            }
        };
        let threads: Vec<_> = (0..8).map(|number| scope.spawn(run(number))).collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert_eq!(ids.len(), 8);
}

/// Not a test: waits inside a program until it is killed. Used by the next test.
#[test]
#[ignore = "run by another test"]
fn helper_that_waits() {
    let mut trial = Trial::new(sandbox().unwrap(), "def f(): time.sleep(1000)");
    fs::write(std::env::var("RFT_TEST_NOTE").unwrap(), trial.id.to_string()).unwrap();
    trial.call(1000);
}

#[test]
fn programs_are_killed_with_the_process_that_started_them() {
    let Some(_) = sandbox() else { return };
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("note");
    let mut helper = Command::new(std::env::current_exe().unwrap());
    let args = ["sandbox::helper_that_waits", "--exact", "--ignored", "--test-threads=1"];
    let mut helper = helper.args(args).env("RFT_TEST_NOTE", &note).spawn().unwrap();
    let id = until("the program's id", || fs::read_to_string(&note).ok().filter(|it| !it.is_empty()));
    assert!(Path::new(&format!("/proc/{id}")).exists());
    // SIGKILL, so that the process cannot clean up.
    helper.kill().unwrap();
    helper.wait().unwrap();
    until("the program's end", || (!Path::new(&format!("/proc/{id}")).exists()).then_some(()));
}

/// A folder in which every user can write.
fn shared_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// Runs the suite again with this command; its temporary folder must be empty afterwards.
fn again(mut command: Command, what: &str) {
    let (folder, notes) = (shared_folder(), shared_folder());
    let skipped = notes.path().join("skipped");
    let output = command
        .args(["sandbox::escape", "--test-threads=2"])
        .env("TMPDIR", folder.path())
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("RFT_TEST_SKIPPED", &skipped)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {text}");
    assert!(text.contains("test sandbox::escape_by_proc ... ok"), "{what}: {text}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{what}: {left:?}");
    if let Ok(skipped) = fs::read_to_string(skipped) {
        let reason = skipped.lines().next().unwrap_or_default();
        require::<()>("sandbox", Err(format!("the suite was not run {what}: {reason}")));
    }
}

#[test]
fn the_escape_suite_passes_as_an_ordinary_user() {
    use std::os::unix::process::CommandExt;
    let is_root = rustix::process::geteuid().is_root();
    let Some(_) = sandbox() else { return };
    let Some(()) = require("root", is_root.then_some(()).ok_or("an ordinary user runs the tests")) else { return };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.uid(65_534).gid(65_534);
    again(command, "as an ordinary user");
}

#[test]
fn the_escape_suite_passes_without_namespaces() {
    let Some(sandbox) = sandbox() else { return };
    let landlock = (sandbox.layers().landlock > 0).then_some(()).ok_or("the kernel lacks it");
    let Some(()) = require("landlock", landlock) else { return };
    // In a user namespace of its own a process may forbid itself any further ones.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let without = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]).arg(program);
        command
    };
    let trial = match without(Path::new("true")).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("start `unshare`: {error}")),
    };
    let Some(()) = require("namespaces", trial) else { return };
    let mut command = without(&std::env::current_exe().unwrap());
    command.env(WITHOUT, "1");
    again(command, "without namespaces");
}

#[test]
fn escape_suite_runs_with_the_layers_it_is_meant_for() {
    let Some(sandbox) = sandbox() else { return };
    let layers = sandbox.layers();
    println!("{layers:?}");
    assert!(layers.seccomp && (layers.namespaces || layers.landlock > 0));
    assert_eq!(layers.namespaces, std::env::var_os(WITHOUT).is_none() && sandbox.failures().is_empty());
}
