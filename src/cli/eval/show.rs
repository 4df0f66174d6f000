//! `rft eval show EVALUATION`

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::eval::engine::LENGTH;
use crate::eval::folder::{BenchFolder, EvalFolder, GradeRecord, SampleRecord};
use crate::math::Verdict;

/// Print samples, with the reason for each verdict
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft eval show evals/tiny-none-study-1a2b3c4d --wrong
  rft eval show evals/tiny-none-study-1a2b3c4d --bench arithmetic --id 17")]
pub struct EvalShowArgs {
    /// Folder of the evaluation
    evaluation: PathBuf,

    /// Only this benchmark
    #[arg(long, value_name = "NAME")]
    bench: Option<String>,

    /// Only wrong samples
    #[arg(long, group = "which")]
    wrong: bool,

    /// Only undecided samples, which could be shown neither right nor wrong
    #[arg(long, group = "which")]
    undecided: bool,

    /// Only truncated samples
    #[arg(long, group = "which")]
    truncated: bool,

    /// Only samples of this question
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    /// Print the rendered prompt instead of the question
    #[arg(long)]
    prompt: bool,

    /// Maximum number of samples
    #[arg(short, long, value_name = "N")]
    n: Option<usize>,
}

pub fn run(args: &EvalShowArgs) -> Result<()> {
    let folder = EvalFolder::open(&args.evaluation)?;
    let benches = folder.benches()?;
    let names = benches.keys().cloned().collect::<Vec<_>>().join(", ");
    if let Some(name) = &args.bench {
        ensure!(benches.contains_key(name), "the evaluation has no benchmark `{name}`\nhint: use one of {names}");
    }
    let mut left = args.n.unwrap_or(usize::MAX);
    for (name, bench) in benches.iter().filter(|(name, _)| args.bench.as_ref().is_none_or(|it| it == *name)) {
        left -= print_bench(args, name, bench, left)?;
    }
    Ok(())
}

/// Prints the samples that match, at most `most`. Returns their number.
fn print_bench(args: &EvalShowArgs, name: &str, bench: &BenchFolder, most: usize) -> Result<usize> {
    let questions: BTreeMap<String, _> = bench.questions()?.into_iter().map(|it| (it.id.clone(), it)).collect();
    let grades = if bench.results().is_file() { bench.grades()? } else { Vec::new() };
    let grades: BTreeMap<(&str, usize), &GradeRecord> =
        grades.iter().map(|it| ((it.question_id.as_str(), it.sample), it)).collect();
    let mut shown = 0;
    for sample in bench.samples()? {
        let grade = grades.get(&(sample.question_id.as_str(), sample.sample)).copied();
        if shown == most || !wanted(args, &sample, grade) {
            continue;
        }
        shown += 1;
        let question = &questions[&sample.question_id];
        let verdict = grade.map_or_else(|| "not graded yet".to_owned(), |it| it.grade.verdict.to_string());
        let under = sample.ppe.as_ref().map(|ppe| format!(" under `{ppe}`")).unwrap_or_default();
        println!("── {name} {} sample {}{under}: {verdict}", &sample.question_id, sample.sample);
        println!("{}", if args.prompt { &question.prompt_text } else { &question.question });
        for (place, option) in question.options.iter().enumerate() {
            println!("{}) {}", crate::eval::bench::AnswerOptions::letter(place), option);
        }
        println!("── {} tokens, finish: {}", sample.tokens, &sample.finish);
        println!("{}", &sample.text);
        if let Some(GradeRecord { grade, .. }) = grade {
            let answer = grade.answer.as_deref().unwrap_or("none");
            println!("── answer: {answer} ({}); gold: {}\n", &grade.how, &question.gold);
        }
    }
    Ok(shown)
}

fn wanted(args: &EvalShowArgs, sample: &SampleRecord, grade: Option<&GradeRecord>) -> bool {
    let verdict = grade.map(|it| &it.grade.verdict);
    args.id.as_ref().is_none_or(|id| *id == sample.question_id)
        && (!args.wrong || verdict == Some(&Verdict::Wrong))
        && (!args.undecided || matches!(verdict, Some(Verdict::Undecided(_))))
        && (!args.truncated || sample.finish == LENGTH)
}
