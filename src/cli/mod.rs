pub mod config;
pub mod config_args;
