//! CoreDNS, which answers for a cluster's Services. Its own main package brings the clients of every cloud; a cluster on one machine takes two plugins.
//!
//! State: none beyond the cache.

use std::path::PathBuf;

use anyhow::Result;

use super::cache;
use super::golang::OwnModule;

const VERSION: &str = "v1.12.4";

const MAIN: &str = r#"package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

func main() {
	dnsserver.Directives = []string{"errors", "kubernetes"}
	coremain.Run()
}
"#;

/// The program, built first if this machine doesn't have it yet.
pub(super) fn program() -> Result<PathBuf> {
    let go_mod = format!("module shoal.dev/tools\n\ngo 1.24.0\n\nrequire github.com/coredns/coredns {VERSION}\n");
    let module =
        OwnModule { program: "coredns", go_mod, main: Some(MAIN), package: ".", linker_flags: "-s -w".to_owned() };
    Ok(cache::provide(&cached_name(), |directory| module.build(directory))?.join("coredns"))
}

pub(super) fn is_cached() -> bool {
    cache::is_cached(&cached_name())
}

fn cached_name() -> String {
    format!("coredns-{VERSION}")
}
