//! What a comparison is given, and which rule decided.

use super::limits::Meter;

/// The budget of a comparison, and the rule that decided last.
pub struct Judge<'a> {
    pub meter: &'a mut Meter,
    pub rule: &'static str,
}

impl<'a> Judge<'a> {
    pub fn with(meter: &'a mut Meter) -> Judge<'a> {
        Judge { meter, rule: "" }
    }

    /// Notes the rule that led to a finding.
    pub fn because(&mut self, rule: &'static str, found: bool) -> bool {
        self.rule = rule;
        found
    }
}
