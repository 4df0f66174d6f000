//! Vector arithmetic: loops that the compiler turns into SIMD, run with the best instruction set that the CPU has.
//!
//! [`vectorized`] compiles its closure once for each instruction set (through `pulp`) and selects one at run time.
//! Everything called inside must be `#[inline(always)]`. Sums use a fixed number of lanes, so that their order does
//! not depend on the instruction set.

/// Number of partial sums of a reduction.
const LANES: usize = 32;

/// Runs `work` compiled for the widest instruction set of this CPU.
///
/// The closure itself also needs `#[inline(always)]`: as a separate function it would be compiled for the baseline
/// instruction set, in which every `mul_add` is a call into the math library.
#[inline(always)]
pub fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    struct Work<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Work<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            self.0()
        }
    }
    pulp::Arch::new().dispatch(Work(work))
}

/// Σ aᵢ·bᵢ.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i], lanes[i]);
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] = a.mul_add(*b, lanes[i]);
    }
    fold(lanes, |x, y| x + y)
}

/// Σ f(xᵢ).
#[inline(always)]
pub fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            lanes[i] += f(block[i]);
        }
    }
    for (i, x) in rest.iter().enumerate() {
        lanes[i] += f(*x);
    }
    fold(lanes, |x, y| x + y)
}

/// The largest element; -∞ for an empty slice. NaN elements are ignored.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = if block[i] > lanes[i] { block[i] } else { lanes[i] };
        }
    }
    for (i, &x) in rest.iter().enumerate() {
        lanes[i] = if x > lanes[i] { x } else { lanes[i] };
    }
    fold(lanes, |x, y| if y > x { y } else { x })
}

/// y += a·x.
#[inline(always)]
pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = a.mul_add(*x, *y);
    }
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// eˣ for x ≤ 88, relative error below 3e-7; 0 below -87.3 and at -∞.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; the polynomial in r is that of Cephes' `expf`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds to an integer and leaves that integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let p = p.mul_add(r * r, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    if x < -87.3 { 0.0 } else { p * f32::from_bits(exponent) }
}

/// ln x for normal x > 0, relative error below 3e-7 also near 1 (the polynomial of Cephes' `logf`).
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    // Exponent and mantissa, with the mantissa in [√½, √2).
    let bits = x.to_bits().wrapping_sub(0x3f35_04f3);
    let e = ((bits as i32) >> 23) as f32;
    let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
    let mut p = 7.037_683_6e-2f32;
    p = p.mul_add(m, -1.151_461e-1);
    p = p.mul_add(m, 1.167_699_9e-1);
    p = p.mul_add(m, -1.242_014_1e-1);
    p = p.mul_add(m, 1.424_932_3e-1);
    p = p.mul_add(m, -1.666_805_8e-1);
    p = p.mul_add(m, 2.000_071_5e-1);
    p = p.mul_add(m, -2.499_999_4e-1);
    p = p.mul_add(m, 3.333_333e-1);
    let square = m * m;
    let mut y = p * m * square;
    y = e.mul_add(-2.121_944_4e-4, y);
    y = square.mul_add(-0.5, y);
    e.mul_add(0.693_359_4, m + y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_ln_are_as_good_as_f32() {
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            let got = vectorized(
                #[inline(always)]
                || exp(x),
            );
            assert!(((f64::from(got) - exact) / exact).abs() < 3e-7, "exp({x}) = {got}, expected {exact}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
        for i in 1..200_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).ln();
            let got = f64::from(vectorized(
                #[inline(always)]
                || ln(x),
            ));
            assert!((got - exact).abs() <= 3e-7 * exact.abs().max(1e-3), "ln({x}) = {got}, expected {exact}");
        }
    }

    #[test]
    fn reductions_use_every_element() {
        for len in [0, 1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..len).map(|i| i as f32 + 1.0).collect();
            let expected = (len * (len + 1) / 2) as f32;
            assert_eq!(
                vectorized(
                    #[inline(always)]
                    || sum_of(&x, |x| x)
                ),
                expected
            );
            assert_eq!(
                vectorized(
                    #[inline(always)]
                    || dot(&x, &vec![1.0; len])
                ),
                expected
            );
            assert_eq!(max(&x), if len == 0 { f32::NEG_INFINITY } else { len as f32 });
        }
    }
}
