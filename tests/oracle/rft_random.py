"""The random numbers of `rft` in NumPy (`src/rng.rs`, `src/rollout/sampler.rs`), for use in other programs."""

import numpy as np

SAMPLING, ADAPTER_INIT = 1, 2
MASK = (1 << 64) - 1


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def name_hash(name: str) -> int:
    """FNV-1a."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def key(seed: int, purpose: int, path: list[int]) -> tuple[int, int]:
    value = mix(seed ^ 0x9E3779B97F4A7C15)
    value = mix(value ^ purpose)
    for element in path:
        value = mix(((value + 0x9E3779B97F4A7C15) & MASK) ^ mix(element))
    return value & 0xFFFFFFFF, value >> 32


def philox(counter: list[np.ndarray], key: tuple[int, int]) -> list[np.ndarray]:
    """Philox4x32-10: four words for each counter."""
    c, (k0, k1) = [np.asarray(word, np.uint64) for word in counter], key
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> shift) ^ c[1] ^ np.uint64(k0), p1 & low, (p0 >> shift) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def uniform(key: tuple[int, int], count: int) -> np.ndarray:
    """Positions 0 to `count` of a stream, in [0, 1) with 53 bits."""
    zero = np.zeros(count, np.uint64)
    a, b, _, _ = philox([zero, zero, np.arange(count, dtype=np.uint64), zero], key)
    return ((a | b << np.uint64(32)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def exponential(key: tuple[int, int], position: int, count: int) -> np.ndarray:
    """The noise used to sample the token at `position`: the token with the largest probability / noise."""
    blocks = np.arange((count + 63) // 64 * 16, dtype=np.uint64)
    zero = np.zeros_like(blocks)
    words = philox([blocks, zero, zero + np.uint64(position), zero], key)
    # Sixteen blocks give 64 values: the first words of all sixteen, then the second words, and so on.
    bits = np.stack(words).reshape(4, -1, 16).transpose(1, 0, 2).reshape(-1)[:count]
    return -np.log1p(-(bits.astype(np.float64) + 0.5) * 2.0**-32)
