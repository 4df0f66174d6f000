//! Every completion that a run trained on, in `completions.jsonl`: one group per line.
//!
//! The bytes depend only on the run: no times, no paths, numbers in their shortest exact form. Identical runs have identical
//! files.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::dir::RunDir;
use super::jsonl::{self, JsonLines};
use crate::math::Verdict;

/// A question and its completions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupRecord {
    pub step: usize,
    pub question_id: String,
    pub question: String,
    pub gold: String,
    /// The name of the prior prompt that the group drew; absent if the run has only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppe: Option<String>,
    /// [`sha256_ids`](crate::disk::hash::sha256_ids) of the rendered prompt.
    pub prompt_sha256: String,
    /// `branches` in older files.
    #[serde(alias = "branches")]
    pub completions: Vec<CompletionRecord>,
}

impl GroupRecord {
    /// Whether all of its completions have the right answer.
    pub fn is_solved(&self) -> bool {
        self.completions.iter().all(|completion| completion.verdict == Verdict::Correct)
    }
}

/// A completion and its rewards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionRecord {
    pub text: String,
    pub tokens: usize,
    /// Why the completion ended.
    pub finish: String,
    /// By component, before weights; null if a component does not apply.
    pub rewards: BTreeMap<String, Option<f32>>,
    /// The weighted sum.
    pub reward: f32,
    pub verdict: Verdict,
    /// The answer that was extracted from the text.
    pub answer: Option<String>,
    /// The reason for the rewards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub advantage: f32,
}

/// The log of a run's completions.
pub struct CompletionsLog(JsonLines);

impl CompletionsLog {
    pub fn create(run: &RunDir) -> Result<Self> {
        JsonLines::create(&run.completions()).map(Self)
    }

    /// Continues after the checkpoint of `last_step`; later lines are removed.
    pub fn resume(run: &RunDir, last_step: usize) -> Result<Self> {
        JsonLines::resume(&run.completions(), last_step).map(Self)
    }

    pub fn append(&mut self, group: &GroupRecord) -> Result<()> {
        self.0.append(group)
    }

    /// Syncs the file to disk; called before a checkpoint is committed.
    pub fn sync(&self) -> Result<()> {
        self.0.sync()
    }
}

/// Reads all groups of a `completions.jsonl`.
pub fn read(path: &Path) -> Result<Vec<GroupRecord>> {
    jsonl::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_expected_bytes_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), None, "tiny").unwrap();
        let completion = |verdict: &Verdict, advantage| CompletionRecord {
            text: "2 + 2\n= \\boxed{4}\u{1b}[0m é".into(),
            tokens: 9,
            finish: "stop".into(),
            rewards: BTreeMap::from([
                ("format".into(), Some(0.1)),
                ("accuracy".into(), Some(1.0)),
                ("judge".into(), None),
            ]),
            reward: 0.55,
            verdict: verdict.clone(),
            answer: Some("4".into()),
            note: (*verdict != Verdict::Correct).then(|| "no <think>".into()),
            advantage,
        };
        let group = GroupRecord {
            step: 3,
            question_id: "arithmetic/17".into(),
            question: "What is 2 + 2?".into(),
            gold: "4".into(),
            ppe: None,
            prompt_sha256: crate::disk::hash::sha256_ids(&[1, 2]),
            completions: vec![
                completion(&Verdict::Correct, 0.70710677),
                completion(&Verdict::Undecided("no box".into()), -1e-9),
            ],
        };
        CompletionsLog::create(&run).unwrap().append(&group).unwrap();
        let text = std::fs::read_to_string(run.completions()).unwrap();
        let completion = |verdict: &str, note: &str, advantage: &str| {
            format!(
                r#"{{"text":"2 + 2\n= \\boxed{{4}}\u001b[0m é","tokens":9,"finish":"stop","rewards":{{"accuracy":1.0,"format":0.1,"judge":null}},"reward":0.55,"verdict":{verdict},"answer":"4",{note}"advantage":{advantage}}}"#
            )
        };
        assert_eq!(
            text,
            format!(
                "{{\"step\":3,\"question_id\":\"arithmetic/17\",\"question\":\"What is 2 + 2?\",\"gold\":\"4\",\
                 \"prompt_sha256\":\"{}\",\"completions\":[{},{}]}}\n",
                group.prompt_sha256,
                completion("\"correct\"", "", "0.70710677"),
                completion("{\"undecided\":\"no box\"}", "\"note\":\"no <think>\",", "-1e-9")
            )
        );
        assert_eq!(read(&run.completions()).unwrap(), std::slice::from_ref(&group));
        std::fs::write(run.completions(), text.replace("\"completions\":", "\"branches\":")).unwrap();
        assert_eq!(read(&run.completions()).unwrap(), std::slice::from_ref(&group), "an older file");
        let drawn = GroupRecord { ppe: Some("planning@1".into()), ..group };
        let line = serde_json::to_string(&drawn).unwrap();
        assert!(line.contains(r#""gold":"4","ppe":"planning@1","prompt_sha256""#), "{line}");
        assert_eq!(serde_json::from_str::<GroupRecord>(&line).unwrap(), drawn);
    }
}
