//! LaTeX commands to tokens.

use super::{Lexer, bracket_next, tokens};
use crate::math::function::Function;
use crate::math::limits::Reason;
use crate::math::token::{Bracket, Environment, Joiner, NamedSet, Relation, Token};
use crate::math::unit;

impl Lexer<'_> {
    pub(super) fn command(&mut self) -> Result<(), Reason> {
        let after = &self.rest[1..];
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        // A command is a run of letters or one other character.
        let length = if letters > 0 { letters } else { after.chars().next().map_or(0, char::len_utf8) };
        let name = &after[..length];
        self.skip(1 + length);
        self.spaced = letters == 0;
        let token = match name {
            "left" | "right" => {
                // `\left.` is a bracket that is not there.
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
                // It leaves room for what is not there.
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
            "frac" | "dfrac" | "tfrac" | "cfrac" => Token::Frac,
            "binom" | "dbinom" | "tbinom" => Token::Binom,
            "choose" => Token::Choose,
            "sqrt" => Token::Sqrt,
            "cdot" | "times" | "ast" | "cdotp" => Token::Times,
            "div" | "over" => Token::Slash,
            "pm" => Token::PlusMinus,
            "mp" => Token::MinusPlus,
            "%" => Token::Percent,
            "$" => Token::Currency('$'),
            "pounds" => Token::Currency('£'),
            "euro" => Token::Currency('€'),
            "circ" | "degree" => Token::Degree,
            "prime" => Token::Prime(1),
            "{" | "lbrace" => Token::Open(Bracket::Set),
            "}" | "rbrace" => Token::Close(Bracket::Set),
            "lbrack" => Token::Open(Bracket::Square),
            "rbrack" => Token::Close(Bracket::Square),
            "langle" => Token::Open(Bracket::Angle),
            "rangle" => Token::Close(Bracket::Angle),
            "lfloor" => Token::Open(Bracket::Floor),
            "rfloor" => Token::Close(Bracket::Floor),
            "lceil" => Token::Open(Bracket::Ceiling),
            "rceil" => Token::Close(Bracket::Ceiling),
            "lvert" | "rvert" | "vert" => Token::Bar,
            "mid" => Token::Such,
            "colon" => Token::Colon,
            "&" => Token::Comma(Joiner::And),
            "\\" | "cr" | "newline" => {
                // `\\[2pt]` sets the distance to the next row.
                if self.rest.starts_with('[')
                    && let Some(end) = self.rest.find(']')
                    && self.rest[1..end].ends_with(|c: char| c.is_ascii_alphabetic())
                {
                    self.skip(end + 1);
                }
                Token::Row
            }
            "bmod" | "pmod" | "mod" => Token::Mod,
            "le" | "leq" | "leqslant" | "leqq" => Token::Relation(Relation::AtMost),
            "ge" | "geq" | "geqslant" | "geqq" => Token::Relation(Relation::AtLeast),
            "lt" => Token::Relation(Relation::Less),
            "gt" => Token::Relation(Relation::Greater),
            "ne" | "neq" => Token::Relation(Relation::NotEqual),
            "not" => {
                let rest = self.rest.trim_start();
                match [("=", Relation::NotEqual), ("\\in", Relation::NotIn)].iter().find(|it| rest.starts_with(it.0)) {
                    Some((text, relation)) => {
                        self.rest = &rest[text.len()..];
                        Token::Relation(*relation)
                    }
                    None => return Err("unknown command `\\not`".into()),
                }
            }
            "in" => Token::Relation(Relation::In),
            "notin" => Token::Relation(Relation::NotIn),
            "approx" | "simeq" | "thickapprox" => Token::Relation(Relation::About),
            "cup" => Token::Cup,
            "cap" => Token::Cap,
            "setminus" | "backslash" | "smallsetminus" => Token::Without,
            "emptyset" | "varnothing" | "O" => Token::Set(NamedSet::Empty),
            "R" | "reals" | "Reals" => Token::Set(NamedSet::Reals),
            "Z" => Token::Set(NamedSet::Integers),
            "N" => Token::Set(NamedSet::Naturals),
            "Q" => Token::Set(NamedSet::Rationals),
            "C" => Token::Set(NamedSet::Complex),
            "land" | "wedge" => Token::Comma(Joiner::And),
            "lor" | "vee" => Token::Comma(Joiner::Or),
            "ldots" | "dots" | "cdots" | "dotsc" => Token::Symbol("\\ldots".into()),
            "varphi" => Token::Symbol("\\phi".into()),
            "varepsilon" => Token::Symbol("\\epsilon".into()),
            _ if SYMBOLS.contains(&name) => Token::Symbol(format!("\\{name}")),
            _ => match Function::named(name) {
                Some(function) => Token::Function(function),
                None => return Err(format!("unknown command `\\{}`", name.escape_debug())),
            },
        };
        self.out.push(token);
        Ok(())
    }

    /// The content of the group that comes next, which has no groups of its own.
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

    /// The group of `\text{…}`: words, unless there is mathematics in it.
    fn text(&mut self, command: &str) -> Result<(), Reason> {
        if !self.rest.trim_start().starts_with('{') {
            let rest = self.rest.trim_start();
            // `\rm cm` switches the font and has no group, and `\mathbf v` has a letter.
            if command == "rm" || rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
                self.rest = rest;
                return Ok(());
            }
        }
        let grouping = self.grouping;
        let font = command.starts_with("math");
        let content = self.group_text(command)?.trim_matches(|c: char| c.is_whitespace() || c == '~').to_string();
        self.spaced = true;
        let after_quantity = matches!(self.out.last(), Some(Token::Number(_) | Token::Close(_)));
        let measure = unit::read(&content).1.is_some_and(|it| it.is_known());
        if measure && after_quantity {
            self.out.push(Token::Word(content));
            return Ok(());
        }
        let numeral = self.rest.starts_with('_') && content.contains(|c: char| c.is_ascii_digit());
        if numeral && content.bytes().all(|it| it.is_ascii_digit() || it.is_ascii_uppercase()) {
            self.out.push(Token::Digits(content));
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
            self.out.push(Token::Function(function));
            return Ok(());
        }
        let lone = content.len() == 1 && content.bytes().all(|it| it.is_ascii_alphabetic());
        // In these fonts a lone letter is a constant or a vector more often than a unit.
        if content == "e" || content == "i" || (lone && font && command != "mathrm") {
            self.out.push(Token::Symbol(content));
            return Ok(());
        }
        for (index, part) in content.split([',', ';']).enumerate() {
            if index > 0 {
                self.out.push(Token::Comma(Joiner::Comma));
            }
            self.words(part);
        }
        Ok(())
    }

    /// Words in a row: `and`, `or` and a colon stand apart from the others.
    fn words(&mut self, text: &str) {
        let mut words: Vec<&str> = Vec::new();
        let flush = |words: &mut Vec<&str>, out: &mut Vec<Token>| {
            if !words.is_empty() {
                out.push(Token::Word(words.join(" ")));
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
                self.out.push(Token::Comma(joiner));
            } else if matches!(word, "percent") {
                flush(&mut words, &mut self.out);
                self.out.push(Token::Percent);
            } else if word == "in" && matches!(self.out.last(), Some(Token::Symbol(_))) && bracket_next(self.rest) {
                self.out.push(Token::Relation(Relation::In));
            } else if word == "to" && matches!(self.out.last(), Some(Token::Number(_))) && text.trim() == "to" {
                self.out.push(Token::Colon);
            } else if word.starts_with(|c: char| c.is_ascii_digit())
                && self.out.last() == Some(&Token::Colon)
                && let Ok(number) = tokens(word, self.grouping)
            {
                self.out.extend(number);
            } else if let Some(label) = word.strip_suffix(':') {
                words.push(label);
                flush(&mut words, &mut self.out);
                self.out.push(Token::Colon);
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
                self.out.push(Token::Symbol(letter));
                return Ok(());
            }
        };
        self.out.push(Token::Set(set));
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
        self.out.push(if begins { Token::Begin(environment) } else { Token::End(environment) });
        Ok(())
    }

    /// A name with something over it is another name; over digits and longer names it says nothing.
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
            self.out.push(Token::Symbol(format!("\\{accent} {letter}")));
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

/// Commands that stand for a quantity.
const SYMBOLS: [&str; 36] = [
    "pi", "theta", "alpha", "beta", "gamma", "delta", "epsilon", "lambda", "mu", "nu", "rho", "sigma", "tau", "phi",
    "omega", "psi", "xi", "eta", "zeta", "kappa", "chi", "ell", "Delta", "Omega", "Gamma", "Lambda", "Sigma", "Theta",
    "Phi", "Psi", "Pi", "Xi", "infty", "iota", "imath", "hbar",
];
