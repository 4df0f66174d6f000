//! The runs that the page shows.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::event::WatchFeed;
use super::run_feed::RunFeed;
use super::table_feed::TableFeed;
use crate::run::dir::is_name;
use crate::run::status;
use crate::sweep::folder::SweepFolder;

/// What `rft watch` was asked to follow.
#[derive(Clone, Debug)]
pub enum Watched {
    Run(PathBuf),
    /// A folder with run directories.
    Folder(PathBuf),
    Sweep(PathBuf),
}

impl Watched {
    /// # Errors
    /// `path` is not a folder. The default folder `runs` may be missing: `rft train` creates it.
    pub fn open(path: &Path) -> Result<Self> {
        let is_sweep = |path: &Path| path.join("sweep.json").is_file();
        if is_sweep(path) || is_sweep(&SweepFolder::of_trials(path)) {
            SweepFolder::open_current(path)?;
            return Ok(Self::Sweep(path.to_owned()));
        }
        if status::is_run(path) {
            return Ok(Self::Run(path.to_owned()));
        }
        if !path.is_dir() && path != Path::new("runs") {
            bail!(
                "`{}` is not a folder\nhint: pass a run, a sweep or a folder with runs, such as `runs`",
                path.display()
            );
        }
        Ok(Self::Folder(path.to_owned()))
    }

    /// A new feed of the run `name`. Without a name: of the run, the folder or the sweep itself. `None` if no run has this name.
    pub fn feed(&self, name: Option<&str>) -> Option<Box<dyn WatchFeed>> {
        let parent = match (self, name) {
            (Self::Run(path), None) => return Some(Box::new(RunFeed::of(path))),
            (Self::Run(_), Some(_)) => return None,
            (Self::Folder(path), None) => return Some(Box::new(TableFeed::of_folder(path))),
            (Self::Sweep(path), None) => return Some(Box::new(TableFeed::of_sweep(path))),
            (Self::Folder(path), Some(_)) => path.clone(),
            // The page shows the trials of a sweep until its own runs start.
            (Self::Sweep(path), Some(_)) => SweepFolder::open_current(path).ok()?.0.path.join("runs"),
        };
        // The name comes from a request and must not lead out of the folder.
        let path = parent.join(name.filter(|name| is_name(name))?);
        status::is_run(&path).then(|| Box::new(RunFeed::of(&path)) as Box<dyn WatchFeed>)
    }
}
