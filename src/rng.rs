//! Counter-based randomness: a value is a function of its purpose, never of the order of calls or threads.
//!
//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns a key and a counter into
//! four random words with no state between calls. The key of a [`Stream`] is hashed from the run's seed, the
//! [`Purpose`] and the identity of the object (step, question, completion ...); the counter is the position in the stream.

/// The use of a stream of random numbers. Two purposes never share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The next token of a completion: path (step, question, completion), counter (position, vocabulary block).
    Sampling = 1,
    /// The initial values of an adapter: path (tensor), counter (element).
    AdapterInit = 2,
    /// The order of questions in an epoch: path (epoch).
    Shuffle = 3,
    /// Generated questions and texts: path (split, index).
    Generator = 4,
    /// The initial weights of a model that is trained from scratch: path (tensor).
    ModelInit = 5,
    /// Resampling in statistics: path (replicate).
    Bootstrap = 6,
    /// Values for tests and benchmarks.
    Test = 7,
    /// Points at which two expressions are compared: path (round), counter (symbol).
    Probe = 8,
    /// Cases of the reward bench: path (0: the sample of questions; 1, question: the random choices for it).
    RewardBench = 9,
    /// The order in which options are shown: path (question).
    Choices = 10,
    /// Requests to a server: path (question, sample), (step, question, completion) or (hash of a judge's request); position 0 is the seed of the request,
    /// later positions the waits between tries.
    Endpoint = 11,
    /// The order of a program's inputs: no path, the seed is the task's.
    InputOrder = 12,
    /// The value of the control reward `random`: path (step, question, completion).
    RandomReward = 13,
    /// Which prior prompt of a mixture a group gets: path (step, question).
    PriorPrompt = 14,
}

/// A random function of a 64-bit position, determined by seed, purpose and path.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: [u32; 2],
}

impl Stream {
    pub fn new(seed: u64, purpose: Purpose, path: &[u64]) -> Self {
        let mut hash = mix(seed ^ 0x9e37_79b9_7f4a_7c15);
        hash = mix(hash ^ purpose as u64);
        for &element in path {
            hash = mix(hash.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ mix(element));
        }
        Self { key: [hash as u32, (hash >> 32) as u32] }
    }

    /// The words that identify this stream, for the same stream on a device.
    pub fn key(&self) -> [u32; 2] {
        self.key
    }

    /// Four random words: the Philox block number (`major`, `minor`).
    #[inline(always)]
    pub fn block(&self, major: u64, minor: u64) -> [u32; 4] {
        philox([minor as u32, (minor >> 32) as u32, major as u32, (major >> 32) as u32], self.key)
    }

    /// Sixteen consecutive blocks at once, for loops over many values: word `w` of block `minor + l` is at `[w][l]`.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "lanes of several arrays")]
    pub fn blocks16(&self, major: u64, minor: u64) -> [[u32; 16]; 4] {
        let minors: [u64; 16] = std::array::from_fn(|l| minor + l as u64);
        let (low, high) = ([major as u32; 16], [(major >> 32) as u32; 16]);
        let mut c = [minors.map(|m| m as u32), minors.map(|m| (m >> 32) as u32), low, high];
        let mut key = self.key;
        for _ in 0..10 {
            let before = c;
            for l in 0..16 {
                let p0 = u64::from(before[0][l]) * 0xd251_1f53;
                let p1 = u64::from(before[2][l]) * 0xcd9e_8d57;
                c[0][l] = (p1 >> 32) as u32 ^ before[1][l] ^ key[0];
                c[1][l] = p1 as u32;
                c[2][l] = (p0 >> 32) as u32 ^ before[3][l] ^ key[1];
                c[3][l] = p0 as u32;
            }
            key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
        }
        c
    }

    /// 64 random bits at position `index`.
    pub fn u64(&self, index: u64) -> u64 {
        let [a, b, ..] = self.block(index, 0);
        u64::from(a) | u64::from(b) << 32
    }

    /// Uniform in [0, 1) with 53 bits.
    pub fn f64(&self, index: u64) -> f64 {
        (self.u64(index) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..`bound`; the bias is below `bound` / 2^64.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&self, index: u64, bound: u64) -> u64 {
        assert!(bound > 0, "a random choice needs at least one outcome");
        ((u128::from(self.u64(index)) * u128::from(bound)) >> 64) as u64
    }

    /// Standard normal by Box and Muller.
    pub fn normal(&self, index: u64) -> f64 {
        let [a, b, c, d] = self.block(index, 1);
        let scale = 1.0 / (1u64 << 53) as f64;
        let u = (((u64::from(a) | u64::from(b) << 32) >> 11) as f64 + 1.0) * scale;
        let v = ((u64::from(c) | u64::from(d) << 32) >> 11) as f64 * scale;
        (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
    }

    /// A permutation of 0..`len` (Fisher and Yates).
    pub fn permutation(&self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for i in (1..len).rev() {
            order.swap(i, self.below(i as u64, i as u64 + 1) as usize);
        }
        order
    }
}

/// A stream read from the start, for code that needs an unknown number of values in a fixed order.
#[derive(Clone, Debug)]
pub struct Cursor {
    stream: Stream,
    next: u64,
}

impl Cursor {
    pub fn new(stream: Stream) -> Self {
        Self { stream, next: 0 }
    }

    fn advance(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Uniform in 0..`bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        let index = self.advance();
        self.stream.below(index, bound)
    }

    /// Uniform in `low`..=`high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// Uniform in [0, 1).
    pub fn f64(&mut self) -> f64 {
        let index = self.advance();
        self.stream.f64(index)
    }

    /// One of `items`, with equal probability.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

/// The finalizer of SplitMix64: every input bit affects every output bit.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Ten rounds of Philox4x32.
#[inline(always)]
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = u64::from(counter[0]) * 0xd251_1f53;
        let p1 = u64::from(counter[2]) * 0xcd9e_8d57;
        counter =
            [(p1 >> 32) as u32 ^ counter[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ counter[3] ^ key[1], p0 as u32];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

/// A stable 64-bit hash of a name (FNV-1a), for a path element of a [`Stream`].
pub fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of the authors' Random123 distribution (kat_vectors, philox4x32 10).
    #[test]
    fn philox_matches_known_values() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn sixteen_blocks_equal_the_single_ones() {
        let stream = Stream::new(5, Purpose::Test, &[1]);
        let all = stream.blocks16(7, 1 << 33);
        for l in 0..16usize {
            assert_eq!(stream.block(7, (1 << 33) + l as u64), all.map(|words| words[l]));
        }
    }

    #[test]
    fn streams_differ_by_every_element_of_their_path() {
        let value = |seed, purpose, path: &[u64]| Stream::new(seed, purpose, path).u64(0);
        let base = value(1, Purpose::Sampling, &[2, 3, 4]);
        assert_eq!(base, value(1, Purpose::Sampling, &[2, 3, 4]));
        for other in [
            value(2, Purpose::Sampling, &[2, 3, 4]),
            value(1, Purpose::Shuffle, &[2, 3, 4]),
            value(1, Purpose::Sampling, &[3, 2, 4]),
            value(1, Purpose::Sampling, &[2, 3, 5]),
            value(1, Purpose::Sampling, &[2, 3, 4, 0]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_permutation_contains_every_index_once() {
        let mut order = Stream::new(7, Purpose::Shuffle, &[0]).permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn normal_has_unit_variance() {
        let stream = Stream::new(3, Purpose::Test, &[]);
        let values: Vec<f64> = (0..20_000).map(|i| stream.normal(i)).collect();
        let mean = values.iter().sum::<f64>() / 2e4;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2e4;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04, "mean {mean}, variance {variance}");
    }
}
