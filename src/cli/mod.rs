pub mod config;
pub mod config_args;
pub mod prompts;
