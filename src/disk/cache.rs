//! The folder for files that can be recreated.

use std::path::PathBuf;

/// `rft` in the user's cache folder; none if the home folder is unknown.
pub fn folder() -> Option<PathBuf> {
    let set = std::env::var_os("XDG_CACHE_HOME").filter(|it| !it.is_empty()).map(PathBuf::from);
    let cache = set.or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    Some(cache.join("rft"))
}
