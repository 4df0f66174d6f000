//! The sweeps in configs/sweeps/, compiled in.

/// A sweep that is part of the program.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    pub name: &'static str,
    pub text: &'static str,
}

pub const SHIPPED: [Shipped; 6] = [
    Shipped { name: "doubts-tiny", text: include_str!("../../configs/sweeps/doubts-tiny.toml") },
    Shipped { name: "ppe-study", text: include_str!("../../configs/sweeps/ppe-study.toml") },
    Shipped { name: "ppe-study-tiny", text: include_str!("../../configs/sweeps/ppe-study-tiny.toml") },
    Shipped { name: "reward-controls", text: include_str!("../../configs/sweeps/reward-controls.toml") },
    Shipped { name: "reward-controls-tiny", text: include_str!("../../configs/sweeps/reward-controls-tiny.toml") },
    Shipped { name: "distill-tiny", text: include_str!("../../configs/sweeps/distill-tiny.toml") },
];

impl Shipped {
    pub fn find(name: &str) -> Option<Shipped> {
        SHIPPED.into_iter().find(|it| it.name == name)
    }
}
