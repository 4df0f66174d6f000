//! Converts LaTeX commands to tokens.

use super::{Lexer, bracket_next, tokens};
use crate::math::function::Function;
use crate::math::limits::Reason;
use crate::math::token::{Bracket, Environment, Joiner, MathToken, NamedSet, Relation};
use crate::math::unit;

impl Lexer<'_> {
    pub(super) fn command(&mut self) -> Result<(), Reason> {
        let after = &self.rest[1..];
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        // A command is a sequence of letters or one other character.
        let length = if letters > 0 { letters } else { after.chars().next().map_or(0, char::len_utf8) };
        let name = &after[..length];
        self.skip(1 + length);
        self.spaced = letters == 0;
        let token = match name {
            "left" | "right" => {
                // `\left.` is an invisible bracket.
                self.eat(".");
                return Ok(());
            }
            "big" | "Big" | "bigg" | "Bigg" | "bigl" | "bigr" | "Bigl" | "Bigr" | "biggl" | "biggr" | "Biggl"
            | "Biggr" | "displaystyle" | "textstyle" | "scriptstyle" | "quad" | "qquad" | "boxed" | "fbox"
            | "limits" | "mathop" | "angle" | "triangle" | "mathbin" | "mathrel" | "nolimits" | "bf" | "it"
            | "hline" | "nonumber" | "tiny" | "small" | "normalsize" | "large" | "Large" | "LARGE" | "huge"
            | "Huge" | "," | ";" | ":" | "!" | " " | "(" | ")" | "[" | "]" | "/" | "\n" => {
                return Ok(());
            }
            "hat" | "widehat" | "mathbf" | "textbf" if self.unit_vector() => return Ok(()),
            "text" | "textbf" | "textit" | "textrm" | "textnormal" | "texttt" | "textsf" | "mbox" | "hbox"
            | "mathrm" | "mathbf" | "mathit" | "mathsf" | "mathtt" | "operatorname" | "rm" => return self.text(name),
            "vec" | "overrightarrow" | "boldsymbol" | "bm" => {
                self.unit_vector();
                return Ok(());
            }
            "phantom" | "hphantom" | "vphantom" => {
                // A phantom only leaves space.
                if self.rest.trim_start().starts_with('{') {
                    self.group_text(name)?;
                } else {
                    self.rest = self.rest.trim_start();
                    self.skip(self.rest.chars().next().map_or(0, char::len_utf8));
                }
                return Ok(());
            }
            "hspace" | "vspace" | "label" | "tag" | "color" | "textcolor" => {
                self.eat("*");
                self.group_text(name)?;
                return Ok(());
            }
            "mathbb" | "mathcal" | "Bbb" => return self.blackboard(),
            "begin" | "end" => return self.environment(name == "begin"),
            "hat" | "bar" | "overline" | "widehat" | "tilde" | "dot" | "underline" => return self.accent(name),
            "frac" | "dfrac" | "tfrac" | "cfrac" => MathToken::Frac,
            "binom" | "dbinom" | "tbinom" => MathToken::Binom,
            "choose" => MathToken::Choose,
            "sqrt" => MathToken::Sqrt,
            "cdot" | "times" | "ast" | "cdotp" => MathToken::Times,
            "div" | "over" => MathToken::Slash,
            "pm" => MathToken::PlusMinus,
            "mp" => MathToken::MinusPlus,
            "%" => MathToken::Percent,
            "$" => MathToken::Currency('$'),
            "pounds" => MathToken::Currency('£'),
            "euro" => MathToken::Currency('€'),
            "circ" | "degree" => MathToken::Degree,
            "prime" => MathToken::Prime(1),
            "{" | "lbrace" => MathToken::Open(Bracket::Set),
            "}" | "rbrace" => MathToken::Close(Bracket::Set),
            "lbrack" => MathToken::Open(Bracket::Square),
            "rbrack" => MathToken::Close(Bracket::Square),
            "langle" => MathToken::Open(Bracket::Angle),
            "rangle" => MathToken::Close(Bracket::Angle),
            "lfloor" => MathToken::Open(Bracket::Floor),
            "rfloor" => MathToken::Close(Bracket::Floor),
            "lceil" => MathToken::Open(Bracket::Ceiling),
            "rceil" => MathToken::Close(Bracket::Ceiling),
            "lvert" | "rvert" | "vert" => MathToken::Bar,
            "mid" => MathToken::Such,
            "colon" => MathToken::Colon,
            "&" => MathToken::Comma(Joiner::And),
            "\\" | "cr" | "newline" => {
                // `\\[2pt]` sets the distance to the next row.
                if self.rest.starts_with('[')
                    && let Some(end) = self.rest.find(']')
                    && self.rest[1..end].ends_with(|c: char| c.is_ascii_alphabetic())
                {
                    self.skip(end + 1);
                }
                MathToken::Row
            }
            "bmod" => MathToken::Modulo,
            "pmod" | "mod" | "pod" => MathToken::Mod,
            "equiv" | "coloneqq" | "triangleq" => MathToken::Relation(Relation::Equal),
            "forall" => MathToken::ForAll,
            "to" | "rightarrow" => MathToken::Arrow,
            "mapsto" => MathToken::MapsTo,
            "sum" => MathToken::Series(Function::Sum),
            "prod" => MathToken::Series(Function::Product),
            "int" => MathToken::Series(Function::Integral),
            "lim" => MathToken::Series(Function::Limit),
            "Pr" => MathToken::Symbol("P".into()),
            "top" | "intercal" => MathToken::Symbol("\\top".into()),
            "le" | "leq" | "leqslant" | "leqq" => MathToken::Relation(Relation::AtMost),
            "ge" | "geq" | "geqslant" | "geqq" => MathToken::Relation(Relation::AtLeast),
            "lt" => MathToken::Relation(Relation::Less),
            "gt" => MathToken::Relation(Relation::Greater),
            "ne" | "neq" => MathToken::Relation(Relation::NotEqual),
            "not" => {
                let rest = self.rest.trim_start();
                match [("=", Relation::NotEqual), ("\\in", Relation::NotIn)].iter().find(|it| rest.starts_with(it.0)) {
                    Some((text, relation)) => {
                        self.rest = &rest[text.len()..];
                        MathToken::Relation(*relation)
                    }
                    None => return Err("unknown command `\\not`".into()),
                }
            }
            "in" => MathToken::Relation(Relation::In),
            "notin" => MathToken::Relation(Relation::NotIn),
            "approx" | "simeq" | "thickapprox" => MathToken::Relation(Relation::About),
            "cup" => MathToken::Cup,
            "cap" => MathToken::Cap,
            "setminus" | "backslash" | "smallsetminus" => MathToken::Without,
            "emptyset" | "varnothing" | "O" => MathToken::Set(NamedSet::Empty),
            "R" | "reals" | "Reals" => MathToken::Set(NamedSet::Reals),
            "Z" => MathToken::Set(NamedSet::Integers),
            "N" => MathToken::Set(NamedSet::Naturals),
            "Q" => MathToken::Set(NamedSet::Rationals),
            "C" => MathToken::Set(NamedSet::Complex),
            "land" | "wedge" => MathToken::Comma(Joiner::And),
            "lor" | "vee" => MathToken::Comma(Joiner::Or),
            "ldots" | "dots" | "cdots" | "dotsc" => MathToken::Symbol("\\ldots".into()),
            "varphi" => MathToken::Symbol("\\phi".into()),
            "varepsilon" => MathToken::Symbol("\\epsilon".into()),
            _ if SYMBOLS.contains(&name) => MathToken::Symbol(format!("\\{name}")),
            _ => match Function::named(name) {
                Some(function) => MathToken::Function(function),
                None => return Err(format!("unknown command `\\{}`", name.escape_debug())),
            },
        };
        self.out.push(token);
        Ok(())
    }

    /// The content of the next group, which has no nested groups.
    fn group_text(&mut self, command: &str) -> Result<&str, Reason> {
        let group = self.rest.trim_start();
        let content = group.strip_prefix('{').ok_or_else(|| format!("`\\{command}` without braces"))?;
        let mut depth = 1;
        let end = content.bytes().position(|byte| {
            depth += i32::from(byte == b'{') - i32::from(byte == b'}');
            depth == 0
        });
        let end = end.ok_or_else(|| format!("cannot read `\\{command}`"))?;
        self.rest = &content[end + 1..];
        Ok(&content[..end])
    }

    /// The group of `\text{…}`: words, unless it contains mathematics.
    fn text(&mut self, command: &str) -> Result<(), Reason> {
        if !self.rest.trim_start().starts_with('{') {
            let rest = self.rest.trim_start();
            // `\rm cm` switches the font and has no group, and `\mathbf v` applies to a letter.
            if command == "rm" || rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
                self.rest = rest;
                return Ok(());
            }
        }
        let grouping = self.grouping;
        let font = command.starts_with("math");
        // Its font separates a unit from the number before it.
        self.apart.push(self.out.len());
        let content = self.group_text(command)?.trim_matches(|c: char| c.is_whitespace() || c == '~').to_string();
        self.spaced = true;
        let after_quantity = matches!(self.out.last(), Some(MathToken::Number(_) | MathToken::Close(_)));
        let measure = unit::read(&content).1.is_some_and(|it| it.is_known());
        if measure && after_quantity {
            self.out.push(MathToken::Word(content));
            return Ok(());
        }
        if let Some(token) = self.letter(&content, command) {
            self.out.push(token);
            return Ok(());
        }
        let numeral = self.rest.starts_with('_') && content.contains(|c: char| c.is_ascii_digit());
        if numeral && content.bytes().all(|it| it.is_ascii_digit() || it.is_ascii_uppercase()) {
            self.out.push(MathToken::Digits(content));
            return Ok(());
        }
        let mathematics = content.contains(['{', '$', '\\', '=', '^'])
            || (content.contains(|c: char| c.is_ascii_digit()) && !content.starts_with(|c: char| c.is_alphabetic()));
        if mathematics && content.len() < self.whole.len() {
            self.out.extend(tokens(&content, grouping)?);
            return Ok(());
        }
        if let Some((_, negative)) = INFINITIES.iter().find(|(words, _)| content.eq_ignore_ascii_case(words)) {
            self.out.extend(negative.then_some(MathToken::Minus));
            self.out.push(MathToken::Symbol("\\infty".into()));
            return Ok(());
        }
        if let Some(function) =
            Function::named(&content).filter(|_| !after_quantity && (command != "mathrm" || content.len() > 2))
        {
            self.out.push(MathToken::Function(function));
            return Ok(());
        }
        let lone = content.len() == 1 && content.bytes().all(|it| it.is_ascii_alphabetic());
        // In these fonts a single letter is more often a constant or a vector than a unit.
        if content == "e" || content == "i" || (lone && font && command != "mathrm") {
            self.out.push(MathToken::Symbol(content));
            return Ok(());
        }
        for (index, part) in content.split([',', ';']).enumerate() {
            if index > 0 {
                self.out.push(MathToken::Comma(Joiner::Comma));
            }
            self.words(part);
        }
        Ok(())
    }

    /// A letter in a font, where it cannot be a unit or a choice: the C of a number of combinations, a set such as
    /// `\mathbf{R}`, the T of a transposed matrix, a constant after a sign.
    fn letter(&self, content: &str, command: &str) -> Option<MathToken> {
        let symbol = |name: &str| Some(MathToken::Symbol(name.into()));
        let rest = self.rest.trim_start();
        if matches!(content, "const" | "const." | "constant") && matches!(self.out.last(), Some(MathToken::Plus)) {
            return symbol("C");
        }
        if content == "Pr" {
            return symbol("P");
        }
        if content == "mod" {
            return Some(MathToken::Mod);
        }
        let [letter] = content.as_bytes() else { return None };
        match (letter, self.out.last()) {
            (b'T' | b't', Some(MathToken::Caret)) => symbol("\\top"),
            (b'T' | b't', Some(MathToken::Open(Bracket::Group)))
                if self.out.iter().rev().nth(1) == Some(&MathToken::Caret) =>
            {
                symbol("\\top")
            }
            (b'C' | b'P' | b'A', _) if rest.starts_with(['_', '^']) && !content.is_empty() => symbol(content),
            (b'C' | b'P', None | Some(MathToken::Relation(_))) if rest.starts_with('(') => symbol(content),
            (b'C' | b'P', Some(MathToken::Close(Bracket::Group))) if rest.starts_with(['_', '^']) => symbol(content),
            (b'R' | b'Z' | b'N' | b'Q' | b'C', _)
                if command != "text" && (self.names_a_set() || self.whole == "\\mathbf{R}") =>
            {
                Some(MathToken::Set(named_set(content)?))
            }
            (
                b'A'..=b'Z' | b'a'..=b'z',
                Some(MathToken::Plus | MathToken::Minus | MathToken::Times | MathToken::PlusMinus),
            ) => symbol(content),
            _ => None,
        }
    }

    /// A unit vector after the command of its accent or font, such as `\hat{\imath}` or `\mathbf{\hat k}`.
    fn unit_vector(&mut self) -> bool {
        const FONTS: [&str; 8] =
            ["\\mathbf", "\\hat", "\\vec", "\\boldsymbol", "\\bm", "\\mathrm", "\\widehat", "\\textbf"];
        let (mut rest, mut depth) = (self.rest.trim_start(), 0);
        for _ in 0..6 {
            if let Some(inner) = rest.strip_prefix('{') {
                (rest, depth) = (inner.trim_start(), depth + 1);
            } else if let Some(inner) = FONTS.iter().find_map(|it| rest.strip_prefix(it)) {
                rest = inner.trim_start();
            }
        }
        let found = [("\\imath", 'i'), ("\\jmath", 'j'), ("i", 'i'), ("j", 'j'), ("k", 'k')]
            .iter()
            .find_map(|(name, axis)| rest.strip_prefix(name).map(|after| (*axis, after)));
        let Some((axis, mut after)) = found else { return false };
        for _ in 0..depth {
            match after.trim_start().strip_prefix('}') {
                Some(outside) => after = outside,
                None => return false,
            }
        }
        self.rest = after;
        self.out.push(MathToken::Symbol(format!("\\hat {axis}")));
        true
    }

    /// Words in sequence: signs in words, `and`, `or` and a colon become separate tokens.
    fn words(&mut self, text: &str) {
        let mut words: Vec<&str> = Vec::new();
        let flush = |words: &mut Vec<&str>, out: &mut Vec<MathToken>| {
            if !words.is_empty() {
                out.push(MathToken::Word(words.join(" ")));
                words.clear();
            }
        };
        let space = |c: char| c.is_whitespace() || c == '~';
        let mut left = text.trim_matches(space);
        // `28\text{-percent}`
        if matches!(self.out.last(), Some(MathToken::Number(_))) && left.starts_with('-') {
            left = left.trim_start_matches('-');
        }
        while !left.is_empty() {
            let (word, rest) = left.split_at(left.find(space).unwrap_or(left.len()));
            left = rest.trim_start_matches(space);
            let joiner = match word {
                "and" => Some(Joiner::And),
                "or" => Some(Joiner::Or),
                _ => None,
            };
            if let Some(joiner) = joiner {
                flush(&mut words, &mut self.out);
                self.out.push(MathToken::Comma(joiner));
                continue;
            }
            if words.is_empty() || word == "negative" || word == "minus" {
                let pending = std::mem::take(&mut words);
                flush(&mut pending.clone(), &mut self.out);
                // What follows the words may be after their group.
                let follows = if left.is_empty() { self.rest } else { left };
                if let Some(used) = self.operation(word, follows) {
                    left = left.get(used..).unwrap_or_default().trim_start_matches(space);
                    continue;
                }
                if !pending.is_empty() {
                    self.out.pop();
                    words = pending;
                }
            }
            if word == "in" && matches!(self.out.last(), Some(MathToken::Symbol(_))) && bracket_next(self.rest) {
                self.out.push(MathToken::Relation(Relation::In));
            } else if word == "to" && matches!(self.out.last(), Some(MathToken::Number(_))) && text.trim() == "to" {
                self.out.push(MathToken::Colon);
            } else if word == "choose"
                && words.is_empty()
                && matches!(self.out.last(), Some(MathToken::Number(_) | MathToken::Close(_) | MathToken::Symbol(_)))
            {
                self.out.push(MathToken::Choose);
            } else if EXCEPTIONS.contains(&word) || (word == "other" && left.starts_with("than")) {
                flush(&mut words, &mut self.out);
                self.out.push(MathToken::Except);
                left = left.strip_prefix("than").unwrap_or(left).trim_start();
                left = left
                    .strip_prefix("not")
                    .filter(|it| it.is_empty() || it.starts_with(space))
                    .unwrap_or(left)
                    .trim_start();
                left = left
                    .strip_prefix("for")
                    .filter(|it| it.is_empty() || it.starts_with(space))
                    .unwrap_or(left)
                    .trim_start();
            } else if word.starts_with(|c: char| c.is_ascii_digit())
                && matches!(self.out.last(), Some(MathToken::Colon | MathToken::Except))
                && let Ok(number) = tokens(word, self.grouping)
            {
                self.out.extend(number);
            } else if let Some(label) = word.strip_suffix(':') {
                words.push(label);
                flush(&mut words, &mut self.out);
                self.out.push(MathToken::Colon);
            } else {
                words.push(word);
            }
        }
        flush(&mut words, &mut self.out);
    }

    /// `\mathbb{R}` is a set, and any other letter a name.
    fn blackboard(&mut self) -> Result<(), Reason> {
        let rest = self.rest.trim_start();
        let letter = match rest.strip_prefix('{') {
            Some(inner) => inner.split('}').next().unwrap_or_default().trim().to_string(),
            None => rest.chars().take(1).collect(),
        };
        let bytes =
            if rest.starts_with('{') { rest.find('}').ok_or("cannot read `\\mathbb`")? + 1 } else { letter.len() };
        self.rest = &rest[bytes..];
        self.out.push(match named_set(&letter) {
            Some(set) => MathToken::Set(set),
            None => MathToken::Symbol(letter),
        });
        Ok(())
    }

    fn environment(&mut self, begins: bool) -> Result<(), Reason> {
        let name = self.group_text("begin")?.trim_end_matches('*').to_string();
        let environment = match name.as_str() {
            "pmatrix" | "bmatrix" | "matrix" | "smallmatrix" | "array" | "Bmatrix" | "psmallmatrix" => {
                Environment::Matrix
            }
            "vmatrix" => Environment::Determinant,
            "cases" | "dcases" | "rcases" => Environment::Cases,
            "aligned" | "align" | "gathered" | "gather" | "split" | "equation" | "eqnarray" => Environment::Lines,
            _ => return Err(format!("unknown environment `{}`", name.escape_debug())),
        };
        if begins && name == "array" {
            self.group_text("begin")?;
        }
        self.out.push(if begins { MathToken::Begin(environment) } else { MathToken::End(environment) });
        Ok(())
    }

    /// A name with an accent is another name; over digits and longer names an accent has no meaning.
    fn accent(&mut self, accent: &str) -> Result<(), Reason> {
        let rest = self.rest.trim_start();
        let letter = match rest.strip_prefix('{') {
            Some(_) => self.group_text(accent)?.trim().to_string(),
            None => {
                let letter: String = rest.chars().take(1).collect();
                self.rest = &rest[letter.len()..];
                letter
            }
        };
        if letter.len() == 1 && letter.bytes().all(|it| it.is_ascii_alphabetic()) && accent != "underline" {
            self.out.push(MathToken::Symbol(format!("\\{accent} {letter}")));
            return Ok(());
        }
        if letter.bytes().all(|it| it.is_ascii_uppercase()) || accent == "underline" {
            let inner = tokens(&letter, self.grouping)?;
            self.out.extend(inner);
            return Ok(());
        }
        Err(format!("cannot read `\\{accent}`"))
    }
}

/// Infinity in words, and whether it is negative.
const INFINITIES: [(&str, bool); 5] = [
    ("infinity", false),
    ("positive infinity", false),
    ("plus infinity", false),
    ("negative infinity", true),
    ("minus infinity", true),
];

/// The set that a letter in a font for sets represents.
fn named_set(letter: &str) -> Option<NamedSet> {
    Some(match letter {
        "R" => NamedSet::Reals,
        "Z" => NamedSet::Integers,
        "N" => NamedSet::Naturals,
        "Q" => NamedSet::Rationals,
        "C" => NamedSet::Complex,
        _ => return None,
    })
}

/// What takes elements away from a set.
const EXCEPTIONS: [&str; 5] = ["except", "excluding", "besides", "without", "but"];

/// Commands that represent a quantity.
const SYMBOLS: [&str; 36] = [
    "pi", "theta", "alpha", "beta", "gamma", "delta", "epsilon", "lambda", "mu", "nu", "rho", "sigma", "tau", "phi",
    "omega", "psi", "xi", "eta", "zeta", "kappa", "chi", "ell", "Delta", "Omega", "Gamma", "Lambda", "Sigma", "Theta",
    "Phi", "Psi", "Pi", "Xi", "infty", "iota", "imath", "hbar",
];
