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
            | "limits" | "mathop" | "angle" | "triangle" | "mathbin" | "mathrel" | "vec" | "overrightarrow"
            | "boldsymbol" | "bm" | "bf" | "it" | "hline" | "nonumber" | "tiny" | "small" | "normalsize" | "large"
            | "Large" | "LARGE" | "huge" | "Huge" | "," | ";" | ":" | "!" | " " | "(" | ")" | "[" | "]" | "/"
            | "\n" => {
                return Ok(());
            }
            "text" | "textbf" | "textit" | "textrm" | "textnormal" | "texttt" | "textsf" | "mbox" | "hbox"
            | "mathrm" | "mathbf" | "mathit" | "mathsf" | "mathtt" | "operatorname" | "rm" => return self.text(name),
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
            "bmod" | "pmod" | "mod" => MathToken::Mod,
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
        let content = self.group_text(command)?.trim_matches(|c: char| c.is_whitespace() || c == '~').to_string();
        self.spaced = true;
        let after_quantity = matches!(self.out.last(), Some(MathToken::Number(_) | MathToken::Close(_)));
        let measure = unit::read(&content).1.is_some_and(|it| it.is_known());
        if measure && after_quantity {
            self.out.push(MathToken::Word(content));
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

    /// Words in sequence: `and`, `or` and a colon become separate tokens.
    fn words(&mut self, text: &str) {
        let mut words: Vec<&str> = Vec::new();
        let flush = |words: &mut Vec<&str>, out: &mut Vec<MathToken>| {
            if !words.is_empty() {
                out.push(MathToken::Word(words.join(" ")));
                words.clear();
            }
        };
        for word in text.split(|c: char| c.is_whitespace() || c == '~').filter(|it| !it.is_empty()) {
            let joiner = match word {
                "and" => Some(Joiner::And),
                "or" => Some(Joiner::Or),
                _ => None,
            };
            if let Some(joiner) = joiner {
                flush(&mut words, &mut self.out);
                self.out.push(MathToken::Comma(joiner));
            } else if matches!(word, "percent") {
                flush(&mut words, &mut self.out);
                self.out.push(MathToken::Percent);
            } else if word == "in" && matches!(self.out.last(), Some(MathToken::Symbol(_))) && bracket_next(self.rest) {
                self.out.push(MathToken::Relation(Relation::In));
            } else if word == "to" && matches!(self.out.last(), Some(MathToken::Number(_))) && text.trim() == "to" {
                self.out.push(MathToken::Colon);
            } else if word.starts_with(|c: char| c.is_ascii_digit())
                && self.out.last() == Some(&MathToken::Colon)
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
        let set = match letter.as_str() {
            "R" => NamedSet::Reals,
            "Z" => NamedSet::Integers,
            "N" => NamedSet::Naturals,
            "Q" => NamedSet::Rationals,
            "C" => NamedSet::Complex,
            _ => {
                self.out.push(MathToken::Symbol(letter));
                return Ok(());
            }
        };
        self.out.push(MathToken::Set(set));
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

/// Commands that represent a quantity.
const SYMBOLS: [&str; 36] = [
    "pi", "theta", "alpha", "beta", "gamma", "delta", "epsilon", "lambda", "mu", "nu", "rho", "sigma", "tau", "phi",
    "omega", "psi", "xi", "eta", "zeta", "kappa", "chi", "ell", "Delta", "Omega", "Gamma", "Lambda", "Sigma", "Theta",
    "Phi", "Psi", "Pi", "Xi", "infty", "iota", "imath", "hbar",
];
