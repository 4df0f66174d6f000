//! Units: an answer may leave the unit out, but not contradict it.

/// Every known unit with its other spellings, in the singular.
const UNITS: [&[&str]; 36] = [
    &["mm", "millimeter", "millimetre"],
    &["cm", "centimeter", "centimetre"],
    &["dm", "decimeter", "decimetre"],
    &["m", "meter", "metre"],
    &["km", "kilometer", "kilometre"],
    &["in", "inch", "inche"],
    &["ft", "foot", "feet"],
    &["yd", "yard"],
    &["mi", "mile"],
    &["mg", "milligram"],
    &["g", "gram"],
    &["kg", "kilogram"],
    &["oz", "ounce"],
    &["lb", "pound"],
    &["ml", "milliliter", "millilitre"],
    &["l", "liter", "litre"],
    &["gal", "gallon"],
    &["s", "sec", "second"],
    &["min", "minute"],
    &["h", "hr", "hour"],
    &["day"],
    &["week"],
    &["month"],
    &["yr", "year"],
    &["degree", "deg", "°"],
    &["rad", "radian"],
    &["$", "dollar", "usd"],
    &["¢", "cent"],
    &["€", "euro", "eur"],
    &["£", "gbp"],
    &["¥", "yen"],
    &["mi/h", "mph"],
    &["km/h", "kph", "kmh"],
    &["hz", "hertz"],
    &["j", "joule"],
    &["n", "newton"],
];

pub fn is_known(word: &str) -> bool {
    find(&word.to_lowercase()).is_some()
}

/// One spelling for each unit: `square centimeters` and `cm^2` are the same. Empty for a mere `units`.
pub fn canonical(unit: &str) -> String {
    let lower = unit.to_lowercase().replace(['.', '{', '}'], " ").replace(" per ", "/");
    let parts = lower.split('/').map(|part| {
        let (mut power, mut name) = ("", Vec::new());
        for word in part.split_whitespace() {
            match word {
                "square" | "sq" => power = "^2",
                "cubic" | "cu" => power = "^3",
                "unit" | "units" => {}
                _ => {
                    let (base, exponent) = word.split_at(word.find('^').unwrap_or(word.len()));
                    name.push(format!("{}{exponent}", find(base).unwrap_or(base)));
                }
            }
        }
        // `square units` name no unit, and no power of one either.
        if name.is_empty() { String::new() } else { name.join(" ") + power }
    });
    parts.collect::<Vec<_>>().join("/").trim_matches('/').to_string()
}

/// Whether two units, in canonical form, are known to differ.
pub fn contradict(one: &str, other: &str) -> bool {
    let known = |unit: &str| unit.split(['/', '^']).all(|part| part.parse::<u8>().is_ok() || find(part).is_some());
    one != other && known(one) && known(other)
}

fn find(word: &str) -> Option<&'static str> {
    let singular = word.strip_suffix('s').filter(|rest| rest.len() > 1).unwrap_or(word);
    UNITS
        .iter()
        .find(|spellings| spellings.contains(&word) || spellings.contains(&singular))
        .map(|spellings| spellings[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_each_unit() {
        for (one, other) in [
            ("centimeters", "cm"),
            ("square centimeters", "cm^2"),
            ("inches^2", "sq in."),
            ("miles per hour", "mph"),
            ("cubic feet", "ft^3"),
            ("degrees", "degree"),
            ("square units", ""),
        ] {
            assert_eq!(canonical(one), canonical(other), "{one}");
        }
    }

    #[test]
    fn only_known_units_contradict() {
        assert!(contradict("cm", "m"));
        assert!(contradict("cm", "cm^2"));
        assert!(contradict("$", "¢"));
        assert!(!contradict("cm", "cm"));
        assert!(!contradict("apples", "pears"));
    }
}
