//! The order of questions: an endless sequence, epoch after epoch.

use crate::data::order;
use std::cell::RefCell;

/// The order of `len` questions, a function of seed and epoch only.
pub struct Order {
    seed: u64,
    shuffle: bool,
    len: usize,
    /// The permutation of the last requested epoch.
    epoch: RefCell<Option<(u64, Vec<usize>)>>,
}

impl Order {
    /// Without `shuffle`, every epoch has the order of the data.
    pub fn new(seed: u64, shuffle: bool, len: usize) -> Self {
        Self { seed, shuffle, len, epoch: RefCell::new(None) }
    }

    /// The index of the question at `position`, counted over all epochs.
    ///
    /// # Panics
    /// If there are no questions.
    pub fn at(&self, position: u64) -> usize {
        let (epoch, within) = (position / self.len as u64, (position % self.len as u64) as usize);
        if !self.shuffle {
            return within;
        }
        let mut cached = self.epoch.borrow_mut();
        if cached.as_ref().is_none_or(|(known, _)| *known != epoch) {
            *cached = Some((epoch, order::epoch(self.seed, epoch, self.len)));
        }
        cached.as_ref().expect("filled above").1[within]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_every_question_once_in_its_own_order() {
        let order = Order::new(3, true, 50);
        let epoch = |epoch: u64| (epoch * 50..(epoch + 1) * 50).map(|i| order.at(i)).collect::<Vec<_>>();
        let (first, second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        assert_eq!(first, epoch(0));
        for mut epoch in [first, second] {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..50).collect::<Vec<_>>());
        }
        assert_eq!(Order::new(3, false, 50).at(101), 1);
    }
}
