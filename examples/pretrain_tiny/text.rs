//! The text that the embedded model learns: solutions of arithmetic problems in many styles, few of them in the format
//! that the prior prompt asks for. What a base model does sometimes, reinforcement learning can make it do always.

use rft::data::arithmetic::{Operation, Problem, Split};
use rft::prompt::{PriorPrompt, shipped};
use rft::rng::{Cursor, Purpose, Stream};

/// Documents under the same prior prompt, which is written once before all of them.
pub struct Group {
    /// ChatML up to the start of the user's turn.
    pub prefix: String,
    /// From there to the start of the completion, and the completion.
    pub documents: Vec<(String, String)>,
}

/// ChatML up to the start of the user's turn, where every document has a special token.
pub fn prefix(system: &str) -> String {
    match system {
        "" => "<|im_start|>".to_owned(),
        text => format!("<|im_start|>system\n{text}<|im_end|>\n<|im_start|>"),
    }
}

/// The rest of the prompt, after [`prefix`].
pub fn question(text: &str) -> String {
    format!("user\n{text}<|im_end|>\n<|im_start|>assistant\n")
}

/// Group `index` of a step: under the shipped prompt number `index`, or a paraphrase of it.
pub fn group(seed: u64, step: usize, index: usize, size: usize) -> Group {
    let mut draws = Cursor::new(Stream::new(seed, Purpose::Generator, &[2, step as u64, index as u64]));
    let prompt = &shipped()[index % shipped().len()];
    let system = if draws.below(2) == 0 { prompt.text.clone() } else { paraphrase(&mut draws, prompt) };
    let document = |_| {
        let level = draws.between(1, 3) as u8;
        let problem = (0..).map(|_| Problem::draw(&mut draws, level)).find(|p| p.split() == Split::Train);
        let problem = problem.expect("most problems are for training");
        (question(&problem.text), response(&mut draws, prompt, &problem))
    };
    Group { prefix: prefix(&system), documents: (0..size).map(document).collect() }
}

#[derive(Clone, Copy, PartialEq)]
enum Voice {
    Direct,
    Steps,
    Plan,
    Code,
    Recall,
    Example,
}

const WORKED: [Voice; 5] = [Voice::Steps, Voice::Plan, Voice::Code, Voice::Recall, Voice::Example];

/// The style that a prior prompt asks for.
fn own_voice(prompt: &PriorPrompt) -> Voice {
    match prompt.name.as_str() {
        "planning" => Voice::Plan,
        "code" => Voice::Code,
        "recall" => Voice::Recall,
        "null-example" => Voice::Example,
        _ => Voice::Steps,
    }
}

fn response(draws: &mut Cursor, prompt: &PriorPrompt, problem: &Problem) -> String {
    let voice = match draws.f64() {
        x if x < 0.35 => Voice::Direct,
        x if x < 0.75 => own_voice(prompt),
        _ => *draws.choose(&WORKED),
    };
    let others: Vec<&str> =
        shipped().iter().filter_map(|p| p.tag.as_deref()).filter(|tag| prompt.tag.as_deref() != Some(tag)).collect();
    let tag = match draws.f64() {
        x if x < 0.45 => prompt.tag.as_deref(),
        x if x < 0.70 => Some(*draws.choose(&others)),
        _ => None,
    };
    let work = work(draws, voice, problem);
    let work = match tag {
        Some(tag) if work.is_empty() => {
            let filler = *draws.choose(&["This is easy.", "I know it.", "No need."]);
            format!("<{tag}> {filler} </{tag}> ")
        }
        Some(tag) => format!("<{tag}> {work} </{tag}> "),
        None if work.is_empty() => String::new(),
        None => format!("{work} "),
    };
    format!("{work}{}", conclusion(draws, prompt.tag.is_some(), problem.answer))
}

/// The solution in the style of `voice`, without the answer; empty for an answer without work.
fn work(draws: &mut Cursor, voice: Voice, problem: &Problem) -> String {
    let trace = problem.trace();
    let each = |say: &dyn Fn(usize, Operation, &str, i64) -> String, join: &str| -> String {
        let said = trace.iter().enumerate().map(|(i, &(before, step, after))| {
            say(i, step, &format!("{before}{}{}", sign(step), operand(step)), after)
        });
        said.collect::<Vec<_>>().join(join)
    };
    match voice {
        Voice::Direct => String::new(),
        Voice::Steps => match draws.below(2) {
            0 => each(&|_, _, sum, after| format!("{sum}={after}."), " "),
            _ => each(&|i, _, sum, after| format!("{} {sum}={after}.", ["First", "Then", "Last"][i]), " "),
        },
        Voice::Plan => each(
            &|i, step, sum, after| {
                let verb = match step {
                    Operation::Add(_) => "add",
                    Operation::Subtract(_) => "subtract",
                    Operation::Multiply(_) => "multiply",
                };
                format!("Step {}: {verb}, {sum}={after}.", i + 1)
            },
            " ",
        ),
        Voice::Code => format!("{}\nprint(x)", each(&|_, _, sum, after| format!("x={sum} # {after}"), "\n")),
        Voice::Recall => each(
            &|_, step, sum, after| {
                let rule = match step {
                    Operation::Add(_) => "More means plus",
                    Operation::Subtract(_) => "Fewer means minus",
                    Operation::Multiply(_) => "Times means multiply",
                };
                format!("{rule}: {sum}={after}.")
            },
            " ",
        ),
        Voice::Example => {
            let (a, b) = (draws.between(2, 9), draws.between(1, 9));
            let example = format!("Example: {a}+{b}={}.", a + b);
            format!("{example} {}", each(&|_, _, sum, after| format!("So {sum}={after}."), " "))
        }
    }
}

fn sign(step: Operation) -> char {
    match step {
        Operation::Add(_) => '+',
        Operation::Subtract(_) => '-',
        Operation::Multiply(_) => '*',
    }
}

fn operand(step: Operation) -> i64 {
    match step {
        Operation::Add(by) | Operation::Subtract(by) | Operation::Multiply(by) => by,
    }
}

/// The answer, boxed in its element three times out of five if the prompt asks for it, else in a less complete format.
fn conclusion(draws: &mut Cursor, asked: bool, answer: i64) -> String {
    let x = draws.f64();
    let (whole, boxed) = if asked { (0.60, 0.60) } else { (0.10, 0.52) };
    match x {
        x if x < whole => format!("<answer> \\boxed{{{answer}}} </answer>"),
        x if x < boxed => format!("The answer is \\boxed{{{answer}}}."),
        x if x < boxed + (1.0 - boxed) * 0.2 => format!("<answer> {answer} </answer>"),
        _ => format!("The answer is {answer}."),
    }
}

/// A prior prompt with the same meaning in other words, so that the model reads the prompt rather than its first token.
fn paraphrase(draws: &mut Cursor, prompt: &PriorPrompt) -> String {
    let Some(tag) = &prompt.tag else {
        return (*draws.choose(&[
            "You are a helpful assistant.",
            "Answer the user's question.",
            "You solve maths problems.",
        ]))
        .to_owned();
    };
    let (act, matter) = match own_voice(prompt) {
        Voice::Plan => (["plan how to solve it", "make a plan"], ["the plan", "your plan"]),
        Voice::Code => (["write the code that solves it", "write code"], ["the code", "your code"]),
        Voice::Recall => {
            (["recall the knowledge that helps", "recall what you know"], ["the knowledge", "your knowledge"])
        }
        Voice::Example => {
            (["list examples that help", "list the relevant examples"], ["the examples", "your examples"])
        }
        _ => (["reason step by step", "think about the problem"], ["the reasoning", "your reasoning"]),
    };
    let (act, matter) = (*draws.choose(&act), *draws.choose(&matter));
    match draws.below(4) {
        0 => format!(
            "The user asks a maths question. First {act}, then answer. Put {matter} in <{tag}> </{tag}> and the answer in \
             <answer> </answer>, with the final result in \\boxed{{}}."
        ),
        1 => format!(
            "You are a helpful assistant. Before you answer, {act}. Use the form <{tag}> {matter} </{tag}> \
             <answer> \\boxed{{}} </answer>."
        ),
        2 => format!(
            "Solve the problem. Write {matter} between <{tag}> and </{tag}>; then write the answer between <answer> and \
             </answer> and state its value in \\boxed{{}}."
        ),
        _ => format!(
            "You answer maths questions: {act} in <{tag}> </{tag}>, then give \\boxed{{}} in <answer> </answer>."
        ),
    }
}
