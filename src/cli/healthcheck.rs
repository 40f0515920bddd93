//! `kitepush healthcheck`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::Url;

use super::ConfigFile;
use super::client::{self, Trust, cause};
use crate::config::{Admin, Environment, Loaded};

/// Shorter than the timeout of usual probes, so that they see our exit status.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Args, Debug)]
pub(super) struct Healthcheck {
    #[command(flatten)]
    config: ConfigFile,
    /// The readiness URL, instead of that of the configuration's admin listener; without a path, /readyz.
    #[arg(long, conflicts_with = "config")]
    url: Option<Url>,
}

impl Healthcheck {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (url, trust) = match self.url {
            Some(mut url) => {
                if url.path() == "/" {
                    url.set_path("/readyz");
                }
                (url, Trust::System)
            }
            None => {
                // Opens no secrets and repeats no warnings: it runs every few seconds.
                let config = Loaded::read(self.config.config.as_deref(), &Environment::of_process()).finish()?;
                // By address, so no certificate is valid for it; and only a status is read.
                (readiness(&config.admin)?, Trust::Anybody)
            }
        };
        let client = client::new(&url, trust, TIMEOUT)?;
        let (status, text) = super::block_on(async {
            let response = client.get(url.clone()).send().await?;
            Ok((response.status(), response.text().await?))
        })
        .map_err(|error| match error.downcast::<reqwest::Error>() {
            Ok(error) => anyhow::anyhow!("{url} cannot be reached: {}", cause(&error)),
            Err(error) => error,
        })?;
        if !status.is_success() {
            bail!("{url} answers {}: {}", status.as_u16(), text.trim());
        }
        Ok(super::say(text.trim())?)
    }
}

fn readiness(admin: &Admin) -> anyhow::Result<Url> {
    let mut address = admin.listen;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{address}/readyz").parse().context("admin.listen makes no URL")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::ServerTls;

    fn url(listen: &str, tls: Option<ServerTls>) -> String {
        readiness(&Admin { listen: listen.parse().unwrap(), tls, ..Admin::default() }).unwrap().to_string()
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        assert_eq!(url("0.0.0.0:9860", None), "http://127.0.0.1:9860/readyz");
        assert_eq!(url("[::]:9860", None), "http://[::1]:9860/readyz");
        assert_eq!(url("10.1.2.3:9860", None), "http://10.1.2.3:9860/readyz");
    }

    #[test]
    fn a_listener_with_a_certificate_is_asked_over_tls() {
        assert_eq!(url("127.0.0.1:9860", Some(ServerTls::default())), "https://127.0.0.1:9860/readyz");
    }
}
