//! `rft watch`: a live view of runs in the browser.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::watch::{self, Watched};

/// Follow runs in the browser
///
/// Serves a page on this machine that follows a run, or the runs of a sweep or a folder: metrics, time left, and the newest
/// completions with their rewards. It only reads run directories, so it also shows finished runs. To see it from another
/// machine, forward the port: `ssh -L 8000:localhost:8000 HOST`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft watch
  rft watch runs/tiny-null-example-1
  rft watch sweeps/ppe-study-tiny --port 8000")]
pub struct WatchArgs {
    /// A run, a sweep or a folder with runs
    #[arg(value_name = "DIR", default_value = "runs")]
    path: PathBuf,

    /// Port of the page; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,

    /// IP address to listen on; with another address than this machine's own, everyone who can reach it can read the runs
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
}

pub fn run(args: &WatchArgs) -> Result<()> {
    let watched = Watched::open(&args.path)?;
    let address = SocketAddr::new(args.host, args.port);
    let listener = TcpListener::bind(address).with_context(|| {
        format!("listen on {address}\nhint: pass another --port, or leave it out to take a free one")
    })?;
    let address = listener.local_addr().context("read the port")?;
    if !args.host.is_loopback() {
        eprintln!("warning: everyone who can reach {} can read these runs", args.host);
    }
    println!("http://{address}/");
    eprintln!("watching `{}`; press Ctrl-C to stop", args.path.display());
    watch::serve(listener, watched)
}
