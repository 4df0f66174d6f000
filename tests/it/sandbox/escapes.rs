//! Programs that try to leave the sandbox, to leave something behind or to write their own verdict. Each fails to, and leaves
//! neither a process nor a file.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use rft::sandbox::{CallOutcome, PythonValue, SandboxLimits};

use super::{LONG, Trial, WITHOUT, dies, exits, no_such_calls, nothing_goes_through, outcome};
use crate::code_eval::sandbox;
use crate::progress::ends;

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
fn the_suite_runs_with_the_layers_it_is_meant_for() {
    let Some(sandbox) = sandbox() else { return };
    let layers = sandbox.layers();
    println!("{layers:?}");
    assert!(layers.seccomp && (layers.namespaces || layers.landlock > 0));
    assert_eq!(layers.namespaces, std::env::var_os(WITHOUT).is_none() && sandbox.failures().is_empty());
}
