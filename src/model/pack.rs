//! A packed micro-batch: parts of groups one after the other, without padding.

use crate::ops::attention::Part;
use crate::ops::head::Pair;
use std::ops::Range;

/// Tokens of several prompts, each followed by some of its completions.
#[derive(Clone, Debug, Default)]
pub struct Pack {
    /// (rows)
    pub tokens: Vec<u32>,
    /// (rows) Rotary position: a completion continues where its prompt ends.
    pub positions: Vec<u32>,
    pub parts: Vec<Part>,
    /// One for each token of each completion, in order: the row that predicts it, and the token.
    pub pairs: Vec<Pair>,
}

impl Pack {
    /// Adds a prompt and some of its completions. Returns each completion's range of `pairs`.
    ///
    /// The first token of every completion is predicted by the prompt's last row, and a completion's last token
    /// predicts nothing, so a completion of n tokens has n pairs and n - 1 rows.
    ///
    /// # Panics
    /// If the prompt is empty: then no row predicts the first token.
    pub fn push(&mut self, prompt: &[u32], completions: &[&[u32]]) -> Vec<Range<usize>> {
        assert!(!prompt.is_empty(), "a prompt has at least one token");
        let prompt_rows = self.extend(prompt, 0);
        let mut part = Part { prompt: prompt_rows.clone(), branches: Vec::with_capacity(completions.len()) };
        let mut ranges = Vec::with_capacity(completions.len());
        for completion in completions {
            let rows = self.extend(&completion[..completion.len().saturating_sub(1)], prompt.len());
            let first = self.pairs.len();
            let predictors = std::iter::once(prompt_rows.end - 1).chain(rows.clone());
            self.pairs.extend(predictors.zip(*completion).map(|(row, &target)| Pair { row, target }));
            ranges.push(first..self.pairs.len());
            part.branches.push(rows);
        }
        self.parts.push(part);
        ranges
    }

    fn extend(&mut self, tokens: &[u32], position: usize) -> Range<usize> {
        let first = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((position..position + tokens.len()).map(|p| p as u32));
        first..self.tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_of_the_prompt_predicts_every_first_token() {
        let mut pack = Pack::default();
        pack.push(&[9], &[]);
        let ranges = pack.push(&[1, 2], &[&[3, 4, 5], &[6], &[]]);
        assert_eq!(pack.tokens, [9, 1, 2, 3, 4]);
        assert_eq!(pack.positions, [0, 0, 1, 2, 3]);
        let pairs: Vec<_> = pack.pairs.iter().map(|pair| (pair.row, pair.target)).collect();
        assert_eq!(pairs, [(2, 3), (3, 4), (4, 5), (2, 6)]);
        assert_eq!(ranges, [0..3, 3..4, 4..4]);
        assert_eq!(pack.parts[1], Part { prompt: 1..3, branches: vec![3..5, 5..5, 5..5] });
    }
}
