//! Reads a section of a sweep file key by key.

use anyhow::{Result, bail};
use serde::de::DeserializeOwned;

use crate::config::{ConfigKey, Content, Node, ValueOrigin, nearest_name, read_value};

/// The keys of a section, which are taken one by one. Keys that are left at the end are unknown.
pub(super) struct Keys<'a> {
    section: &'static str,
    origin: &'a ValueOrigin,
    left: Vec<(&'a ConfigKey, &'a Node)>,
    taken: Vec<(&'static str, Option<&'a ValueOrigin>)>,
}

impl<'a> Keys<'a> {
    pub fn of(node: &'a Node, section: &'static str) -> Result<Self> {
        let Content::Table(members) = &node.content else {
            bail!("{}: `{section}` is a section, not a value\nhint: write it as [{section}]", node.origin.site());
        };
        let left = members.iter().map(|(key, node)| (key, node)).collect();
        Ok(Self { section, origin: &node.origin, left, taken: Vec::new() })
    }

    pub fn node(&mut self, name: &'static str) -> Option<&'a Node> {
        let at = self.left.iter().position(|(key, _)| key.name == name);
        let node = at.map(|at| self.left.remove(at).1);
        self.taken.push((name, node.map(|it| &it.origin)));
        node
    }

    pub fn take<T: DeserializeOwned>(&mut self, name: &'static str) -> Result<Option<T>> {
        let key = format!("{}.{name}", self.section);
        self.node(name).map(|node| leaf(node, &key)).transpose()
    }

    /// Every table of an array of tables.
    pub fn list<T>(&mut self, name: &'static str, read: impl Fn(&Node) -> Result<T>) -> Result<Vec<T>> {
        let Some(node) = self.node(name) else { return Ok(Vec::new()) };
        let is_table = |it: &Node| matches!(it.content, Content::Table(_));
        match &node.content {
            Content::List(tables) if tables.iter().all(is_table) => tables.iter().map(read).collect(),
            _ => bail!(
                "{}: `{}.{name}` is not a list of tables\nhint: write each as [[{}.{name}]]",
                node.origin.site(),
                self.section,
                self.section
            ),
        }
    }

    /// The position of a key that was taken, or of the section if it does not have the key.
    pub fn origin(&self, name: &str) -> &'a ValueOrigin {
        self.taken.iter().find(|(it, _)| *it == name).and_then(|(_, origin)| *origin).unwrap_or(self.origin)
    }

    pub fn finish(self) -> Result<()> {
        let Some((key, _)) = self.left.first() else { return Ok(()) };
        let names: Vec<&str> = self.taken.iter().map(|(name, _)| *name).collect();
        let hint = match nearest_name(&key.name, names.iter().copied()) {
            Some(meant) => format!("did you mean `{}.{meant}`?", self.section),
            None => format!("valid keys of [{}] are {}", self.section, names.join(", ")),
        };
        bail!("{}: unknown key `{}.{}`\nhint: {hint}", key.origin.site(), self.section, key.name)
    }
}

/// The value of a key, or an error that describes it.
pub(super) fn leaf<T: DeserializeOwned>(node: &Node, key: &str) -> Result<T> {
    read_value(&node.to_value()).map_err(|fault| fault.at(&node.origin, key))
}
