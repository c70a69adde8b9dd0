//! Where a runtime would go for a registry, if it weren't for us: the agent's origin.
//!
//! State: none. It reads as containerd does, so what containerd passes over is passed over here.

use std::path::{Path, PathBuf};

use shoal_api::RegistryHost;
use toml_edit::{Item, TableLike};

use super::journal::Journal;
use super::{HostsError, text, tree};

/// A host that the runtime was told to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// Its API's root, with `/v2` unless the configuration overrides the path; `None`: the registry itself, wherever that is.
    pub api_root: Option<String>,
    /// Whether it may be asked for content.
    pub pull: bool,
    /// Whether it may be asked what a tag means.
    pub resolve: bool,
    /// Files with certificates that sign for it, besides the node's own.
    pub ca: Vec<PathBuf>,
    /// Files with a certificate and its key, the key in the same file if there is no second one.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether its certificate isn't looked at.
    pub skip_verify: bool,
    /// Headers that it gets.
    pub headers: Vec<(String, String)>,
}

/// The hosts that the runtime would ask for a registry, in order; the registry itself is the last one. What we installed is seen past.
///
/// # Errors
/// If the directory can't be read.
pub fn existing_chain(dir: &Path, host: &RegistryHost) -> Result<Vec<Upstream>, HostsError> {
    let root = dir.canonicalize().map_err(|source| HostsError::Directory { path: dir.to_owned(), source })?;
    let journal = Journal::load(&root)?;
    let registry = Upstream { pull: true, resolve: true, ..Upstream::default() };
    let Some((name, original)) = tree::effective(&root, host, &journal)? else { return Ok(vec![registry]) };
    let base = root.join(name);
    if let Some(chain) = original.text.as_deref().and_then(|text| chain(text, &base)) {
        return Ok(chain);
    }
    // No file, or one that the runtime can't read: it takes the certificates in the directory.
    let certificates = original.certificates("");
    let at = |file: String| base.join(file);
    let ca = certificates.ca.into_iter().map(at).collect();
    let client = certificates.client.into_iter().map(|(certificate, key)| (at(certificate), key.map(at))).collect();
    Ok(vec![Upstream { ca, client, ..registry }])
}

fn chain(text: &str, base: &Path) -> Option<Vec<Upstream>> {
    let document = text::parse(text).ok()?;
    let hosts = document.get("host").and_then(Item::as_table_like);
    let mut chain = Vec::new();
    for name in text::hosts_in_order(&document) {
        chain.push(upstream(Some(name), hosts?.get(name)?.as_table_like()?, base)?);
    }
    let root = document.as_table();
    let server = root.get("server").and_then(Item::as_str).filter(|server| !server.is_empty());
    chain.push(upstream(server, root, base)?);
    Some(chain)
}

fn upstream(name: Option<&str>, table: &dyn TableLike, base: &Path) -> Option<Upstream> {
    let is = |key: &str| table.get(key).and_then(Item::as_bool).unwrap_or(false);
    let capabilities = strings(table.get("capabilities"));
    // None given: all.
    let may = |capability: &str| {
        capabilities.is_empty() || capabilities.iter().any(|own| own.eq_ignore_ascii_case(capability))
    };
    let headers = table.get("header").and_then(Item::as_table_like).into_iter().flat_map(|headers| {
        headers.iter().flat_map(|(name, value)| strings(Some(value)).into_iter().map(|value| (name.to_owned(), value)))
    });
    let client = match table.get("client").and_then(Item::as_array) {
        Some(pairs) => pairs.iter().filter_map(|pair| client_pair(pair, base)).collect(),
        None => strings(table.get("client")).into_iter().map(|file| (base.join(file), None)).collect(),
    };
    Some(Upstream {
        api_root: match name {
            Some(name) => Some(api_root(name, is("override_path"))?),
            None => None,
        },
        pull: may("pull"),
        resolve: may("resolve"),
        ca: strings(table.get("ca")).into_iter().map(|file| base.join(file)).collect(),
        client,
        skip_verify: is("skip_verify"),
        headers: headers.collect(),
    })
}

/// A file with both, or certificate and key.
fn client_pair(value: &toml_edit::Value, base: &Path) -> Option<(PathBuf, Option<PathBuf>)> {
    if let Some(file) = value.as_str() {
        return Some((base.join(file), None));
    }
    let pair = value.as_array()?;
    Some((base.join(pair.get(0)?.as_str()?), Some(base.join(pair.get(1)?.as_str()?))))
}

/// A text, or a list of texts.
fn strings(item: Option<&Item>) -> Vec<String> {
    let one = item.and_then(Item::as_str).into_iter();
    let many = item.and_then(Item::as_array).into_iter().flatten().filter_map(toml_edit::Value::as_str);
    one.chain(many).map(str::to_owned).collect()
}

/// As containerd makes it out of a section's name: `https://` unless it says otherwise, and `/v2` behind the path.
fn api_root(name: &str, override_path: bool) -> Option<String> {
    let url = if name.starts_with("http") { name.to_owned() } else { format!("https://{name}") };
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let mut root = format!("{scheme}://{authority}");
    for part in &parts {
        root.push('/');
        root.push_str(part);
    }
    if !override_path && parts.last() != Some(&"v2") {
        root.push_str("/v2");
    }
    Some(root)
}
