//! Names of arbitrary constants: `x^2 + C` and `x^2 + c` are the same answer, and so are the functions
//! `f(x) = x + c` and `f(x) = x + k`.

use num_traits::One;

use super::judge::Judge;
use super::limits::Reason;
use super::quantity::{Quantity, same};
use super::value::{Base, Sum, Value};

/// Letters of variables, in expressions whose other symbols are constants.
const VARIABLES: [&str; 14] = ["x", "y", "z", "t", "u", "v", "w", "s", "r", "\\theta", "\\phi", "\\tau", "n", "p"];

/// The letter and the index of a name such as `C_1`.
fn parts(name: &str) -> (&str, Option<&str>) {
    name.split_once('_').map_or((name, None), |(letter, index)| (letter, Some(index)))
}

/// Whether a name is one that is usual for an arbitrary constant.
fn is_arbitrary(name: &str) -> bool {
    let (letter, index) = parts(name);
    let digits = index.is_none_or(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit()));
    digits && matches!(letter, "c" | "C" | "k" | "K")
}

/// `C_1` or `c_2`, which is nothing but an arbitrary constant.
fn is_numbered(name: &str) -> bool {
    is_arbitrary(name) && parts(name).1.is_some()
}

/// Whether both define a function, with different names for its argument.
pub fn differ_in_argument(gold: &Quantity, answer: &Quantity) -> bool {
    matches!((&gold.argument, &answer.argument), (Some(one), Some(other)) if one != other)
}

/// Whether the two are equal after the answer's constants are renamed to those of the gold answer.
pub fn same_up_to_names(gold: &Quantity, answer: &Quantity, judge: &mut Judge) -> Result<bool, Reason> {
    if gold.value.is_constant() || answer.value.is_constant() {
        return Ok(false);
    }
    if let (Some(one), Some(other)) = (&gold.argument, &answer.argument)
        && one != other
    {
        // `f(t) = 2t` is the function `f(x) = 2x`.
        let free = !answer.value.symbols().contains(one);
        let renamed = if free { answer.renamed(&[(other, one)], judge.meter)? } else { None };
        let Some(mut answer) = renamed else { return Ok(false) };
        answer.argument.clone_from(&gold.argument);
        return Ok(same(gold, &answer, judge)? || same_up_to_names(gold, &answer, judge)?);
    }
    let (ours, theirs) = (gold.value.symbols(), answer.value.symbols());
    let only = |one: &[String], other: &[String]| -> Vec<String> {
        one.iter().filter(|it| !other.contains(it)).cloned().collect()
    };
    let (left, right) = (only(&ours, &theirs), only(&theirs, &ours));
    let variables = ours.iter().filter(|it| theirs.contains(it) && !is_arbitrary(it));
    let mut variables = variables.map(String::as_str).peekable();
    if variables.peek().is_none() || !variables.all(|it| VARIABLES.contains(&it)) {
        return Ok(false);
    }
    match (&left[..], &right[..]) {
        ([one], [other]) if is_arbitrary(one) && is_arbitrary(other) => {
            // A constant that is a term by itself, or that belongs to a function or to a numbered family.
            let free = gold.argument.is_some() || is_numbered(one);
            let terms = is_term(&gold.value, one) && is_term(&answer.value, other);
            if !free && !terms {
                return Ok(false);
            }
            renamed(gold, answer, &[(other, one)], judge)
        }
        ([one, two], [first, second]) if is_numbered(one) && is_numbered(two) => {
            let letters = |it: &str| is_arbitrary(it) || matches!(it, "A" | "B" | "a" | "b" | "D");
            if !letters(first) || !letters(second) {
                return Ok(false);
            }
            Ok(renamed(gold, answer, &[(first, one), (second, two)], judge)?
                || renamed(gold, answer, &[(first, two), (second, one)], judge)?)
        }
        // The same two constants in the other order.
        ([], []) => {
            let numbered: Vec<&String> = ours.iter().filter(|it| is_numbered(it)).collect();
            match numbered[..] {
                [one, two] => renamed(gold, answer, &[(one, "\\other"), (two, one), ("\\other", two)], judge),
                _ => Ok(false),
            }
        }
        _ => Ok(false),
    }
}

fn renamed(gold: &Quantity, answer: &Quantity, names: &[(&str, &str)], judge: &mut Judge) -> Result<bool, Reason> {
    match answer.renamed(names, judge.meter)? {
        Some(answer) => same(gold, &answer, judge),
        None => Ok(false),
    }
}

/// Whether the name is a term of the sum, and occurs nowhere else.
fn is_term(value: &Value, name: &str) -> bool {
    let base = Base::Symbol(name.to_string());
    let mut alone = false;
    for (product, coefficient) in &value.over.0 {
        if product.len() == 1 && product.get(&base).is_some_and(One::is_one) {
            alone = coefficient.is_one();
        } else if Value::from(Sum([(product.clone(), coefficient.clone())].into()))
            .symbols()
            .iter()
            .any(|it| it == name)
        {
            return false;
        }
    }
    alone && value.under.is_one()
}
