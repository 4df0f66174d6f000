//! The presets in configs/, compiled in.

/// A complete configuration to start from.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    pub name: &'static str,
    pub text: &'static str,
}

pub const PRESETS: [Preset; 3] = [
    Preset { name: "tiny", text: include_str!("../../configs/tiny.toml") },
    Preset { name: "qwen2.5-0.5b", text: include_str!("../../configs/qwen2.5-0.5b.toml") },
    Preset { name: "qwen2.5-7b", text: include_str!("../../configs/qwen2.5-7b.toml") },
];

/// The preset for the embedded model.
pub(super) const TINY: Preset = PRESETS[0];

/// The default preset for other models: its learning rate and lengths suit a real model, for which those of [`TINY`] do not
/// work.
pub(super) const CHECKPOINT: Preset = PRESETS[1];

impl Preset {
    pub fn find(name: &str) -> Option<Preset> {
        PRESETS.into_iter().find(|it| it.name == name)
    }

    /// The command that uses the preset: the first line of the file.
    pub fn command(&self) -> &'static str {
        self.comment(0)
    }

    /// What the preset is for: the second line of the file.
    pub fn description(&self) -> &'static str {
        self.comment(1)
    }

    fn comment(&self, line: usize) -> &'static str {
        self.text.lines().nth(line).unwrap_or_default().trim_start_matches('#').trim()
    }
}
