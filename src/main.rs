//! The binary: see the library for everything.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything can make a TLS configuration: with no provider installed, rustls refuses to choose one.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("error: a TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    kitepush::cli::run()
}
