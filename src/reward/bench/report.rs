//! The results of the bench, and whether they are good enough.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::case::{CaseKind, RewardCase};
use crate::data::Question;
use crate::math::Verdict;

/// The reward's error in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaseFault {
    FalseAccept,
    FalseReject,
    /// The checker could not decide about a right answer.
    Undecided,
}

impl fmt::Display for CaseFault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            CaseFault::FalseAccept => "false accept",
            CaseFault::FalseReject => "false reject",
            CaseFault::Undecided => "undecided",
        })
    }
}

/// A case whose result is not the expected one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseFailure {
    pub fault: CaseFault,
    /// The component that was wrong.
    pub component: String,
    pub kind: CaseKind,
    pub id: String,
    pub gold: String,
    pub response: String,
    pub verdict: Verdict,
}

/// A question whose gold answer cannot be read, so that no answer to it can be scored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unreadable {
    pub id: String,
    pub gold: String,
    pub reason: String,
}

/// The results of one kind of case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaseTally {
    pub cases: usize,
    /// The number of them whose answer is right.
    pub right: usize,
    pub false_accepts: usize,
    pub false_rejects: usize,
    pub undecided: usize,
    /// One per check.
    times: Vec<Duration>,
}

#[derive(Clone, Debug, Default)]
pub struct BenchReport {
    /// Number of gold answers tested, including those that cannot be read.
    pub golds: usize,
    pub unreadable: Vec<Unreadable>,
    pub tallies: BTreeMap<CaseKind, CaseTally>,
    /// In the order of the data.
    pub failures: Vec<CaseFailure>,
}

/// Maximum shares that pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PassLimits {
    /// Share of the wrong answers.
    pub false_accept: f64,
    /// Share of the right answers.
    pub false_reject: f64,
    /// Share of the right answers.
    pub undecided: f64,
    /// Share of the gold answers.
    pub unreadable: f64,
}

impl Default for PassLimits {
    /// No false accept: a policy would find it and learn nothing else. A false reject is only noise.
    fn default() -> PassLimits {
        PassLimits { false_accept: 0.0, false_reject: 0.005, undecided: 0.01, unreadable: 0.05 }
    }
}

impl CaseFailure {
    pub(super) fn new(
        fault: CaseFault,
        component: &str,
        case: RewardCase,
        question: &Question,
        verdict: Verdict,
    ) -> CaseFailure {
        let (id, gold) = (question.id.clone(), question.gold.clone());
        CaseFailure {
            fault,
            component: component.to_owned(),
            kind: case.kind,
            id,
            gold,
            response: case.response,
            verdict,
        }
    }
}

impl Unreadable {
    pub fn new(question: &Question, reason: String) -> Unreadable {
        Unreadable { id: question.id.clone(), gold: question.gold.clone(), reason }
    }
}

impl CaseTally {
    pub fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    pub fn max(&self) -> Duration {
        self.times.iter().max().copied().unwrap_or_default()
    }

    fn add(&mut self, other: &CaseTally) {
        self.cases += other.cases;
        self.right += other.right;
        self.false_accepts += other.false_accepts;
        self.false_rejects += other.false_rejects;
        self.undecided += other.undecided;
        self.times.extend(&other.times);
    }
}

impl BenchReport {
    pub(super) fn count(&mut self, kind: CaseKind, right: bool, elapsed: Duration, failure: Option<CaseFailure>) {
        let tally = self.tallies.entry(kind).or_default();
        tally.cases += 1;
        tally.right += usize::from(right);
        tally.times.push(elapsed);
        if let Some(failure) = failure {
            match failure.fault {
                CaseFault::FalseAccept => tally.false_accepts += 1,
                CaseFault::FalseReject => tally.false_rejects += 1,
                CaseFault::Undecided => tally.undecided += 1,
            }
            self.failures.push(failure);
        }
    }

    /// The sum over all kinds.
    pub fn total(&self) -> CaseTally {
        let mut total = CaseTally::default();
        self.tallies.values().for_each(|tally| total.add(tally));
        total
    }

    /// The shares that [`PassLimits`] bounds.
    pub fn shares(&self) -> PassLimits {
        let share = |count: usize, of: usize| if of == 0 { 0.0 } else { count as f64 / of as f64 };
        let all = self.total();
        PassLimits {
            false_accept: share(all.false_accepts, all.cases - all.right),
            false_reject: share(all.false_rejects, all.right),
            undecided: share(all.undecided, all.right),
            unreadable: share(self.unreadable.len(), self.golds),
        }
    }

    /// The first limit that is exceeded, as a line; `None` if the reward passes.
    pub fn breach(&self, limits: &PassLimits) -> Option<String> {
        let (all, shares) = (self.total(), self.shares());
        if self.golds == self.unreadable.len() {
            return Some("no gold answer can be read".to_owned());
        }
        [
            ("gold answers that cannot be read", self.unreadable.len(), shares.unreadable, limits.unreadable),
            ("false accepts", all.false_accepts, shares.false_accept, limits.false_accept),
            ("false rejects", all.false_rejects, shares.false_reject, limits.false_reject),
            ("right answers undecided", all.undecided, shares.undecided, limits.undecided),
        ]
        .into_iter()
        .find(|(.., share, limit)| share > limit)
        .map(|(what, count, share, limit)| {
            format!("{count} {what} ({:.2} %), more than {} %", 100.0 * share, 100.0 * limit)
        })
    }
}
