//! A packed micro-batch on the device: tokens, positions, the tiles of attention, and the pairs of the head.

use super::Gpu;
use super::memory::{Arena, Buffer};
use crate::model::pack::Pack;
use crate::ops::attention::Heads;
use crate::ops::attention_tiles::Tiles;
use anyhow::Result;

/// The tokens of a pass.
#[derive(Clone, Copy)]
pub struct Tokens {
    /// (rows)
    pub ids: Buffer<i32>,
    pub positions: Buffer<i32>,
}

/// What kernels need to know of a [`Pack`].
pub struct DevicePack {
    pub rows: usize,
    /// (rows)
    pub tokens: Buffer<i32>,
    pub positions: Buffer<i32>,
    pub tiles: Tiles,
    /// The tiles as rows of numbers.
    pub query_tiles: Buffer<i32>,
    pub key_tiles: Buffer<i32>,
    pub sum_tiles: Buffer<i32>,
    pub pairs: Pairs,
}

/// The (hidden row, target) pairs of a pack.
pub struct Pairs {
    /// (pairs) The row that predicts, and what it should.
    pub rows: Buffer<i32>,
    pub targets: Buffer<i32>,
    /// The pairs of each row: `by_row[starts[row]..starts[row + 1]]`, in their order.
    pub starts: Buffer<i32>,
    pub by_row: Buffer<i32>,
}

impl DevicePack {
    pub fn tokens(&self) -> Tokens {
        Tokens { ids: self.tokens, positions: self.positions }
    }

    pub fn new(gpu: &Gpu, arena: &mut Arena, pack: &Pack, heads: Heads) -> Result<Self> {
        Self::with_tiles(gpu, arena, pack, Tiles::new(&pack.parts, heads.query / heads.kv))
    }

    /// The same with attention cut into `tiles`.
    pub fn with_tiles(gpu: &Gpu, arena: &mut Arena, pack: &Pack, tiles: Tiles) -> Result<Self> {
        let mut put = |values: Vec<i32>| -> Result<Buffer<i32>> {
            let buffer = arena.take(values.len())?;
            buffer.upload(gpu, &values)?;
            Ok(buffer)
        };
        let rows = pack.tokens.len();
        let signed = |values: &[u32]| values.iter().map(|&value| value as i32).collect::<Vec<_>>();
        let (starts, by_row) = by_row(rows, pack);
        Ok(Self {
            rows,
            tokens: put(signed(&pack.tokens))?,
            positions: put(signed(&pack.positions))?,
            query_tiles: put(tiles.queries.iter().flat_map(words).collect())?,
            key_tiles: put(tiles.keys.iter().flat_map(words).collect())?,
            sum_tiles: put(tiles.sums.iter().flat_map(words).collect())?,
            tiles,
            pairs: Pairs {
                rows: put(pack.pairs.iter().map(|pair| pair.row as i32).collect())?,
                targets: put(pack.pairs.iter().map(|pair| pair.target as i32).collect())?,
                starts: put(starts)?,
                by_row: put(by_row)?,
            },
        })
    }
}

/// A tile as kernels read it: `repr(C)` structures of nothing but `i32`.
fn words<T: Copy>(tile: &T) -> Vec<i32> {
    let len = size_of::<T>() / size_of::<i32>();
    // SAFETY: the tiles are plain structures of `len` numbers of this type.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(tile).cast::<i32>(), len) }.to_vec()
}

/// Where the pairs of each row begin, and all pairs sorted by row.
fn by_row(rows: usize, pack: &Pack) -> (Vec<i32>, Vec<i32>) {
    let mut starts = vec![0; rows + 1];
    for pair in &pack.pairs {
        starts[pair.row + 1] += 1;
    }
    for row in 0..rows {
        starts[row + 1] += starts[row];
    }
    let mut order: Vec<i32> = (0..pack.pairs.len() as i32).collect();
    // A stable sort: pairs that share a row are added in their order.
    order.sort_by_key(|&pair| pack.pairs[pair as usize].row);
    (starts, order)
}
