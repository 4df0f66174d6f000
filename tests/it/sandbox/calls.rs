//! What programs receive and return.

use std::thread;
use std::time::Duration;

use rft::sandbox::{CallOutcome, Program, PythonValue, Sandbox, SandboxLimits};

use super::{LONG, Trial};
use crate::code_eval::sandbox;
use crate::require::require;

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

#[test]
fn a_stopped_sandbox_ends_its_programs_and_starts_no_more() {
    let Some(_) = sandbox() else { return };
    // One of its own: the other tests use theirs.
    let sandbox = Sandbox::probe(false).unwrap();
    let program = Program { source: "import time\ndef f():\n    time.sleep(3600)", entry_point: "f" };
    let hour = SandboxLimits::time(Duration::from_secs(3600));
    thread::scope(|scope| {
        let mut session = sandbox.load(&program, &hour).unwrap();
        scope.spawn(|| sandbox.stop());
        assert_eq!(session.call(&[], Duration::from_secs(3600)), CallOutcome::TimedOut);
    });
    assert!(sandbox.load(&program, &hour).is_err());
    assert!(sandbox.stdout("print(1)", "", &hour).is_err());
}
