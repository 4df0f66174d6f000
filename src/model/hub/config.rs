//! How to reach the Hub, from the variables that Python's library reads.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// How to reach the hub and where to keep its files.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Address without a slash at its end.
    pub endpoint: String,
    pub cache: PathBuf,
    pub token: Option<Token>,
    /// Use the cache alone.
    pub offline: bool,
    /// How often in a row a download may stop without having brought a byte before it is given up.
    pub retries: u32,
}

/// A secret: goes to the hub and nowhere else.
#[derive(Clone)]
pub struct Token(pub(super) String);

impl Token {
    pub fn new(token: &str) -> Self {
        Self(token.to_owned())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("Token(..)")
    }
}

impl HubConfig {
    /// Reads the variables that Python's library reads: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`,
    /// `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_DISABLE_IMPLICIT_TOKEN` and `HF_HUB_OFFLINE`.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`HubConfig::from_env`], from any source of variables.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|it| !it.trim().is_empty());
        let is_on =
            |name: &str| set(name).is_some_and(|it| ["1", "true", "yes", "on"].contains(&it.to_lowercase().as_str()));
        let folder = |name: &str| set(name).map(PathBuf::from);
        let home = match folder("HF_HOME") {
            Some(home) => home,
            None => folder("XDG_CACHE_HOME")
                .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
                .context("no home folder is known\nhint: set HF_HOME to the folder that shall hold downloads")?
                .join("huggingface"),
        };
        let token = match set("HF_TOKEN") {
            Some(token) => Some(token),
            None if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") => None,
            None => fs::read_to_string(folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"))).ok(),
        };
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        ensure!(
            endpoint.starts_with("https://") || endpoint.starts_with("http://"),
            "HF_ENDPOINT is not an address that begins with https://"
        );
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: folder("HF_HUB_CACHE")
                .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| home.join("hub")),
            token: token.map(|it| Token(it.trim().to_owned())).filter(|it| !it.0.is_empty()),
            offline: is_on("HF_HUB_OFFLINE"),
            retries: 5,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(variables: &[(&str, &str)]) -> HubConfig {
        let find = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.to_owned());
        HubConfig::from_variables(find).unwrap()
    }

    #[test]
    fn variables_mean_what_they_mean_in_python() {
        let plain = config(&[("HF_HOME", "/nowhere/hf")]);
        assert_eq!((plain.endpoint.as_str(), plain.offline), ("https://huggingface.co", false));
        assert_eq!(plain.cache, Path::new("/nowhere/hf/hub"));
        assert!(plain.token.is_none());
        assert_eq!(config(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        let set = config(&[
            ("HF_HOME", "/nowhere/hf"),
            ("HF_HUB_CACHE", "/c"),
            ("HF_ENDPOINT", "https://mirror/"),
            ("HF_TOKEN", " hf_secret\n"),
            ("HF_HUB_OFFLINE", "1"),
        ]);
        assert_eq!(
            (set.endpoint.as_str(), set.cache.as_path(), set.offline),
            ("https://mirror", Path::new("/c"), true)
        );
        assert_eq!(set.token.as_ref().unwrap().0, "hf_secret");
        assert!(!format!("{set:?}").contains("hf_secret"));
        assert!(HubConfig::from_variables(|name| (name == "HF_ENDPOINT").then(|| "ftp://x".into())).is_err());
    }

    #[test]
    fn the_token_file_is_read() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let path = home.path().to_str().unwrap();
        assert_eq!(config(&[("HF_HOME", path)]).token.unwrap().0, "hf_file");
        assert!(config(&[("HF_HOME", path), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token.is_none());
    }
}
