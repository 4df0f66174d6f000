//! Which checkpoints are kept, and what happens if the disk is too small for them.

use std::fs;

use crate::cli::{error, folder, rft};
use crate::lab::Lab;
use crate::train::Trace;

#[test]
fn the_newest_checkpoints_and_the_best_are_kept() {
    // In the evaluation after step 2 all answers are right, in the others one of two.
    let train = |sets: &[&str]| {
        let own = ["train.steps=8", "train.save_steps=1", "eval.every=1", "eval.greedy=false"];
        let lab = Lab::new(&[&own[..], sets].concat());
        let (mut evaluations, mut asked) = (0, 0);
        lab.run(|prompt, completion, step| {
            let is_evaluation = step > 1 << 20;
            asked += usize::from(is_evaluation);
            evaluations = asked.div_ceil(2);
            let is_right = match is_evaluation {
                true => evaluations == 3 || asked % 2 == 0,
                false => (prompt.key ^ step).is_multiple_of(2) == (completion == 0),
            };
            if is_right { lab.right() } else { lab.ended("Who knows?") }
        });
        lab
    };
    let kept = |sets: &[&str]| train(sets).run_dir().checkpoints().unwrap();
    assert_eq!(kept(&[]), (1..=8).collect::<Vec<_>>());
    assert_eq!(kept(&["train.save_total_limit=3"]), [2, 6, 7, 8]);
    let lab = train(&["train.save_total_limit=1"]);
    assert!(!lab.run_dir().path().join("checkpoints/step-000001.deleted").exists());
    assert_eq!(lab.run_dir().checkpoints().unwrap(), [2, 8]);
    let names = fs::read_dir(lab.run_dir().path().join("checkpoints")).unwrap();
    assert_eq!(names.count(), 2, "nothing else is left");
    let best = rft::train::checkpoints::best(&lab.run_dir(), &[2, 8]).unwrap().unwrap();
    assert_eq!((best.0, best.1.value()), (2, 1.0));
}

#[test]
fn the_best_checkpoint_is_printed() {
    let folder = folder();
    let args = ["train", "--ppe=none", "--steps=3", "--name=run", "--set=rollout.prompts_per_step=2"];
    let more =
        ["--set=train.save_steps=1", "--set=eval.every=1", "--set=eval.questions=8", "--set=train.learning_rate=0.5"];
    let output = rft(folder.path()).args(args).args(more).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    // A learning rate of 0.5 destroys the model in its first update or soon after.
    let steps = [1, 2].map(|step| format!("best         runs/run/checkpoints/step-00000{step}  (held-out accuracy"));
    let run = rft::run::RunDir::open(&folder.path().join("runs/run")).unwrap();
    let best = rft::train::checkpoints::best(&run, &[1, 2, 3]).unwrap().unwrap().0;
    assert_eq!(steps.iter().any(|line| said.contains(line)), best < 3, "{said}");
}

/// A run that would write more than any disk holds.
#[test]
fn space_is_checked_before_training() {
    let folder = folder();
    let args = ["train", "--ppe=none", "--steps=100000000", "--set=train.save_steps=1", "--set=eval.questions=0"];
    let refused = error(&folder, &args);
    let start = "error: a run of 100000000 steps with 100000001 checkpoints needs";
    assert!(refused.starts_with(start) && refused.contains("at `runs`, but only"), "{refused}");
    assert!(
        refused.contains("are missing\nhint: free some space") && refused.contains("save_total_limit"),
        "{refused}"
    );
    assert!(!folder.path().join("runs").exists(), "nothing was started");
}

/// The step whose log cannot be written is saved with its log, and the run resumes to the same bytes.
#[test]
fn a_step_that_cannot_be_logged_is_saved() {
    let lab = || Lab::new(&["train.steps=3", "eval.questions=0"]);
    let train = |lab: &Lab, lost: Option<&str>| {
        let run = lab.run_dir().path().to_owned();
        let mut engine = lab.engine(|prompt, completion, step| {
            if let Some(log) = lost.filter(|_| step == 2 && run.join("metrics.jsonl").exists()) {
                _ = fs::rename(run.join(log), run.join("away"));
            }
            let is_right = (prompt.key ^ step).is_multiple_of(2) == (completion == 0);
            if is_right { lab.right() } else { lab.ended("Who knows?") }
        });
        lab.train(&mut engine, &mut lab.state()).map(drop)
    };
    let whole = lab();
    train(&whole, None).unwrap();
    let whole = Trace::of(whole.run_dir().path());
    for log in ["completions.jsonl", "metrics.jsonl"] {
        let lab = lab();
        let error = format!("{:#}", train(&lab, Some(log)).unwrap_err());
        assert!(error.starts_with("log step 2, which is saved in `") && error.contains(log), "{error}");
        let run = lab.run_dir().path().to_owned();
        assert_eq!(lab.run_dir().checkpoints().unwrap(), [2]);
        fs::rename(run.join("away"), run.join(log)).unwrap();
        train(&lab, None).unwrap();
        Trace::of(&run).assert_same(&whole);
    }
}
