//! Budgets by size. With a clock, a verdict would depend on the machine and on other processes; with a count it does
//! not.

use num_bigint::{BigInt, BigUint};
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

/// Why something was not decided; it becomes [`Verdict::Undecided`](super::Verdict::Undecided).
pub type Reason = String;

/// Maximum length of an answer, in bytes. It also bounds the number of nodes of an expression tree, which is at most
/// twice the number of bytes.
pub const MAX_BYTES: usize = 512;
/// Maximum nesting of brackets, fractions, roots and exponents.
pub const MAX_NESTING: usize = 64;
/// Maximum size of a number, in bits of numerator and of denominator.
pub const MAX_BITS: u64 = 100_000;
/// Maximum number of terms of a sum after multiplying out.
pub const MAX_TERMS: usize = 2_000;
/// Maximum exponent of a symbol and index of a root.
pub const MAX_EXPONENT: i64 = 10_000;
/// Maximum work of one evaluation, in products of 64-bit words; a few milliseconds.
const MAX_WORK: u64 = 4_000_000;
const TOO_MUCH: &str = "too much arithmetic";

/// Exact arithmetic that counts its cost, and returns an error before it becomes slow.
pub struct Meter {
    left: u64,
}

impl Meter {
    pub fn new() -> Meter {
        Meter { left: MAX_WORK }
    }

    /// After the first error, all further operations fail, so that trying another way does not use more time.
    pub fn charge(&mut self, work: u64) -> Result<(), Reason> {
        let left = self.left.checked_sub(work);
        self.left = left.unwrap_or(0);
        left.map(|_| ()).ok_or_else(|| TOO_MUCH.into())
    }

    /// Charges for an elementary function to this many bits: 15 µs at 128 bits, 0.2 ms at 1,024 and 2.5 ms at 4,096.
    pub fn charge_function(&mut self, precision: u32) -> Result<(), Reason> {
        let bits = u64::from(precision);
        self.charge(bits * bits / 8 + 100 * bits)
    }

    /// The reason why the budget is exhausted, if it is.
    pub fn refusal(&self) -> Result<(), Reason> {
        if self.left == 0 { Err(TOO_MUCH.into()) } else { Ok(()) }
    }

    pub fn add(&mut self, a: &BigRational, b: &BigRational) -> Result<BigRational, Reason> {
        if a.is_integer() && b.is_integer() {
            self.charge(words(a.numer()).max(words(b.numer())))?;
            return Ok(BigRational::from_integer(a.numer() + b.numer()));
        }
        self.charge(words(a.numer()) * words(b.denom()) + words(b.numer()) * words(a.denom()))?;
        self.ratio(a.numer() * b.denom() + b.numer() * a.denom(), a.denom() * b.denom())
    }

    pub fn mul(&mut self, a: &BigRational, b: &BigRational) -> Result<BigRational, Reason> {
        if a.is_one() {
            return Ok(b.clone());
        }
        self.charge(words(a.numer()) * words(b.numer()) + words(a.denom()) * words(b.denom()))?;
        self.ratio(a.numer() * b.numer(), a.denom() * b.denom())
    }

    /// `base` to an integer power; a negative power of zero is an error.
    pub fn pow(&mut self, base: &BigRational, exponent: i64) -> Result<BigRational, Reason> {
        if exponent < 0 && base.is_zero() {
            return Err("division by zero".into());
        }
        let bits = base.numer().bits().max(base.denom().bits());
        // A base of one bit is 1 or -1, whose powers do not grow.
        if bits > 1 && bits.saturating_mul(exponent.unsigned_abs()) > MAX_BITS {
            return Err("a power is too large".into());
        }
        let exponent = if bits > 1 { exponent } else { exponent % 2 };
        let size = exponent.unsigned_abs();
        self.charge((bits * size / 64).pow(2) + 1)?;
        let [numer, denom] = [base.numer(), base.denom()].map(|part| part.pow(size as u32));
        // Powers of coprime numbers are coprime, so they need not be reduced.
        Ok(match exponent < 0 {
            false => BigRational::new_raw(numer, denom),
            true if numer.is_negative() => BigRational::new_raw(-denom, -numer),
            true => BigRational::new_raw(denom, numer),
        })
    }

    /// `numer / denom` in lowest terms, for a positive `denom`.
    pub fn ratio(&mut self, numer: BigInt, denom: BigInt) -> Result<BigRational, Reason> {
        if numer.bits().max(denom.bits()) > MAX_BITS {
            return Err("a number is too large".into());
        }
        if denom.is_one() {
            return Ok(BigRational::from_integer(numer));
        }
        let divisor = BigInt::from(self.gcd(numer.magnitude(), denom.magnitude())?);
        Ok(BigRational::new_raw(numer / &divisor, denom / divisor))
    }

    pub fn gcd(&mut self, a: &BigUint, b: &BigUint) -> Result<BigUint, Reason> {
        let (small, large) = if a < b { (a, b) } else { (b, a) };
        if small.is_zero() {
            return Ok(large.clone());
        }
        // One division first: the library's binary algorithm takes a step for every bit of the larger number.
        let rest = large % small;
        let limbs = small.bits() / 64 + 1;
        self.charge(limbs * (large.bits() / 64 + 1))?;
        if let (Some(small), Some(rest)) = (small.to_u128(), rest.to_u128()) {
            self.charge(200)?;
            return Ok(small.gcd(&rest).into());
        }
        // One step costs at least as much as some products.
        self.charge(2 * (limbs + 15) * small.bits())?;
        Ok(small.gcd(&rest))
    }
}

fn words(number: &BigInt) -> u64 {
    number.bits() / 64 + 1
}
