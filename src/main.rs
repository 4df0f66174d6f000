//! `rft`: reinforcement fine-tuning with prior prompts.

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = rft::cli::arguments::parse();
    rft::cli::init_logging(cli.verbose);
    #[cfg(target_os = "linux")]
    rft::sandbox::worker::enable();
    match rft::cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            rft::cli::report(&error);
            ExitCode::FAILURE
        }
    }
}
