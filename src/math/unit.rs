//! Units: an answer may omit the unit, but not contradict it; another unit of the same kind is converted.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use num_rational::BigRational;
use num_traits::{One, Pow, ToPrimitive};

/// The dimension of a unit as powers of basic units, and its size in these.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    pub factor: BigRational,
    powers: BTreeMap<&'static str, i32>,
    /// Words that are not known units.
    pub unknown: String,
    /// Among them are words that may change the number, or deny it: not only things that can be counted, and words
    /// that add nothing, such as `in total`.
    pub doubtful: bool,
}

/// A kind of measure: its units in the singular, with their size in basic units (numerator and denominator).
struct UnitKind {
    basic: &'static str,
    power: i32,
    units: &'static [(u64, u64, &'static [&'static str])],
}

const KINDS: [UnitKind; 29] = [
    UnitKind {
        basic: "meter",
        power: 1,
        units: &[
            (1, 1_000_000_000, &["nm", "nanometer", "nanometre"]),
            (1, 1_000_000, &["μm", "µm", "micrometer", "micrometre", "micron"]),
            (1, 1_000, &["mm", "millimeter", "millimetre", "毫米"]),
            (1, 100, &["cm", "centimeter", "centimetre", "厘米", "公分"]),
            (1, 10, &["dm", "decimeter", "decimetre", "分米"]),
            (1, 1, &["m", "meter", "metre", "米"]),
            (1_000, 1, &["km", "kilometer", "kilometre", "千米", "公里"]),
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
            (1, 1_000_000, &["ml", "milliliter", "millilitre", "cc", "毫升"]),
            (1, 100_000, &["cl", "centiliter", "centilitre"]),
            (1, 1_000, &["l", "liter", "litre", "升"]),
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
            (1, 1, &["g", "gm", "gram", "gramme", "克"]),
            (1_000, 1, &["kg", "kilogram", "kilo", "千克", "公斤"]),
            (1_000_000, 1, &["tonne", "吨"]),
        ],
    },
    UnitKind {
        basic: "pound",
        power: 1,
        units: &[(1, 16, &["oz", "ounce"]), (1, 1, &["lb", "pound"]), (2_000, 1, &["ton"])],
    },
    UnitKind {
        basic: "second",
        power: 1,
        units: &[
            (1, 1_000, &["ms", "millisecond"]),
            (1, 1, &["s", "sec", "second", "秒"]),
            (60, 1, &["min", "minute", "分钟", "分"]),
            (3_600, 1, &["h", "hr", "hour", "小时", "時間"]),
            (86_400, 1, &["day", "天", "日"]),
            (604_800, 1, &["week", "周", "星期"]),
        ],
    },
    UnitKind { basic: "month", power: 1, units: &[(1, 1, &["month", "个月"]), (12, 1, &["yr", "year", "年"])] },
    UnitKind { basic: "degree", power: 1, units: &[(1, 1, &["degree", "deg", "°", "度"])] },
    UnitKind { basic: "radian", power: 1, units: &[(1, 1, &["rad", "radian"])] },
    UnitKind { basic: "celsius", power: 1, units: &[(1, 1, &["degreec", "celsius"])] },
    UnitKind { basic: "fahrenheit", power: 1, units: &[(1, 1, &["degreef", "fahrenheit"])] },
    UnitKind {
        basic: "dollar",
        power: 1,
        units: &[(1, 1, &["$", "dollar", "usd", "buck", "美元"]), (1, 100, &["¢", "cent"])],
    },
    UnitKind { basic: "euro", power: 1, units: &[(1, 1, &["€", "euro", "eur", "欧元"])] },
    UnitKind { basic: "sterling", power: 1, units: &[(1, 1, &["£", "gbp"]), (1, 100, &["pence"])] },
    UnitKind {
        basic: "yen",
        power: 1,
        units: &[(1, 1, &["¥", "yen", "yuan", "rmb", "cny", "jpy", "元", "块", "円", "日元"])],
    },
    UnitKind { basic: "rupee", power: 1, units: &[(1, 1, &["₹", "rupee"])] },
    UnitKind { basic: "won", power: 1, units: &[(1, 1, &["₩", "원"])] },
    UnitKind { basic: "hertz", power: 1, units: &[(1, 1, &["hz", "hertz"])] },
    UnitKind { basic: "joule", power: 1, units: &[(1, 1, &["j", "joule"]), (1_000, 1, &["kj", "kilojoule"])] },
    UnitKind { basic: "newton", power: 1, units: &[(1, 1, &["n", "newton"]), (1_000, 1, &["kilonewton"])] },
    UnitKind { basic: "watt", power: 1, units: &[(1, 1, &["w", "watt"]), (1_000, 1, &["kw", "kilowatt"])] },
    UnitKind { basic: "pascal", power: 1, units: &[(1, 1, &["pascal"]), (1_000, 1, &["kilopascal"])] },
    UnitKind { basic: "volt", power: 1, units: &[(1, 1, &["v", "volt"]), (1_000, 1, &["kilovolt"])] },
    UnitKind { basic: "ampere", power: 1, units: &[(1, 1, &["ampere", "amp"]), (1, 1_000, &["milliampere"])] },
    UnitKind { basic: "ohm", power: 1, units: &[(1, 1, &["ohm", "ω"])] },
    UnitKind { basic: "kelvin", power: 1, units: &[(1, 1, &["kelvin"])] },
    UnitKind { basic: "mole", power: 1, units: &[(1, 1, &["mol", "mole"])] },
    UnitKind { basic: "electronvolt", power: 1, units: &[(1, 1, &["electronvolt"])] },
    UnitKind { basic: "coulomb", power: 1, units: &[(1, 1, &["coulomb"])] },
];

/// Quotients with special names.
const QUOTIENTS: [(&str, &str); 6] =
    [("mph", "mi/h"), ("kph", "km/h"), ("kmh", "km/h"), ("kmph", "km/h"), ("mps", "m/s"), ("fps", "ft/s")];

/// Words that multiply the number before them.
const SCALES: [(&str, u64); 10] = [
    ("hundred", 100),
    ("thousand", 1_000),
    ("million", 1_000_000),
    ("billion", 1_000_000_000),
    ("trillion", 1_000_000_000_000),
    ("dozen", 12),
    ("lakh", 100_000),
    ("crore", 10_000_000),
    ("万", 10_000),
    ("亿", 100_000_000),
];

/// Things that can be counted, in the plural, one per line.
static NOUNS: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("nouns.txt").lines().collect());

/// Counters of other languages.
const COUNTERS: [&str; 32] = [
    "个", "只", "人", "次", "种", "岁", "本", "张", "条", "件", "名", "位", "棵", "枚", "匹", "回", "通り", "個", "頭",
    "台", "辆", "朵", "颗", "支", "枝", "개", "명", "번", "가지", "살", "마리", "권",
];

/// Words around counted things that leave the number as it is.
const HARMLESS: [&str; 74] = [
    "of",
    "a",
    "an",
    "the",
    "and",
    "in",
    "on",
    "at",
    "for",
    "to",
    "from",
    "with",
    "by",
    "per",
    "each",
    "every",
    "total",
    "altogether",
    "all",
    "are",
    "left",
    "remaining",
    "different",
    "distinct",
    "possible",
    "such",
    "unique",
    "new",
    "old",
    "big",
    "small",
    "large",
    "little",
    "long",
    "tall",
    "high",
    "wide",
    "deep",
    "away",
    "apart",
    "ago",
    "later",
    "whole",
    "full",
    "positive",
    "real",
    "complex",
    "rational",
    "prime",
    "even",
    "odd",
    "digit",
    "ordered",
    "red",
    "blue",
    "green",
    "yellow",
    "white",
    "black",
    "brown",
    "orange",
    "pink",
    "purple",
    "his",
    "her",
    "their",
    "its",
    "this",
    "that",
    "these",
    "unit",
    "units",
    "now",
    "home",
];

/// Phrases after a number that say only that it is the answer.
const TAILS: [&str; 14] = [
    "total",
    "in total",
    "in all",
    "altogether",
    "each",
    "left",
    "remaining",
    "total in all",
    "left over",
    "is answer",
    "is final answer",
    "is correct answer",
    "is correct",
    "is our answer",
];

/// Words that are not things although their form is that of one.
const CHANGING: [&str; 24] = [
    "mistake", "error", "point", "time", "square", "cube", "root", "half", "halve", "third", "quarter", "fourth",
    "fifth", "sixth", "tenth", "pair", "couple", "score", "term", "base", "multiple", "turn", "leave", "degree",
];

/// Whether a word is a thing that can be counted, in the singular or the plural.
fn is_thing(word: &str) -> bool {
    if NOUNS.contains(word) || COUNTERS.contains(&word) {
        return true;
    }
    if CHANGING.contains(&word) {
        return false;
    }
    let plural = |ending: &str| NOUNS.contains(format!("{word}{ending}").as_str());
    let hissing = ["s", "x", "z", "ch", "sh", "o"].iter().any(|it| word.ends_with(it));
    let with_y = word.strip_suffix('y').is_some_and(|stem| NOUNS.contains(format!("{stem}ies").as_str()));
    word.len() > 2 && word.is_ascii() && (plural("s") || hissing && plural("es") || with_y || word == "person")
}

/// Whether words that are not units leave the number before them as it is.
fn leaves_number(words: &str) -> bool {
    TAILS.contains(&words) || {
        let mut things = words.split(' ').filter(|it| is_thing(it)).peekable();
        things.peek().is_some() && words.split(' ').all(|it| HARMLESS.contains(&it) || is_thing(it))
    }
}

/// Capitals that may be units, and may be something else: `5 K` is a temperature or five thousand.
pub fn is_doubtful_letter(name: &str) -> bool {
    matches!(name, "K" | "C" | "F" | "T" | "H" | "M" | "B" | "k")
}

/// Letters that are units by themselves, and rarely names: not `K` or `M`, which are also a thousand and a million.
pub fn is_letter(name: &str) -> bool {
    matches!(name, "m" | "g" | "s" | "h" | "l" | "L" | "N" | "J" | "W" | "V" | "A")
}

/// Symbols of units in which capitals matter.
const CAPITALS: [(&str, &str); 10] = [
    ("Nm", "newton meter"),
    ("Pa", "pascal"),
    ("kPa", "kilopascal"),
    ("kN", "kilonewton"),
    ("kV", "kilovolt"),
    ("mA", "milliampere"),
    ("A", "ampere"),
    ("eV", "electronvolt"),
    ("Rs", "rupee"),
    ("INR", "rupee"),
];

/// A word in lower case, unless it is a capital that has no meaning as a unit: `M` is a million.
fn folded(word: &str) -> String {
    let (name, power) = word.split_at(word.find('^').unwrap_or(word.len()));
    if let Some((_, unit)) = CAPITALS.iter().find(|(it, _)| *it == name) {
        return format!("{unit}{power}");
    }
    let capital = name.len() == 1 && name.bytes().all(|it| it.is_ascii_uppercase());
    if capital && !is_letter(name) { word.to_string() } else { word.to_lowercase() }
}

pub fn is_known(word: &str) -> bool {
    if CAPITALS.iter().any(|(name, _)| *name == word && word.len() > 1) {
        return true;
    }
    let word = word.to_lowercase();
    find(&word).is_some()
        || QUOTIENTS.iter().any(|(name, _)| *name == word)
        || SCALES.iter().any(|(name, _)| *name == word)
}

/// The text in lower case, without braces, spacing commands, periods and raised digits.
fn spelled(text: &str) -> String {
    let mut text = text.to_string();
    for (from, to) in [("^{", "^"), ("\\,", " "), ("\\;", " "), ("\\ ", " "), ("\\cdot", " ")] {
        if text.contains(from) {
            text = text.replace(from, to);
        }
    }
    if !text.is_ascii() {
        for (from, to) in [
            ("⁻¹", "^-1"),
            ("⁻²", "^-2"),
            ("²", "^2"),
            ("³", "^3"),
            ("·", " "),
            ("⋅", " "),
            ("平方", "square "),
            ("立方", "cubic "),
        ] {
            text = text.replace(from, to);
        }
    }
    let text = text.replace(['.', '{', '}', '(', ')', '~'], " ").replace('/', " / ");
    let words: Vec<String> = text.split_whitespace().map(folded).collect();
    words.join(" ").replace(" per ", "/")
}

/// The unit in a text, and the factor of its words: `million dollars` is a million, and dollars.
///
/// `None` if the text is empty or just `units`.
pub fn read(text: &str) -> (u64, Option<Unit>) {
    if text.is_empty() {
        return (1, None);
    }
    let mut lower = spelled(text);
    for (name, quotient) in QUOTIENTS {
        if lower.split_whitespace().any(|word| word == name) {
            lower = lower.replace(name, quotient);
        }
    }
    let mut scale = 1u64;
    let mut unit =
        Unit { factor: BigRational::one(), powers: BTreeMap::new(), unknown: String::new(), doubtful: false };
    let (mut things, mut extra) = (String::new(), false);
    for (index, part) in lower.split('/').enumerate() {
        let sign = if index == 0 { 1 } else { -1 };
        let mut dimension = 1;
        let mut lone = "";
        let words: Vec<&str> = part.split_whitespace().collect();
        for (place, word) in words.iter().enumerate() {
            match *word {
                "square" | "sq" => (dimension, lone) = (2, word),
                "cubic" | "cu" => (dimension, lone) = (3, word),
                // After a unit, or in front of one.
                "squared" | "cubed" if place > 0 => {}
                "squared" if words.len() > 1 => (dimension, lone) = (2, word),
                "cubed" if words.len() > 1 => (dimension, lone) = (3, word),
                "unit" | "units" | "units^2" | "units^3" | "unit^2" | "unit^3" => (dimension, extra) = (1, true),
                "of" | "a" | "an" | "the" => {}
                _ => {
                    if let Some((_, number)) = SCALES.iter().find(|(name, _)| word.trim_end_matches('s') == *name) {
                        scale = scale.saturating_mul(*number);
                        continue;
                    }
                    let (base, exponent) = word.split_at(word.find('^').unwrap_or(word.len()));
                    let mut power = exponent.strip_prefix('^').and_then(|it| it.parse().ok()).unwrap_or(1);
                    match words.get(place + 1) {
                        Some(&"squared") => power = 2,
                        Some(&"cubed") => power = 3,
                        _ => {}
                    }
                    let known = unit.multiply(base, sign * power * dimension, word);
                    if !known {
                        things.push_str(if things.is_empty() { "" } else { " " });
                        things.push_str(word);
                    }
                    // `square centimeters^1`: the word is used up.
                    dimension = 1;
                }
            }
        }
        // `5 square` does not name what is squared.
        if dimension != 1 {
            unit.unknown.push_str(lone);
            things.push_str(lone);
        }
    }
    // Only words around units, such as `long`, need not name a thing.
    let beside_unit = !unit.powers.is_empty() || extra;
    let harmless = beside_unit && things.split(' ').all(|it| HARMLESS.contains(&it) || is_thing(it));
    unit.doubtful = !things.is_empty() && !leaves_number(&things) && !harmless;
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
    /// Returns whether the word is a known unit.
    fn multiply(&mut self, name: &str, power: i32, word: &str) -> bool {
        match find(name) {
            Some((kind, factor)) if power.abs() <= 12 => {
                self.factor *= Pow::pow(&factor, power);
                let total = self.powers.entry(kind.basic).or_insert(0);
                *total += power * kind.power;
                if *total == 0 {
                    self.powers.remove(kind.basic);
                }
                true
            }
            _ => {
                if !self.unknown.is_empty() {
                    self.unknown.push(' ');
                }
                // The plural adds no meaning.
                self.unknown.push_str(word.strip_suffix('s').filter(|rest| rest.len() > 2).unwrap_or(word));
                false
            }
        }
    }

    /// 7 of `mod 7`, which the words after a number may be.
    pub fn modulus(&self) -> Option<BigRational> {
        let modulus: num_bigint::BigInt = self.unknown.strip_prefix("mod ")?.parse().ok()?;
        (modulus > num_bigint::BigInt::ZERO).then(|| BigRational::from_integer(modulus))
    }

    /// Whether one of its words is known to change or deny the number before it.
    pub fn changes_number(&self) -> bool {
        const WORDS: [&str; 18] = [
            "not",
            "wrong",
            "incorrect",
            "more",
            "less",
            "fewer",
            "least",
            "most",
            "than",
            "point",
            "base",
            "minus",
            "plus",
            "negative",
            "power",
            "root",
            "approximately",
            "M",
        ];
        self.doubtful && self.unknown.split(' ').any(|it| WORDS.contains(&it))
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
