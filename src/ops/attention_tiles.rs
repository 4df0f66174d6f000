//! The work of branch attention on a device, divided into tiles: the input of each block of
//! `kernels/branch_attention*.cu`.
//!
//! How a sequence is divided depends only on its own part, so gradients have the same bits in every pack.

use super::attention::{Heads, Part};
use std::ops::Range;

/// Rows of a query tile. A row is one head of one token.
pub const QUERY_ROWS: usize = 128;
/// Keys of a key tile.
pub const KEYS: usize = 64;
/// Keys of a row that one block of `kernels/decode_attention.cu` processes.
pub const DECODE_SPAN: usize = 256;
/// Maximum number of query rows that one block adds to the gradients of its keys. All branches of a prompt see its
/// keys; in one block they would take longer than the rest of the pack together.
const QUERY_ROWS_PER_TASK: usize = 4096;

/// Consecutive tokens of one sequence, at most [`QUERY_ROWS`] rows including all heads of a group, and the keys they
/// see: those of their prompt (none if they are a prompt's tokens), and of their own sequence up to themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct QueryTile {
    pub start: i32,
    pub count: i32,
    pub prompt_start: i32,
    pub prompt_count: i32,
    pub own_start: i32,
}

/// Consecutive keys of one sequence and some of the tokens that see them. These tokens are numbered: first
/// `start`..`own_end`, which see the keys up to themselves, then `others_start`.. to the end of the part, which see all
/// keys. The tile covers numbers `from`..`to`. If `slot` is negative, it writes to the result, else to this partial
/// sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct KeyTile {
    pub start: i32,
    pub count: i32,
    pub own_end: i32,
    pub others_start: i32,
    pub from: i32,
    pub to: i32,
    pub slot: i32,
}

/// Keys whose gradients are the sum of `slots` partial sums, starting at `slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SumTile {
    pub start: i32,
    pub count: i32,
    pub slot: i32,
    pub slots: i32,
}

/// All tiles of a pack, those with the most work first: the blocks of a KV head start in this order, and the last ones
/// should be short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiles {
    pub queries: Vec<QueryTile>,
    pub keys: Vec<KeyTile>,
    pub sums: Vec<SumTile>,
    /// Number of partial-sum slots in use.
    pub slots: usize,
}

impl Tiles {
    /// Tiles for the `parts` of a pack, if `group` query heads share a KV head.
    ///
    /// # Panics
    /// If the branches of a part are not consecutive, or `group` is more than [`QUERY_ROWS`].
    pub fn new(parts: &[Part], group: usize) -> Self {
        Self::with_tasks(parts, group, QUERY_ROWS_PER_TASK)
    }

    /// [`Tiles::new`] with the given number of query rows per task.
    ///
    /// # Panics
    /// As [`Tiles::new`].
    pub fn with_tasks(parts: &[Part], group: usize, query_rows: usize) -> Self {
        assert!((1..=QUERY_ROWS).contains(&group), "{group} query heads share a KV head");
        let mut tiles = Self::default();
        for part in parts {
            let branches = branches_of(part);
            for (sequence, is_prompt) in
                std::iter::once((&part.prompt, true)).chain(part.branches.iter().map(|branch| (branch, false)))
            {
                let prompt = if is_prompt { 0..0 } else { part.prompt.clone() };
                let others = if is_prompt { branches.clone() } else { 0..0 };
                tiles.add_queries(sequence, &prompt, QUERY_ROWS / group);
                tiles.add_keys(sequence, &others, query_rows / group);
            }
        }
        tiles.queries.sort_by_key(|tile| -(tile.prompt_count + tile.start + tile.count - tile.own_start));
        tiles.keys.sort_by_key(|tile| tile.from - tile.to);
        tiles
    }

    /// Number of values (f32) in the partial sums: (slots, KV heads, 2, [`KEYS`], head width).
    pub fn partial_len(&self, heads: Heads) -> usize {
        self.slots * heads.kv * 2 * KEYS * heads.dim
    }

    /// Pairs of a token and a key that it sees.
    pub fn pairs(&self) -> usize {
        let of_tile = |tile: &QueryTile| {
            let (count, before) = (tile.count as usize, (tile.prompt_count + tile.start - tile.own_start) as usize);
            count * before + count * (count + 1) / 2
        };
        self.queries.iter().map(of_tile).sum()
    }

    fn add_queries(&mut self, sequence: &Range<usize>, prompt: &Range<usize>, tokens: usize) {
        self.queries.extend(sequence.clone().step_by(tokens).map(|start| QueryTile {
            start: start as i32,
            count: tokens.min(sequence.end - start) as i32,
            prompt_start: prompt.start as i32,
            prompt_count: prompt.len() as i32,
            own_start: sequence.start as i32,
        }));
    }

    fn add_keys(&mut self, sequence: &Range<usize>, others: &Range<usize>, tokens: usize) {
        for start in sequence.clone().step_by(KEYS) {
            let count = KEYS.min(sequence.end - start) as i32;
            let seen_by = sequence.end - start + others.len();
            let tasks = seen_by.div_ceil(tokens);
            if tasks > 1 {
                self.sums.push(SumTile { start: start as i32, count, slot: self.slots as i32, slots: tasks as i32 });
            }
            for task in 0..tasks {
                let slot = if tasks > 1 { self.slots as i32 } else { -1 };
                self.slots += usize::from(tasks > 1);
                self.keys.push(KeyTile {
                    start: start as i32,
                    count,
                    own_end: sequence.end as i32,
                    others_start: others.start as i32,
                    from: (seen_by * task / tasks) as i32,
                    to: (seen_by * (task + 1) / tasks) as i32,
                    slot,
                });
            }
        }
    }
}

/// The rows of a part's branches, which are consecutive.
fn branches_of(part: &Part) -> Range<usize> {
    let rows = part.branches.first().map_or(0..0, |first| first.start..part.branches[part.branches.len() - 1].end);
    let follow = part.branches.windows(2).all(|pair| pair[0].end == pair[1].start);
    assert!(follow, "the branches of a part are consecutive");
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of a query and a key that it sees is in exactly one query tile and one key tile.
    #[test]
    fn tiles_cover_each_visible_pair_once() {
        let parts = [
            Part { prompt: 0..70, branches: vec![70..70, 70..71, 71..1000, 1000..1100] },
            Part { prompt: 1100..1101, branches: vec![] },
            Part { prompt: 1101..1300, branches: vec![1300..1320, 1320..1340] },
        ];
        let rows = 1340;
        let mut seen = vec![0u8; rows * rows];
        for part in &parts {
            for (i, sequence) in std::iter::once(&part.prompt).chain(&part.branches).enumerate() {
                let context = if i == 0 { 0..0 } else { part.prompt.clone() };
                for row in sequence.clone() {
                    context.clone().chain(sequence.start..=row).for_each(|key| seen[row * rows + key] = 1);
                }
            }
        }
        for group in [1, 7, 8] {
            let tiles = Tiles::new(&parts, group);
            let mut of_queries = vec![0u8; rows * rows];
            for tile in &tiles.queries {
                assert!(tile.count as usize * group <= QUERY_ROWS);
                for row in tile.start..tile.start + tile.count {
                    let prompt = tile.prompt_start..tile.prompt_start + tile.prompt_count;
                    prompt
                        .chain(tile.own_start..=row)
                        .for_each(|key| of_queries[row as usize * rows + key as usize] += 1);
                }
            }
            assert!(of_queries == seen);
            assert_eq!(tiles.pairs(), seen.iter().filter(|it| **it == 1).count());
            let mut of_keys = vec![0u8; rows * rows];
            for tile in &tiles.keys {
                assert!(tile.count as usize <= KEYS && tile.from < tile.to);
                let own = tile.own_end - tile.start;
                for number in tile.from..tile.to {
                    let row = if number < own { tile.start + number } else { tile.others_start + number - own };
                    let visible = if number < own { tile.count.min(number + 1) } else { tile.count };
                    (tile.start..tile.start + visible).for_each(|key| of_keys[row as usize * rows + key as usize] += 1);
                }
            }
            assert!(of_keys == seen);
            let slots: usize = tiles.sums.iter().map(|sum| sum.slots as usize).sum();
            assert!(slots == tiles.slots && slots == tiles.keys.iter().filter(|tile| tile.slot >= 0).count());
        }
        assert!(!Tiles::new(&parts, 7).sums.is_empty(), "a prompt with many branches is split");
    }

    #[test]
    #[should_panic(expected = "are consecutive")]
    fn branches_have_to_be_consecutive() {
        Tiles::new(&[Part { prompt: 0..2, branches: vec![2..3, 4..5] }], 1);
    }
}
