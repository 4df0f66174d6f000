//! Units: an answer may omit the unit, but not contradict it; another unit of the same kind is converted.

use std::collections::BTreeMap;

use num_rational::BigRational;
use num_traits::{One, Pow, ToPrimitive};

/// The dimension of a unit as powers of basic units, and its size in these.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    pub factor: BigRational,
    powers: BTreeMap<&'static str, i32>,
    /// Words that are not known units.
    pub unknown: String,
}

/// A kind of measure: its units in the singular, with their size in basic units (numerator and denominator).
struct UnitKind {
    basic: &'static str,
    power: i32,
    units: &'static [(u64, u64, &'static [&'static str])],
}

const KINDS: [UnitKind; 20] = [
    UnitKind {
        basic: "meter",
        power: 1,
        units: &[
            (1, 1_000_000_000, &["nm", "nanometer"]),
            (1, 1_000, &["mm", "millimeter", "millimetre"]),
            (1, 100, &["cm", "centimeter", "centimetre"]),
            (1, 10, &["dm", "decimeter", "decimetre"]),
            (1, 1, &["m", "meter", "metre"]),
            (1_000, 1, &["km", "kilometer", "kilometre"]),
            (254, 10_000, &["in", "inch", "inche"]),
            (3_048, 10_000, &["ft", "foot", "feet"]),
            (9_144, 10_000, &["yd", "yard"]),
            (1_609_344, 1_000, &["mi", "mile"]),
        ],
    },
    UnitKind {
        basic: "meter",
        power: 3,
        units: &[
            (1, 1_000_000, &["ml", "milliliter", "millilitre", "cc"]),
            (1, 100_000, &["cl", "centiliter", "centilitre"]),
            (1, 1_000, &["l", "liter", "litre"]),
        ],
    },
    UnitKind {
        basic: "gallon",
        power: 1,
        units: &[(1, 1, &["gal", "gallon"]), (1, 4, &["qt", "quart"]), (1, 8, &["pt", "pint"]), (1, 16, &["cup"])],
    },
    UnitKind {
        basic: "gram",
        power: 1,
        units: &[
            (1, 1_000, &["mg", "milligram"]),
            (1, 1, &["g", "gm", "gram"]),
            (1_000, 1, &["kg", "kilogram"]),
            (1_000_000, 1, &["tonne"]),
        ],
    },
    UnitKind { basic: "pound", power: 1, units: &[(1, 16, &["oz", "ounce"]), (1, 1, &["lb", "pound"])] },
    UnitKind {
        basic: "second",
        power: 1,
        units: &[
            (1, 1_000, &["ms", "millisecond"]),
            (1, 1, &["s", "sec", "second"]),
            (60, 1, &["min", "minute"]),
            (3_600, 1, &["h", "hr", "hour"]),
            (86_400, 1, &["day"]),
            (604_800, 1, &["week"]),
        ],
    },
    UnitKind { basic: "month", power: 1, units: &[(1, 1, &["month"]), (12, 1, &["yr", "year"])] },
    UnitKind { basic: "degree", power: 1, units: &[(1, 1, &["degree", "deg", "°"])] },
    UnitKind { basic: "radian", power: 1, units: &[(1, 1, &["rad", "radian"])] },
    UnitKind { basic: "celsius", power: 1, units: &[(1, 1, &["degreec", "celsius"])] },
    UnitKind { basic: "fahrenheit", power: 1, units: &[(1, 1, &["degreef", "fahrenheit"])] },
    UnitKind { basic: "dollar", power: 1, units: &[(1, 1, &["$", "dollar", "usd"]), (1, 100, &["¢", "cent"])] },
    UnitKind { basic: "euro", power: 1, units: &[(1, 1, &["€", "euro", "eur"])] },
    UnitKind { basic: "sterling", power: 1, units: &[(1, 1, &["£", "gbp"])] },
    UnitKind { basic: "yen", power: 1, units: &[(1, 1, &["¥", "yen"])] },
    UnitKind { basic: "rupee", power: 1, units: &[(1, 1, &["₹", "rupee"])] },
    UnitKind { basic: "hertz", power: 1, units: &[(1, 1, &["hz", "hertz"])] },
    UnitKind { basic: "joule", power: 1, units: &[(1, 1, &["j", "joule"]), (1_000, 1, &["kj", "kilojoule"])] },
    UnitKind { basic: "newton", power: 1, units: &[(1, 1, &["n", "newton"])] },
    UnitKind { basic: "watt", power: 1, units: &[(1, 1, &["w", "watt"]), (1_000, 1, &["kw", "kilowatt"])] },
];

/// Quotients with special names.
const QUOTIENTS: [(&str, &str); 6] =
    [("mph", "mi/h"), ("kph", "km/h"), ("kmh", "km/h"), ("kmph", "km/h"), ("mps", "m/s"), ("fps", "ft/s")];

/// Words that multiply the number before them.
const SCALES: [(&str, u64); 6] = [
    ("hundred", 100),
    ("thousand", 1_000),
    ("million", 1_000_000),
    ("billion", 1_000_000_000),
    ("trillion", 1_000_000_000_000),
    ("dozen", 12),
];

pub fn is_known(word: &str) -> bool {
    let word = word.to_lowercase();
    find(&word).is_some()
        || QUOTIENTS.iter().any(|(name, _)| *name == word)
        || SCALES.iter().any(|(name, _)| *name == word)
}

/// The unit in a text, and the factor of its words: `million dollars` is a million, and dollars.
///
/// `None` if the text is empty or just `units`.
pub fn read(text: &str) -> (u64, Option<Unit>) {
    if text.is_empty() {
        return (1, None);
    }
    let mut lower = text.to_lowercase().replace(['.', '{', '}', '(', ')'], " ").replace(" per ", "/");
    for (name, quotient) in QUOTIENTS {
        if lower.split_whitespace().any(|word| word == name) {
            lower = lower.replace(name, quotient);
        }
    }
    let mut scale = 1;
    let mut unit = Unit { factor: BigRational::one(), powers: BTreeMap::new(), unknown: String::new() };
    for (index, part) in lower.split('/').enumerate() {
        let sign = if index == 0 { 1 } else { -1 };
        let mut dimension = 1;
        let words: Vec<&str> = part.split_whitespace().collect();
        for (place, word) in words.iter().enumerate() {
            match *word {
                "square" | "sq" => dimension = 2,
                "cubic" | "cu" => dimension = 3,
                "squared" | "cubed" | "unit" | "units" | "of" | "a" | "an" | "the" => {}
                _ => {
                    if let Some((_, number)) = SCALES.iter().find(|(name, _)| word.trim_end_matches('s') == *name) {
                        scale *= number;
                        continue;
                    }
                    let (base, exponent) = word.split_at(word.find('^').unwrap_or(word.len()));
                    let mut power = exponent.strip_prefix('^').and_then(|it| it.parse().ok()).unwrap_or(1);
                    match words.get(place + 1) {
                        Some(&"squared") => power = 2,
                        Some(&"cubed") => power = 3,
                        _ => {}
                    }
                    unit.multiply(base, sign * power * dimension, word);
                    // `square centimeters^1`: the word is used up.
                    dimension = 1;
                }
            }
        }
    }
    let empty = unit.powers.is_empty() && unit.unknown.is_empty() && unit.factor.is_one();
    (scale, (!empty).then_some(unit))
}

/// How many of the unit `small` make one of the unit `large`, if that is an integer above one.
pub fn share(small: &str, large: &str) -> Option<u64> {
    let ((1, Some(small)), (1, Some(large))) = (read(small), read(large)) else { return None };
    let share = large.factor.clone() / small.factor.clone();
    let fits = small.is_known() && large.is_known() && small.is_like(&large) && share.is_integer();
    share.numer().to_u64().filter(|it| fits && *it > 1)
}

impl Unit {
    fn multiply(&mut self, name: &str, power: i32, word: &str) {
        match find(name) {
            Some((kind, factor)) if power.abs() <= 12 => {
                self.factor *= Pow::pow(&factor, power);
                let total = self.powers.entry(kind.basic).or_insert(0);
                *total += power * kind.power;
                if *total == 0 {
                    self.powers.remove(kind.basic);
                }
            }
            _ => {
                if !self.unknown.is_empty() {
                    self.unknown.push(' ');
                }
                // The plural adds no meaning.
                self.unknown.push_str(word.strip_suffix('s').filter(|rest| rest.len() > 2).unwrap_or(word));
            }
        }
    }

    /// Whether all of its words are known.
    pub fn is_known(&self) -> bool {
        self.unknown.is_empty()
    }

    /// Whether the two have the same dimension.
    pub fn is_like(&self, other: &Unit) -> bool {
        self.powers == other.powers
    }

    pub fn is_angle(&self, name: &str) -> bool {
        self.is_known() && self.powers.len() == 1 && self.powers.get(name) == Some(&1)
    }
}

fn find(word: &str) -> Option<(&'static UnitKind, BigRational)> {
    let singular = word.strip_suffix('s').filter(|rest| rest.len() > 1).unwrap_or(word);
    KINDS.iter().find_map(|kind| {
        let found = kind.units.iter().find(|(_, _, names)| names.contains(&word) || names.contains(&singular))?;
        Some((kind, BigRational::new(found.0.into(), found.1.into())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str) -> Option<Unit> {
        read(text).1
    }

    #[test]
    fn one_meaning_for_each_unit() {
        for (one, other) in [
            ("centimeters", "cm"),
            ("square centimeters", "cm^2"),
            ("inches^2", "sq in."),
            ("miles per hour", "mph"),
            ("km/h", "kph"),
            ("cubic feet", "ft^3"),
            ("degrees", "degree"),
            ("m s^-1", "m/s"),
            ("square units", ""),
        ] {
            assert_eq!(unit(one), unit(other), "{one}");
        }
    }

    #[test]
    fn units_of_a_kind_are_converted() {
        let ratio = |one: &str, other: &str| unit(one).unwrap().factor / unit(other).unwrap().factor;
        assert_eq!(ratio("m", "cm"), BigRational::from_integer(100.into()));
        assert_eq!(ratio("m^2", "cm^2"), BigRational::from_integer(10_000.into()));
        assert_eq!(ratio("liters", "cm^3"), BigRational::from_integer(1_000.into()));
        assert!(!unit("cm").unwrap().is_like(&unit("cm^2").unwrap()));
        assert!(!unit("$").unwrap().is_like(&unit("€").unwrap()));
        assert!(!unit("apples").unwrap().is_known());
        assert_eq!(read("million dollars").0, 1_000_000);
    }
}
