//! Sums of unit vectors: `2\\hat{\\imath} + 3\\mathbf{j}` is the vector (2, 3).

use num_traits::One;

use super::limits::{Meter, Reason};
use super::quantity::Quantity;
use super::tree::Expr;
use super::value::{Base, Sum, Value};

fn has(quantity: &Quantity, test: impl Fn(&str) -> bool) -> bool {
    quantity.expr.as_ref().is_some_and(|it| it.any(&|node| matches!(node, Expr::Symbol(name) if test(name))))
}

impl Quantity {
    /// Names of unit vectors with an accent or in a font for vectors, with their plain letters.
    pub const AXES: [(&str, &str); 3] = [("\\hat i", "i"), ("\\hat j", "j"), ("\\hat k", "k")];

    /// Whether unit vectors occur that are not plain letters.
    pub fn has_axes(&self) -> bool {
        has(self, |name| Self::AXES.iter().any(|(axis, _)| *axis == name))
    }

    /// The components along the three axes, if it is a sum of multiples of unit vectors. Plain letters count if `j` or `k`
    /// is among them.
    pub fn components(&self, meter: &mut Meter) -> Result<Option<[Value; 3]>, Reason> {
        let marked;
        let mut vector = self;
        if !self.has_axes() {
            if !has(self, |name| name == "j" || name == "k") {
                return Ok(None);
            }
            let names: Vec<(&str, &str)> = Self::AXES.iter().map(|(axis, letter)| (*letter, *axis)).collect();
            let Some(renamed) = self.renamed(&names, meter)? else { return Ok(None) };
            marked = renamed;
            vector = &marked;
        }
        let mut parts = [Sum::default(), Sum::default(), Sum::default()];
        for (product, coefficient) in &vector.value.over.0 {
            let mut rest = product.clone();
            let mut axis = None;
            for (index, (name, _)) in Self::AXES.iter().enumerate() {
                if let Some(power) = rest.remove(&Base::Symbol(name.to_string())) {
                    if axis.is_some() || !power.is_one() {
                        return Ok(None);
                    }
                    axis = Some(index);
                }
            }
            let Some(axis) = axis else { return Ok(None) };
            parts[axis].0.insert(rest, coefficient.clone());
        }
        let under = &vector.value.under;
        let free = |sum: &Sum| {
            sum.all_bases(&|base| !matches!(base, Base::Symbol(name) if Self::AXES.iter().any(|it| it.0 == name)))
        };
        if !free(under) || !parts.iter().all(free) {
            return Ok(None);
        }
        Ok(Some(parts.map(|over| Value { over, under: under.clone() })))
    }
}
