//! A TOML text as a tree in which every key and every value has its place in the file.

use std::path::Path;

use anyhow::{Result, anyhow};
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::place::{ValueOrigin, line_and_column};

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub origin: ValueOrigin,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A value that is not an array or a table.
    Value(Value),
    List(Vec<Node>),
    Table(Vec<(ConfigKey, Node)>),
}

/// A name in a table, with its place.
#[derive(Clone, Debug)]
pub(crate) struct ConfigKey {
    pub name: String,
    pub origin: ValueOrigin,
}

impl Node {
    /// The tree of the text of the file at `path`.
    pub fn of_text(text: &str, path: &Path) -> Result<Node> {
        Node::parse(text, &|offset| {
            let (line, column) = line_and_column(text, offset);
            ValueOrigin::File { path: path.to_owned(), line, column }
        })
    }

    /// The tree of a TOML text; `at` converts a byte offset to a place.
    fn parse(text: &str, at: &dyn Fn(usize) -> ValueOrigin) -> Result<Node> {
        let not_toml = |error: toml::de::Error| {
            let origin = at(error.span().map_or(0, |span| span.start));
            anyhow!("{}: invalid TOML: {}", origin.site(), error.message().lines().next().unwrap_or_default())
        };
        // The spanned tree has the places, the plain one has the order and the numbers.
        let spans = DeTable::parse(text).map_err(not_toml)?;
        let values: Table = text.parse().map_err(not_toml)?;
        Ok(Node { origin: at(0), content: Content::Table(members(&values, spans.get_ref(), at)) })
    }

    /// A value with a single place for all of its parts.
    pub fn of_value(value: &Value, origin: &ValueOrigin) -> Node {
        let node = |value| Node::of_value(value, origin);
        let key = |name: &String| ConfigKey { name: name.clone(), origin: origin.clone() };
        let content = match value {
            Value::Array(list) => Content::List(list.iter().map(node).collect()),
            Value::Table(table) => Content::Table(table.iter().map(|(name, value)| (key(name), node(value))).collect()),
            value => Content::Value(value.clone()),
        };
        Node { origin: origin.clone(), content }
    }

    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Value(value) => value.clone(),
            Content::List(list) => Value::Array(list.iter().map(Node::to_value).collect()),
            Content::Table(members) => {
                Value::Table(members.iter().map(|(key, node)| (key.name.clone(), node.to_value())).collect())
            }
        }
    }

    /// Every value below this table with its path, in order. An array counts as one value, and so does an empty table.
    pub fn leaves(&self) -> Vec<(Vec<&ConfigKey>, &Node)> {
        let mut leaves = Vec::new();
        self.visit(&mut Vec::new(), &mut |path, node| leaves.push((path.to_vec(), node)));
        leaves
    }

    fn visit<'a>(&'a self, path: &mut Vec<&'a ConfigKey>, leaf: &mut impl FnMut(&[&'a ConfigKey], &'a Node)) {
        let Content::Table(members) = &self.content else { return leaf(path, self) };
        if members.is_empty() && !path.is_empty() {
            return leaf(path, self);
        }
        for (key, node) in members {
            path.push(key);
            node.visit(path, leaf);
            path.pop();
        }
    }
}

fn members(values: &Table, spans: &DeTable<'_>, at: &dyn Fn(usize) -> ValueOrigin) -> Vec<(ConfigKey, Node)> {
    let member = |(name, value): (&String, &Value)| {
        let (key, span) = spans.iter().find(|(key, _)| key.get_ref() == name)?;
        Some((ConfigKey { name: name.clone(), origin: at(key.span().start) }, node(value, span, at)))
    };
    values.iter().filter_map(member).collect()
}

fn node(value: &Value, span: &Spanned<DeValue<'_>>, at: &dyn Fn(usize) -> ValueOrigin) -> Node {
    let content = match (value, span.get_ref()) {
        (Value::Table(table), DeValue::Table(spans)) => Content::Table(members(table, spans, at)),
        (Value::Array(list), DeValue::Array(spans)) => {
            Content::List(list.iter().zip(spans.iter()).map(|(value, span)| node(value, span, at)).collect())
        }
        (value, _) => Content::Value(value.clone()),
    };
    Node { origin: at(span.span().start), content }
}
