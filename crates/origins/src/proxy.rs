//! Proxies on the way to registries, as a command line gives them.
//!
//! State: none. Invariant: a proxy's URL is shown to nobody: it may have a password.
//! Absent on purpose: `HTTPS_PROXY` and its like. What else speaks HTTP in the process, to the API server for example, doesn't go through it.

use clap::Args;
use shoal_oci::ProxyConfig;
use url::Url;

/// Proxies to registries.
#[derive(Args, Clone, Debug, Default)]
pub struct ProxyArgs {
    /// The proxy to registries, http://HOST:PORT: to those that are reached by https …
    #[arg(long, env = "SHOAL_HTTPS_PROXY", hide_env_values = true, value_parser = proxy, value_name = "URL")]
    https_proxy: Option<Url>,
    /// … and to those that are reached by http.
    #[arg(long, env = "SHOAL_HTTP_PROXY", hide_env_values = true, value_parser = proxy, value_name = "URL")]
    http_proxy: Option<Url>,
    /// Registries that are reached without one: hosts, domains with all below them, addresses and networks, separated by commas.
    #[arg(long, env = "SHOAL_NO_PROXY", default_value = "", value_name = "LIST")]
    no_proxy: String,
}

impl ProxyArgs {
    /// As a registry's client wants it.
    #[must_use]
    pub fn config(&self) -> ProxyConfig {
        ProxyConfig { http: self.http_proxy.clone(), https: self.https_proxy.clone(), no_proxy: self.no_proxy.clone() }
    }
}

fn proxy(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or("write http:// or https:// and a host, as in http://proxy.example:3128")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        proxy: ProxyArgs,
    }

    #[test]
    fn proxies_are_urls_with_a_host() {
        let parse = |flags: &str| Cli::try_parse_from(format!("test {flags}").split_whitespace());
        let config =
            parse("--https-proxy http://proxy.example:3128 --no-proxy 10.0.0.0/8,.local").unwrap().proxy.config();
        assert_eq!(config.https.unwrap().as_str(), "http://proxy.example:3128/");
        assert_eq!((config.http, config.no_proxy.as_str()), (None, "10.0.0.0/8,.local"));
        for wrong in ["proxy.example:3128", "socks5://proxy.example", "nonsense"] {
            assert!(parse(&format!("--http-proxy {wrong}")).is_err(), "{wrong}");
        }
    }
}
