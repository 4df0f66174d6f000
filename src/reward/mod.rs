//! Rewards: named, weighted components of a completion's score.
