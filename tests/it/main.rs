//! One integration binary, a module for each promise, so that candle is linked once.

mod config;
