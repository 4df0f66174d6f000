//! A clean stop when the user or the system requests one.

use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// The signal that requested the stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: the system is shutting down, or a time limit is reached.
    Terminate,
    /// SIGUSR1: a batch system announces that it will soon stop the job.
    Preempt,
}

impl Signal {
    /// Exit status of a process that was ended by this signal: 128 plus its number.
    pub fn exit_code(self) -> i32 {
        128 + match self {
            Self::Interrupt => SIGINT,
            Self::Terminate => SIGTERM,
            Self::Preempt => SIGUSR1,
        }
    }

    fn from_number(number: i32) -> Self {
        match number {
            SIGINT => Self::Interrupt,
            SIGTERM => Self::Terminate,
            _ => Self::Preempt,
        }
    }
}

/// One Ctrl-C can arrive twice: `timeout` and some shells signal the process and then its whole group.
const ECHO: Duration = Duration::from_millis(500);

/// Whether the run has to stop. Clones share the same request.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    first: Arc<Mutex<Option<(Signal, Instant)>>>,
}

impl Stop {
    /// A request that is set only by [`Stop::request`], for tests and for callers that handle signals themselves.
    pub fn manual() -> Self {
        Self::default()
    }

    /// Listens for SIGINT, SIGTERM and SIGUSR1 from now on. The first signal requests a stop with a checkpoint, and `on_first`
    /// can inform the user; a later SIGINT or SIGTERM ends the process immediately with status 130 or 143. Call this once
    /// per process.
    pub fn on_signals(on_first: impl Fn(Signal) + Send + 'static) -> Result<Self> {
        Self::on_signals_and(on_first, |_| ())
    }

    /// Like [`Stop::on_signals`], with a function that is called before the second signal ends the process, for example to end
    /// child processes.
    pub fn on_signals_and(
        on_first: impl Fn(Signal) + Send + 'static,
        on_kill: impl Fn(Signal) + Send + 'static,
    ) -> Result<Self> {
        let stop = Self::default();
        let listener = stop.clone();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).context("listen for signals")?;
        // A separate thread receives the second signal while the run computes.
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for number in signals.forever() {
                    let signal = Signal::from_number(number);
                    match listener.receive(signal, Instant::now()) {
                        SignalAction::First => on_first(signal),
                        SignalAction::Ignored => {}
                        SignalAction::Kill => {
                            on_kill(signal);
                            signal_hook::low_level::exit(signal.exit_code())
                        }
                    }
                }
            })
            .context("start the thread that listens for signals")?;
        Ok(stop)
    }

    /// The signal that requested the stop, if any. The training loop checks this between steps.
    pub fn requested(&self) -> Option<Signal> {
        self.lock().map(|(signal, _)| signal)
    }

    /// Requests a stop as the signal would.
    pub fn request(&self, signal: Signal) {
        self.receive(signal, Instant::now());
    }

    fn receive(&self, signal: Signal, now: Instant) -> SignalAction {
        let mut first = self.lock();
        match *first {
            None => {
                *first = Some((signal, now));
                SignalAction::First
            }
            Some((_, at)) if now.duration_since(at) < ECHO || signal == Signal::Preempt => SignalAction::Ignored,
            Some(_) => SignalAction::Kill,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Signal, Instant)>> {
        self.first.lock().expect("no holder of the lock panics")
    }
}

#[derive(Debug, PartialEq, Eq)]
enum SignalAction {
    First,
    Ignored,
    Kill,
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_first_signal_requests_a_stop_and_the_second_ends_the_process() {
        let stop = Stop::manual();
        assert_eq!(stop.requested(), None);
        let start = Instant::now();
        let later = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(stop.receive(Signal::Preempt, start), SignalAction::First);
        assert_eq!(stop.receive(Signal::Terminate, later(10)), SignalAction::Ignored);
        assert_eq!(stop.receive(Signal::Preempt, later(60_000)), SignalAction::Ignored);
        assert_eq!(stop.receive(Signal::Interrupt, later(60_000)), SignalAction::Kill);
        assert_eq!(stop.requested(), Some(Signal::Preempt));
    }

    #[test]
    fn clones_share_the_request() {
        let stop = Stop::manual();
        let loops = stop.clone();
        stop.request(Signal::Terminate);
        assert_eq!(loops.requested(), Some(Signal::Terminate));
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(Signal::Interrupt.exit_code(), 130);
        assert_eq!(Signal::Terminate.exit_code(), 143);
    }

    /// Sends SIGUSR1 to this process: no other test uses it, and it cannot kill the process.
    #[test]
    fn a_real_signal_is_received() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let stop = Stop::on_signals(move |signal| sender.send(signal).unwrap()).unwrap();
        signal_hook::low_level::raise(SIGUSR1).unwrap();
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)).unwrap(), Signal::Preempt);
        assert_eq!(stop.requested(), Some(Signal::Preempt));
    }

    /// Runs this test again in a child process, as if a user presses Ctrl-C once, or twice.
    #[test]
    fn a_process_stops_cleanly_or_immediately() {
        const CHILD: &str = "RFT_TEST_SIGNALS_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let stop = Stop::on_signals(|_| println!("heard")).unwrap();
            println!("ready");
            while stop.requested().is_none() {
                thread::sleep(Duration::from_millis(1));
            }
            // A last step that takes a long time.
            thread::sleep(Duration::from_secs(2));
            std::process::exit(0);
        }
        for (name, signals, status) in [("INT", 1, 0), ("TERM", 2, 143), ("INT", 2, 130)] {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", "run::signals::tests::a_process_stops_cleanly_or_immediately"])
                .env(CHILD, "1")
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
            assert!(lines.any(|line| line.ends_with("ready")));
            for count in 0..signals {
                if count > 0 {
                    thread::sleep(ECHO);
                }
                Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
                assert!(count > 0 || lines.any(|line| line.ends_with("heard")));
            }
            assert_eq!(child.wait().unwrap().code(), Some(status), "{signals} times SIG{name}");
        }
    }
}
