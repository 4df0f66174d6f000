//! Lines that fit into a terminal. The terminal itself would break them in the middle of words.

use std::borrow::Cow;
use std::fmt::Write;

/// A label such as `model    ` may be this wide; what follows it is then aligned when its line is broken.
const LABEL: usize = 24;
/// Indentation of the fields of a line without a label that did not fit.
const INDENT: usize = 2;

/// `text` with lines of at most `width` columns. Lines are broken between fields, which have two or more spaces between them,
/// and a field that is too long between words. Text in backticks is one word, because it can be a command to copy. Rows of
/// tables and words that are too long stay as they are.
pub fn wrapped(text: &str, width: usize) -> Cow<'_, str> {
    let long = |line: &str| columns(line) > width && !line.starts_with(['┌', '│', '╞', '├', '└', '╪']);
    if !text.lines().any(long) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        match long(line) {
            true => wrap(&mut out, line, width),
            false => out += line,
        }
        out += end;
    }
    Cow::Owned(out)
}

/// Columns of `text` in a terminal: most characters of East Asian scripts and emoji have two.
pub fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

fn columns_of(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036f | 0x200b..=0x200d | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
        0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

fn wrap(out: &mut String, line: &str, width: usize) {
    let start = line.len() - line.trim_start_matches(' ').len();
    let fields = fields(&line[start..]);
    // The first field is a label if it is short.
    let label = fields.get(1).map(|(gap, _)| start + gap + columns(fields[0].1)).filter(|&label| label <= LABEL);
    let indent = label.unwrap_or(start + if fields.len() > 1 { INDENT } else { 0 });
    // With less room than this, the indentation would cost more lines than it helps.
    let indent = if indent * 2 > width { 0 } else { indent };
    let mut used = start;
    out.push_str(&line[..start]);
    for (number, (gap, field)) in fields.iter().enumerate() {
        let fits = used + gap + columns(field) <= width;
        let at_label = label.is_some() && number == 1;
        if number > 0 && (fits || at_label) {
            _ = write!(out, "{:gap$}", "");
            used += gap;
        } else if number > 0 {
            _ = write!(out, "\n{:indent$}", "");
            used = indent;
        }
        if used + columns(field) <= width {
            out.push_str(field);
            used += columns(field);
            continue;
        }
        for (number, word) in words(field, width - indent).into_iter().enumerate() {
            let long = columns(word);
            if number > 0 && used + 1 + long <= width {
                out.push(' ');
                used += 1;
            } else if number > 0 {
                _ = write!(out, "\n{:indent$}", "");
                used = indent;
            }
            out.push_str(word);
            used += long;
        }
    }
}

/// The parts of a line with two or more spaces between them, each with the number of spaces before it.
fn fields(line: &str) -> Vec<(usize, &str)> {
    let (mut fields, mut rest, mut gap) = (Vec::new(), line, 0);
    while let Some(end) = rest.find("  ") {
        fields.push((gap, &rest[..end]));
        let after = rest[end..].trim_start_matches(' ');
        gap = rest.len() - end - after.len();
        rest = after;
    }
    if !rest.is_empty() {
        fields.push((gap, rest));
    }
    fields
}

/// The words of a field. Text in backticks is one of them if it is not wider than `room`.
fn words(field: &str, room: usize) -> Vec<&str> {
    let (mut words, mut start) = (Vec::new(), 0);
    let spaces = field.match_indices(' ').map(|(at, _)| at).chain(std::iter::once(field.len()));
    let ends: Vec<usize> = spaces.collect();
    for (number, &end) in ends.iter().enumerate() {
        let quoted = field[start..end].matches('`').count() % 2 == 1;
        let close = ends[number..].iter().find(|&&end| field[start..end].matches('`').count().is_multiple_of(2));
        if quoted && close.is_some_and(|&close| columns(&field[start..close]) <= room) {
            continue;
        }
        words.push(&field[start..end]);
        start = end + 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_aligned_after_their_label() {
        let model = "model    tiny (0.9 M weights, f32 on the CPU, 2 threads), LoRA r 16 on all-linear";
        let broken = "model    tiny (0.9 M weights, f32 on the CPU, 2 threads), LoRA r 16 on\n         all-linear";
        assert_eq!(wrapped(model, 80), broken);
        assert!(matches!(wrapped(model, 81), Cow::Borrowed(_)));
        assert_eq!(wrapped("error: one two three\nhint: four\n", 12), "error: one\ntwo three\nhint: four\n");
        assert_eq!(wrapped("  key  some words here", 14), "  key  some\n       words\n       here");
    }

    #[test]
    fn fields_stay_whole_if_they_fit() {
        let line = "held-out before training: accuracy 38.1 % [34.0, 42.4]  format 27.9 % [24.2, 32.0]  greedy 97 %";
        let broken =
            "held-out before training: accuracy 38.1 % [34.0, 42.4]\n  format 27.9 % [24.2, 32.0]  greedy 97 %";
        assert_eq!(wrapped(line, 80), broken);
        let paths =
            "metrics      runs/tiny-null-example-1/metrics.jsonl  (tensorboard --logdir runs/tiny-null-example-1)";
        let broken = "metrics      runs/tiny-null-example-1/metrics.jsonl\n             (tensorboard --logdir runs/tiny-null-example-1)";
        assert_eq!(wrapped(paths, 80), broken);
    }

    #[test]
    fn commands_tables_and_long_words_stay_whole() {
        assert_eq!(wrapped("hint: see `rft runs x` or", 16), "hint: see\n`rft runs x` or");
        // A command that no line has room for is broken, like an unmatched backtick.
        assert_eq!(wrapped("a `b c d e f` g", 8), "a `b c d\ne f` g");
        assert_eq!(wrapped("a ` b c d", 5), "a ` b\nc d");
        assert_eq!(wrapped("│ a │ table that is wide │", 10), "│ a │ table that is wide │");
        assert_eq!(wrapped("run  aaaaaaaaaaaaaaaaaaaa", 10), "run  aaaaaaaaaaaaaaaaaaaa");
        assert_eq!(wrapped("漢字 漢字 漢字", 10), "漢字 漢字\n漢字");
    }

    #[test]
    fn nothing_but_spaces_is_lost() {
        let text = "a  b   c `d e` ff\n\n   g   hhhhhhhhhhhh i\n\u{301} j";
        let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        for width in 1..20 {
            assert_eq!(letters(&wrapped(text, width)), letters(text), "{width}");
        }
    }
}
