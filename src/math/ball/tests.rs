//! Balls contain the right values (computed by another program, and by themselves at a higher precision), are not wider
//! than necessary, and operations return `None` when they cannot be done.

use num_traits::Pow;
use proptest::prelude::*;

use super::*;

const VALUES: &str = include_str!("../../../tests/fixtures/balls.tsv");

fn ratio(text: &str) -> BigRational {
    let (over, under) = text.split_once('/').unwrap_or((text, "1"));
    BigRational::new(over.parse().unwrap(), under.parse().unwrap())
}

/// A decimal such as `-1.25e-3` as digits and a power of ten.
fn decimal(text: &str) -> (BigInt, i64) {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, part) = digits.split_once('.').unwrap();
    (format!("{whole}{part}").parse().unwrap(), exponent.parse::<i64>().unwrap() - part.len() as i64)
}

/// Whether the ball contains the decimal, up to a unit of its last place. Uses integers only: the numbers are long, and
/// fractions would have to be reduced.
fn contains_decimal(ball: &Ball, (digits, power): &(BigInt, i64)) -> bool {
    assert!(ball.is_bounded());
    let ten = |power: i64| BigInt::from(10).pow(power.max(0) as u32);
    let scaled = |digits: BigInt| (digits * ten(*power)) << (-ball.exponent).max(0);
    let end = |middle: BigInt| (middle * ten(-power)) << ball.exponent.max(0);
    end(&ball.middle - ball.radius) <= scaled(digits + 1) && scaled(digits - 1) <= end(&ball.middle + ball.radius)
}

fn contains(ball: &Ball, value: &BigRational) -> bool {
    let unit = BigRational::from_integer(2.into()).pow(i32::try_from(ball.exponent).unwrap());
    let [least, greatest] =
        [&ball.middle - ball.radius, &ball.middle + ball.radius].map(|it| BigRational::from_integer(it) * &unit);
    ball.is_bounded() && least <= *value && *value <= greatest
}

fn call(function: &str, x: &Ball) -> Option<Ball> {
    let (name, index) = function.split_once(' ').unwrap_or((function, "0"));
    match name {
        "pi" => Some(Ball::pi(x.precision)),
        "e" => Some(Ball::e(x.precision)),
        "exp" => x.exp(),
        "ln" => x.ln(),
        "sin" => x.sin(),
        "cos" => x.cos(),
        "atan" => Some(x.atan()),
        "asin" => x.asin(),
        "acos" => x.acos(),
        "nth_root" => x.nth_root(index.parse().unwrap()),
        "pow_int" => x.pow_int(index.parse().unwrap()),
        _ => panic!("no function `{name}`"),
    }
}

#[test]
fn the_values_of_another_program_are_contained() {
    for line in VALUES.lines().filter(|it| !it.starts_with('#')) {
        let [function, argument, value] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let precisions: &[u32] = if value.len() > 1_000 { &[1_000, 4_096] } else { &[64, 128, 256] };
        let argument = ratio(argument);
        let value = decimal(value);
        for &precision in precisions {
            let x = Ball::from_ratio(&argument, precision);
            // After rounding, an argument of ±1 may be outside the domain of an arc sine.
            let Some(found) = call(function, &x) else {
                assert!(matches!(function, "asin" | "acos") && x.mul(&x).overlaps(&Ball::from_int(1, 64)), "{line}");
                continue;
            };
            assert!(contains_decimal(&found, &value), "{function} {argument} at {precision}: {found:?}");
        }
    }
}

#[test]
fn balls_are_tight() {
    for line in VALUES.lines().filter(|it| !it.starts_with('#')) {
        let [function, argument, _] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        for precision in [64, 128, 500] {
            // Exact arguments only: the error of a rounded argument says nothing about the function.
            let argument = Ball::from_ratio(&ratio(argument), precision);
            let argument = Ball { radius: 0, ..argument };
            let Some(found) = call(function, &argument) else { continue };
            let zero = found.is_exactly_zero();
            assert!(zero || found.accuracy_bits() >= precision - 8, "{function} {argument:?}: {found:?}");
        }
    }
}

#[test]
fn every_precision_up_to_the_maximum_is_reached() {
    for precision in [MIN_PRECISION, 64, 1_000, MAX_PRECISION] {
        let x = Ball::from_ratio(&ratio("12345678901/97"), precision);
        let x = Ball { radius: 0, ..x };
        for function in ["exp", "ln", "sin", "cos", "atan", "nth_root 2", "nth_root 97", "nth_root 4294967295"] {
            let found = call(function, &if function == "exp" { x.ln().unwrap() } else { x.clone() }).unwrap();
            assert!(found.accuracy_bits() >= precision - 12, "{function} at {precision}: {}", found.accuracy_bits());
        }
        for function in ["sin", "atan", "asin", "acos", "ln"] {
            let tiny = Ball::from_ratio(&ratio("1/3"), precision).pow_int(200).unwrap();
            let found = call(function, &tiny).unwrap();
            assert!(found.accuracy_bits() >= precision - 20, "{function} at {precision}: {}", found.accuracy_bits());
        }
    }
    assert_eq!(Ball::pi(0).precision, MIN_PRECISION);
    assert_eq!(Ball::pi(u32::MAX).precision, MAX_PRECISION);
}

#[test]
fn exact_numbers_stay_exact() {
    let int = |value: i64| Ball::from_int(value, 128);
    let same = |ball: Ball, value: i64| ball.sub(&int(value)).is_exactly_zero();
    assert!(same(int(1_000_003).mul(&int(-7)).add(&int(21)), -7_000_000));
    assert!(same(int(91).div(&int(-7)).unwrap(), -13));
    assert!(same(int(-27).nth_root(3).unwrap(), -3));
    assert!(same(int(1 << 42).nth_root(42).unwrap(), 2));
    assert!(same(int(-3).pow_int(5).unwrap(), -243));
    assert!(same(int(2).pow_int(-3).unwrap().mul(&int(8)), 1));
    assert!(same(int(0).pow_int(0).unwrap(), 1));
    assert!(same(int(1).ln().unwrap(), 0));
    assert!(same(int(0).sin().unwrap(), 0));
    assert!(same(int(0).atan(), 0));
    assert!(same(Ball::from_ratio(&ratio("5/8"), 64).mul(&int(8)), 5));
    assert_eq!(int(0).sign(), Some(Ordering::Equal));
    assert_eq!(int(-1).sign(), Some(Ordering::Less));
    assert_eq!(Ball::pi(64).sub(&int(3)).sign(), Some(Ordering::Greater));
    assert_eq!(Ball::pi(64).sub(&Ball::pi(128)).sign(), None);
}

#[test]
fn uncertain_results_are_none() {
    let int = |value: i64| Ball::from_int(value, 64);
    let maybe_zero = Ball::pi(64).sub(&Ball::pi(128));
    assert!(maybe_zero.contains_zero());
    assert!(int(1).div(&maybe_zero).is_none() && int(1).div(&int(0)).is_none() && int(0).recip().is_none());
    assert!(maybe_zero.ln().is_none() && int(0).ln().is_none() && int(-1).ln().is_none());
    assert!(maybe_zero.nth_root(3).is_none() && int(-4).nth_root(2).is_none() && int(4).nth_root(0).is_none());
    assert!(int(0).pow_int(-1).is_none() && maybe_zero.pow_int(-2).is_none() && maybe_zero.pow_int(2).is_some());
    assert!(int(2).asin().is_none() && int(-2).acos().is_none() && int(1).add(&maybe_zero).asin().is_none());
    assert!(int(1).asin().is_some() && int(-1).asin().is_some() && int(1).acos().is_some());
    // Huge arguments, and a tower that exceeds the range of exponents.
    let huge = int(10).pow_int(100).unwrap();
    assert!(huge.exp().is_none() && huge.sin().is_none() && huge.cos().is_none());
    assert!(huge.neg().exp().is_none() && huge.ln().is_some());
    assert!(huge.atan().overlaps(&Ball::pi(64).div(&int(2)).unwrap()));
    let large = int(9).pow_int(1 << 50).unwrap();
    assert!(large.pow_int(1 << 50).is_none());
    let mut all = large.clone();
    let mut tiny = large.recip().unwrap();
    for _ in 0..20 {
        (all, tiny) = (all.mul(&all), tiny.mul(&tiny));
    }
    assert!(!all.is_bounded() && all.contains_zero() && all.overlaps(&int(0)) && all.accuracy_bits() == 0);
    assert!(
        all.sin().is_none() && all.exp().is_none() && all.ln().is_none() && all.div(&int(3)).unwrap().top().is_none()
    );
    assert!(all.add(&int(1)).sub(&int(1)).contains_zero() && all.atan().overlaps(&int(2)));
    assert!(tiny.contains_zero() && !tiny.is_exactly_zero() && tiny.overlaps(&int(0)) && !tiny.overlaps(&int(1)));
}

#[test]
fn numbers_far_apart_are_added() {
    let one = Ball::from_int(1, 64);
    for power in [60, 97, 98, 99, 200, 1 << 40] {
        let large = Ball::from_int(2, 64).pow_int(power).unwrap();
        for sum in [large.add(&one.neg()), one.neg().add(&large)] {
            assert!(sum.sub(&large).overlaps(&one.neg()) && !sum.overlaps(&large.mul(&Ball::from_int(2, 64))));
            assert!(sum.accuracy_bits() > 60, "{sum:?}");
        }
    }
}

/// Rationals of very different sizes, and with sizes close to 1.
fn numbers() -> impl Strategy<Value = BigRational> {
    let close = (1i64..40, 30u32..100).prop_map(|(over, bits)| {
        BigRational::from_integer(1.into()) - BigRational::new(over.into(), BigInt::one() << bits)
    });
    let spread = (1u64.., 1u64.., 0u32..64, 0u32..64).prop_map(|(over, under, down, up)| {
        BigRational::new((over >> down).max(1).into(), (under >> up).max(1).into())
    });
    (prop_oneof![4 => spread, 1 => close], any::<bool>()).prop_map(|(size, minus)| if minus { -size } else { size })
}

/// A ball around `value` that is wider than necessary.
fn wide(value: &BigRational, precision: u32, radius: u64) -> Ball {
    let ball = Ball::from_ratio(value, precision);
    let shift = u64::from(precision).saturating_sub(ball.middle.bits()) as i64;
    let ball =
        Ball { middle: &ball.middle << shift, radius: ball.radius << shift, exponent: ball.exponent - shift, ..ball };
    Ball::new(ball.middle, (ball.radius + radius).into(), ball.exponent, precision)
}

/// Whether `fine`, a value at a higher precision, is in `coarse`.
fn lies_in(fine: &Ball, coarse: &Ball) -> bool {
    if !coarse.is_bounded() {
        return true;
    }
    let exact = |ball: &Ball| Ball { radius: 0, ..ball.clone() }.at(2_000);
    let distance = exact(fine).sub(&exact(coarse));
    let size = Ball { middle: distance.middle.abs(), ..distance };
    let radius = |ball: &Ball| Ball::new(ball.radius.into(), BigUint::ZERO, ball.exponent, 2_000);
    size.sub(&radius(coarse)).sub(&radius(fine)).sign() != Some(Ordering::Greater)
}

const FUNCTIONS: [&str; 16] = [
    "exp",
    "ln",
    "sin",
    "cos",
    "atan",
    "asin",
    "acos",
    "nth_root 2",
    "nth_root 3",
    "nth_root 5",
    "nth_root 6",
    "nth_root 11",
    "nth_root 1000003",
    "pow_int 2",
    "pow_int -3",
    "pow_int 1000",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// The result at any precision contains the result at a higher one.
    #[test]
    fn functions_of_balls_contain_functions_of_points(
        x in numbers(), precision in 32u32..200, radius in prop_oneof![0u64..4, 0u64..1 << 20, 0..u64::from(u32::MAX)],
        place in -1i64..=1
    ) {
        let coarse = wide(&x, precision, radius);
        // A point at the edge of the ball, or in the middle.
        let point = Ball { middle: &coarse.middle + place * coarse.radius as i64, radius: 0, ..coarse.clone() }.at(700);
        for function in FUNCTIONS {
            let Some(found) = call(function, &coarse) else { continue };
            let fine = call(function, &point).unwrap();
            prop_assert!(lies_in(&fine, &found), "{function}: {found:?} {fine:?}");
        }
    }

    #[test]
    fn arithmetic_of_balls_contains_arithmetic_of_points(
        x in numbers(), y in numbers(), precision in 32u32..200, radius in 0u64..1 << 32, place in -1i64..=1
    ) {
        let [a, b] = [&x, &y].map(|it| wide(it, precision, radius));
        let edge = |it: &Ball, place: i64| Ball { middle: &it.middle + place * it.radius as i64, radius: 0, ..it.clone() };
        let [c, d] = [edge(&a, place), edge(&b, -place)].map(|it| it.at(700));
        prop_assert!(lies_in(&c.add(&d), &a.add(&b)));
        prop_assert!(lies_in(&c.sub(&d), &a.sub(&b)));
        prop_assert!(lies_in(&c.mul(&d), &a.mul(&b)));
        if let Some(quotient) = a.div(&b) {
            prop_assert!(lies_in(&c.div(&d).unwrap(), &quotient));
        }
    }

    #[test]
    fn rationals_are_exact_within_the_radius(x in numbers(), y in numbers(), precision in 32u32..200) {
        let [a, b] = [&x, &y].map(|it| Ball::from_ratio(it, precision));
        prop_assert!(contains(&a, &x) && a.accuracy_bits() >= precision - 3);
        prop_assert!(contains(&a.add(&b), &(&x + &y)));
        prop_assert!(contains(&a.sub(&b), &(&x - &y)));
        prop_assert!(contains(&a.mul(&b), &(&x * &y)));
        prop_assert!(contains(&a.div(&b).unwrap(), &(&x / &y)));
        prop_assert_eq!(a.overlaps(&b) && !b.overlaps(&a), false);
        prop_assert!(a.overlaps(&a));
    }

    #[test]
    fn identities_hold(x in numbers(), precision in 32u32..300) {
        let x = Ball::from_ratio(&x, precision);
        let size = if x.sign() == Some(Ordering::Less) { x.neg() } else { x.clone() };
        let one = Ball::from_int(1, precision);
        prop_assert!(size.ln().unwrap().exp().unwrap().overlaps(&size));
        prop_assert!(size.nth_root(7).unwrap().pow_int(7).unwrap().overlaps(&size));
        prop_assert!(size.nth_root(13).unwrap().pow_int(13).unwrap().overlaps(&size));
        if let (Some(sin), Some(cos)) = (x.sin(), x.cos()) {
            prop_assert!(sin.mul(&sin).add(&cos.mul(&cos)).overlaps(&one));
            let double = Ball::from_int(2, precision).mul(&x).sin();
            prop_assert!(double.is_none_or(|it| it.overlaps(&sin.mul(&cos).scaled(1))));
        }
        let angle = x.atan();
        if let Some(tangent) = angle.sin().unwrap().div(&angle.cos().unwrap()) {
            prop_assert!(tangent.overlaps(&x));
        }
        if let (Some(asin), Some(acos)) = (x.asin(), x.acos()) {
            prop_assert!(asin.sin().unwrap().overlaps(&x) && acos.cos().unwrap().overlaps(&x));
            prop_assert!(asin.add(&acos).overlaps(&Ball::pi(precision).scaled(-1)));
        }
        if let (Some(power), Some(inverse)) = (x.exp(), x.neg().exp()) {
            prop_assert!(power.mul(&inverse).overlaps(&one));
        }
    }
}
