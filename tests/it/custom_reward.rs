//! A custom reward: a command that answers requests in JSON lines. Here it is a shell script, with and without mistakes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rft::config::CustomSection;
use rft::data::Question;
use rft::model::lora::Adapter;
use rft::prompt::{self, PriorPrompt};
use rft::reward::{CompletionKey, CustomReward, RewardInput, Score};
use rft::rollout::{Completion, Engine, RolloutRequest, RolloutWatch, Unwatched};

use crate::cli::rft;
use crate::lab::{Honest, Lab};
use crate::progress::{HANG, ends, until};
use crate::train::{SMALL, Trace};

/// Sets `id` to the number of the request in `line`, which begins with it.
const ID: &str = r#"id=${line#*:}; id=${id%%,*}"#;

/// A time limit for commands that answer or end.
const PATIENT: f64 = HANG.as_secs() as f64;

fn section(script: &str, timeout: f64) -> CustomSection {
    let command = ["sh", "-c", script].map(String::from).to_vec();
    CustomSection { name: "judge".into(), command, weight: 1.0, timeout, env: Vec::new() }
}

/// A script that runs `act` for every request, whose number is in `$id`.
fn each(act: &str) -> String {
    format!("while read -r line; do {ID}; {act}; done")
}

/// Completions of one question with different texts.
struct Batch {
    question: Question,
    prompt: PriorPrompt,
    responses: Vec<String>,
}

impl Batch {
    fn new(size: usize) -> Self {
        let mut question = Question {
            id: "q/1".into(),
            text: "What is \"x\"?".into(),
            gold: "7".into(),
            source: "test".into(),
            extra: serde_json::Map::new(),
        };
        question.extra.insert("rubric".into(), "be kind".into());
        let responses = (0..size).map(|it| format!("answer {it}\nof {size}")).collect();
        Self { question, prompt: prompt::find("null-example").unwrap(), responses }
    }

    fn ask(&self, judge: &CustomReward) -> Result<Vec<Score>> {
        let sample = |response| RewardInput {
            question: &self.question,
            response,
            prompt: &self.prompt,
            prefilled: false,
            tokens: 9,
            truncated: true,
            key: CompletionKey::default(),
        };
        let samples: Vec<_> = self.responses.iter().map(|it| sample(it)).collect();
        Ok(judge.score(&samples, &|| false)?.expect("not canceled"))
    }

    fn values(&self, judge: &CustomReward) -> Vec<Option<f64>> {
        self.ask(judge).unwrap().into_iter().map(|score| score.value).collect()
    }
}

fn ask(size: usize, script: &str, timeout: f64) -> Result<Vec<Score>> {
    Batch::new(size).ask(&CustomReward::start(&section(script, timeout)).unwrap())
}

/// The error of a batch of two completions.
fn error(script: &str, timeout: f64) -> String {
    format!("{:#}", ask(2, script, timeout).expect_err("a command that misbehaves"))
}

#[test]
fn a_request_has_all_fields() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("asked");
    let act = format!(r#"printf '%s\n' "$line" >> '{}'; echo "{{\"id\":$id,\"score\":0}}""#, path.display());
    ask(2, &each(&act), PATIENT).unwrap();
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines[1],
        serde_json::json!({
            "id": 1,
            "prompt": prompt::find("null-example").unwrap().text,
            "question_id": "q/1",
            "question": "What is \"x\"?",
            "gold": "7",
            "response": "answer 1\nof 2",
            "tokens": 9,
            "truncated": true,
            "extra": {"rubric": "be kind"},
        })
    );
    assert_eq!(lines.len(), 2);
}

#[test]
fn answers_may_come_in_any_order_and_be_null() {
    let script = r#"read -r line; read -r line; read -r line
        echo '{"note":"late","score":-2.5e-1,"id":2}'; echo '{"id":0,"score":null}'; echo '{"id":1,"score":3,"more":[]}'
        read -r line"#;
    let scores = ask(3, script, PATIENT).unwrap();
    assert_eq!(scores.iter().map(|it| it.value).collect::<Vec<_>>(), [None, Some(3.0), Some(-0.25)]);
    assert_eq!(scores[2].note.as_deref(), Some("late"));
}

#[test]
fn one_command_serves_all_batches() {
    let script = format!("n=0; {}", each(r#"n=$((n + 1)); echo "{\"id\":$id,\"score\":$n}""#));
    let judge = CustomReward::start(&section(&script, PATIENT)).unwrap();
    assert_eq!(Batch::new(2).values(&judge), [Some(1.0), Some(2.0)]);
    assert_eq!(Batch::new(0).values(&judge), []);
    assert_eq!(Batch::new(3).values(&judge), [Some(3.0), Some(4.0), Some(5.0)]);
}

/// The requests and answers of the batch are larger than a pipe's buffer, and the command answers each before it reads the next.
#[test]
fn a_batch_larger_than_the_pipes() {
    let script = each(r#"echo "{\"id\":$id,\"score\":$id,\"note\":\"$id $id $id $id $id $id $id $id $id $id\"}""#);
    let scores = ask(1500, &script, 60.0).unwrap();
    assert!(scores.iter().enumerate().all(|(i, score)| score.value == Some(i as f64)));
}

/// The command answers two of five requests each time it is started.
#[test]
fn a_command_that_dies_is_restarted_and_asked_for_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let lives = folder.path().join("lives");
    let script = format!(
        "echo life >> '{}'; for i in 1 2; do read -r line; {ID}; echo \"{{\\\"id\\\":$id,\\\"score\\\":$id}}\"; done",
        lives.display()
    );
    let scores = ask(5, &script, PATIENT).unwrap();
    assert_eq!(scores.iter().map(|it| it.value.unwrap()).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0]);
    assert_eq!(fs::read_to_string(lives).unwrap().lines().count(), 3);
}

#[test]
fn a_command_that_keeps_dying_is_an_error_with_its_stderr() {
    let script =
        format!("read -r line; {ID}; test $id = 0 && echo '{{\"id\":0,\"score\":1}}'; echo 'no key' >&2; exit 4");
    assert_eq!(
        error(&script, PATIENT),
        "custom reward `judge`: the command ended (exit status: 4) after scoring 1 of 2 completions and 3 restarts; its \
         stderr ends with \"no key\"\n\
         hint: run the command by hand as docs/rewards.md shows, or raise `timeout` (seconds per batch)"
    );
}

#[test]
fn a_command_that_hangs_times_out() {
    // The first reads nothing, the second answers nothing, the third keeps its output open in a grandchild.
    for script in ["sleep 6000", "cat >/dev/null", "sleep 6000 & sleep 6000 & wait"] {
        let error = ends(script, || error(script, 0.2));
        assert!(error.contains("took more than 0.2 seconds after scoring 0 of 2 completions"), "{error}");
    }
}

#[test]
fn protocol_errors_are_reported() {
    let answer = |line: &str| format!("read -r line; printf '%s\\n' '{line}'; sleep 6000");
    for (line, problem) in [
        ("loading the model ...", r#"reply "loading the model ...": expected value"#),
        (r#"{"id":0,"score":NaN}"#, r#"reply "{\"id\":0,\"score\":NaN}": expected value"#),
        (r#"{"id":0,"score":-Infinity}"#, "invalid number"),
        (r#"{"id":0,"score":1e999}"#, "number out of range"),
        (r#"{"id":0,"score":"0.5"}"#, "invalid type: string"),
        (r#"{"id":0}"#, "missing field `score`"),
        (r#"{"score":1}"#, "missing field `id`"),
        (r#"{"id":-1,"score":1}"#, "invalid value"),
        (r#"{"id":2,"score":1}"#, "id 2 was not requested, the ids so far are 0 to 1"),
        (r#"[0, 1]"#, "invalid"),
        ("", "EOF while parsing"),
    ] {
        let error = error(&answer(line), PATIENT);
        assert!(error.starts_with("custom reward `judge`: reply \"") && error.contains(problem), "{error}");
        assert!(error.contains("\nhint: reply to each request with one line of JSON"), "{error}");
    }
    let twice = error(&answer("{\"id\":0,\"score\":1}\n{\"id\":0,\"score\":0}"), PATIENT);
    assert!(twice.contains("request 0 already has a score"), "{twice}");

    // Too late: a reply without a request is noticed in the next batch.
    let judge = CustomReward::start(&section(
        &each(r#"echo "{\"id\":$id,\"score\":1}"; echo "{\"id\":$id,\"score\":0}""#),
        PATIENT,
    ));
    let judge = judge.unwrap();
    let batch = Batch::new(1);
    let late = format!("{:#}", batch.ask(&judge).and_then(|_| batch.ask(&judge)).unwrap_err());
    assert!(late.contains("request 0 already has a score"), "{late}");
}

/// A score beyond what the log can hold, or any use.
#[test]
fn an_absurd_score_is_refused() {
    for score in ["1e39", "-1e39", "1e300", "1000001"] {
        let error = error(&format!("read -r line; echo '{{\"id\":0,\"score\":{score}}}'; sleep 6000"), PATIENT);
        assert!(error.contains("is out of range, expected -1e6 to 1e6\nhint: scale the scores"), "{error}");
    }
    let largest = ask(1, "read -r line; echo '{\"id\":0,\"score\":-1e6}'; cat >/dev/null", PATIENT).unwrap();
    assert_eq!(largest[0].value, Some(-1e6));
}

#[test]
fn an_absurd_score_ends_the_run_with_a_readable_log() {
    let folder = tempfile::tempdir().unwrap();
    // The first step has 16 completions.
    let act = r#"if [ $id -lt 16 ]; then score=$((id % 2)); else score=1e39; fi; echo "{\"id\":$id,\"score\":$score}""#;
    let script = each(act);
    let set = format!("--set=reward.custom=[{{name='judge', weight=1, command=['sh', '-c', '''{script}''']}}]");
    let output = rft(folder.path())
        .args(SMALL)
        .args(["--set=eval.questions=0", "--set=reward.bench=off", &set])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: custom reward `judge`: reply") && said.contains("1e39 is out of range"), "{said}");
    let groups = rft::run::completions::read(&folder.path().join("runs/run/completions.jsonl")).unwrap();
    assert_eq!(groups.len(), 4);
}

/// A variable of the environment is a secret by its name, unless the configuration passes it on.
#[test]
fn a_command_does_not_see_secrets_unless_they_are_passed() {
    let folder = tempfile::tempdir().unwrap();
    let act = r#"env >seen; echo "{\"id\":$id,\"score\":0}""#;
    let seen = |more: &str| {
        let script = each(act);
        let set =
            format!("--set=reward.custom=[{{name='judge', weight=1, command=['sh', '-c', '''{script}''']{more}}}]");
        let args = ["train", "--ppe=none", "--steps=1", "--set=eval.questions=0", "--set=rollout.prompts_per_step=1"];
        let mut run = rft(folder.path());
        run.env("HF_TOKEN", "hf_1").env("OPENAI_API_KEY", "sk_2").env("DB_PASSWORD", "pw_3").env("PLAIN", "plain_4");
        run.args(args).args(["--set=reward.bench=off", &set]).assert().success();
        fs::read_to_string(folder.path().join("seen")).unwrap()
    };
    let text = seen("");
    assert!(text.contains("PLAIN=plain_4") && text.contains("PATH="), "{text}");
    assert!(["hf_1", "sk_2", "pw_3"].iter().all(|secret| !text.contains(secret)), "{text}");
    let text = seen(", env=['OPENAI_API_KEY']");
    assert!(text.contains("OPENAI_API_KEY=sk_2") && !text.contains("hf_1"), "{text}");
}

#[test]
fn a_command_that_cannot_be_started_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("judge.py");
    fs::write(&plain, "print()").unwrap();
    for (program, cause) in
        [("./no-such-judge", "No such file or directory"), (plain.to_str().unwrap(), "Permission denied")]
    {
        let section = CustomSection { command: vec![program.into()], ..section("", 1.0) };
        let error = format!("{:#}", CustomReward::start(&section).err().expect("nothing to start"));
        assert!(error.starts_with(&format!("custom reward `judge`: start `{program}`")), "{error}");
        assert!(error.contains(cause) && error.contains("hint: set `command` to a program"), "{error}");
    }
}

/// The argument of `--set` that adds a judge of this weight.
fn judge(script: &str, weight: f64) -> String {
    format!(
        "reward.custom=[{{name='judge', weight={weight}, timeout={PATIENT}, command=['sh', '-c', '''{script}''']}}]"
    )
}

#[test]
fn a_run_does_not_depend_on_the_number_of_threads() {
    // A fraction that depends on the text: its length modulo 7.
    let script = each(r#"echo "{\"id\":$id,\"score\":0.$((${#line} % 7)),\"note\":\"of ${#line}\"}""#);
    let set = judge(&script, 0.5);
    let traces = ["--threads=1", "--threads=2"].map(|threads| {
        let folder = tempfile::tempdir().unwrap();
        let args = SMALL.map(|arg| if arg.starts_with("--threads") { threads } else { arg });
        rft(folder.path()).args(args).args(["--set", &set]).assert().success();
        Trace::of(&folder.path().join("runs/run"))
    });
    traces[0].assert_same(&traces[1]);
    for line in traces[0].metrics.iter().filter(|line| line.values.contains_key("reward")) {
        let value = |name: &str| line.values[name].unwrap();
        let sum = ["accuracy", "format", "judge"].map(|name| 0.5 * value(&format!("rewards/{name}/mean")));
        assert!(value("rewards/judge/mean") > 0.0 && value("rewards/judge/std") > 0.0);
        assert!((value("reward") - sum.iter().sum::<f64>()).abs() < 1e-9, "{line:?}");
    }
}

#[test]
fn a_completion_without_a_score_takes_the_mean_of_its_group() {
    // Completion 0 has no score; the others have 1, 0 and 0.
    let script = each(
        r#"case $((id % 4)) in 0) score=null;; 1) score=1;; *) score=0;; esac; echo "{\"id\":$id,\"score\":$score}""#,
    );
    let lab = Lab::new(&[
        "reward.accuracy.weight=0",
        "reward.format.weight=0",
        "train.steps=1",
        "eval.questions=0",
        &judge(&script, 3.0),
    ]);
    lab.run(|_, _, _| lab.right());
    for group in lab.completions() {
        let rewards: Vec<f32> = group.completions.iter().map(|completion| completion.reward).collect();
        assert_eq!(rewards, [1.0, 3.0, 0.0, 0.0]);
        assert_eq!(group.completions[0].rewards["judge"], None);
        assert_eq!(group.completions[0].advantage, 0.0);
    }
    let values = &lab.metrics()[0].values;
    assert_eq!((values["rewards/judge/mean"], values["reward"]), (Some(1.0 / 3.0), Some(1.0)));
}

#[test]
fn a_command_that_breaks_ends_the_run_with_its_error() {
    let lab = Lab::new(&["eval.questions=0", &judge("echo oops; sleep 6000", 1.0)]);
    let error = lab.train(&mut lab.engine(|_, _, _| lab.right()), &mut lab.state()).err().expect("the judge is broken");
    assert!(format!("{error:#}").contains("custom reward `judge`: reply \"oops\""), "{error:#}");
}

/// An engine that does not start on the second group before the judge was asked about the first.
struct Waiting<'a> {
    inner: Honest<'a>,
    sign: PathBuf,
}

struct WaitingWatch<'a> {
    inner: &'a mut dyn RolloutWatch,
    sign: &'a Path,
}

impl Engine for Waiting<'_> {
    fn generate(
        &mut self,
        adapter: Option<&Adapter>,
        request: &RolloutRequest,
        watch: &mut dyn RolloutWatch,
    ) -> Result<Option<Vec<Vec<Completion>>>> {
        self.inner.generate(adapter, request, &mut WaitingWatch { inner: watch, sign: &self.sign })
    }
}

impl RolloutWatch for WaitingWatch<'_> {
    fn group(&mut self, prompt: usize, completions: &[Completion]) {
        self.inner.group(prompt, completions);
        if prompt == 0 {
            until("a request to the judge while the rollout continues", || self.sign.exists().then_some(()));
        }
    }

    fn cancelled(&mut self) -> bool {
        self.inner.cancelled()
    }
}

#[test]
fn groups_are_scored_while_others_are_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let sign = folder.path().join("seen");
    let script = each(&format!(r#"echo > "{}"; echo "{{\"id\":$id,\"score\":1}}""#, sign.display()));
    let lab = Lab::new(&["eval.questions=0", "train.steps=1", &judge(&script, 1.0)]);
    let mut engine = Waiting { inner: lab.engine(|_, _, _| lab.right()), sign };
    lab.train(&mut engine, &mut lab.state()).unwrap();
    assert_eq!(lab.metrics()[0].values["rewards/judge/mean"], Some(1.0));
}

/// An engine that reports nothing until it returns.
struct Silent<'a>(Honest<'a>);

impl Engine for Silent<'_> {
    fn generate(
        &mut self,
        adapter: Option<&Adapter>,
        request: &RolloutRequest,
        _watch: &mut dyn RolloutWatch,
    ) -> Result<Option<Vec<Vec<Completion>>>> {
        self.0.generate(adapter, request, &mut Unwatched)
    }
}

#[test]
fn groups_that_the_engine_did_not_report_are_scored_at_the_end() {
    let labs = [(); 2].map(|()| Lab::new(&["train.steps=1"]));
    let answer = |lab: &Lab, completion| if completion == 0 { lab.right() } else { lab.ended("no") };
    labs[0].run(|_, completion, _| answer(&labs[0], completion));
    let mut silent = Silent(labs[1].engine(|_, completion, _| answer(&labs[1], completion)));
    labs[1].train(&mut silent, &mut labs[1].state()).unwrap();
    assert_eq!(labs[0].completions(), labs[1].completions());
    assert_eq!(labs[1].completions()[0].completions[0].reward, 1.0);
}
