//! The shape of a decoder, adapters, and their files.

pub mod checkpoint;
pub mod config;
pub mod delta;
pub mod embedded;
pub mod files;
pub mod ggml_types;
pub mod gguf;
pub mod gguf_adapter;
mod gguf_header;
pub mod gguf_merge;
mod gguf_metadata;
pub mod gguf_writer;
pub mod hub;
pub mod lora;
pub mod merge;
pub mod pack;
pub mod peft;
pub mod rounding;
pub mod safetensors;
pub mod source;
pub mod tokenizer;
mod tokenizer_file;
pub mod weights;
