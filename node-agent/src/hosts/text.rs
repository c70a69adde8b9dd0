//! The text of a `hosts.toml`: our section goes in front of all others, and comes out again.
//!
//! State: none. Invariants: [`insert`] changes no byte of what is there, and [`cut`] gives exactly these bytes; what [`insert`] returns names the mirror as the
//! first host, as containerd orders them: by their sections' places in the file.

use std::fmt::Write as _;
use std::path::Path;

use shoal_api::Endpoint;
use toml_edit::{Array, Document, DocumentMut, Item, Table, Value};

use super::Mirror;

/// The marks around our section. People see them too.
const BEGIN: &str = "# Begin of what shoal-agent wrote. \"shoal-agent hosts restore\" takes it back.\n";
const END: &str = "# End of what shoal-agent wrote.\n";

/// A mirror on the node answers a dial at once; a dead one refuses it, and a hanging one costs each pull this much.
const DIAL_TIMEOUT: &str = "200ms";

/// Where the mirror is, as a section is called.
pub(super) fn mirror_url(mirror: &Mirror) -> String {
    format!("http://{}", mirror.address)
}

/// A file where there was none: the mirror first, then the registry. `certificates` are root keys that name what the runtime would have found in the
/// directory by itself, had there been no file.
pub(super) fn fresh(mirror: &Mirror, endpoint: Option<&Endpoint>, certificates: &Certificates) -> String {
    let mut root = Table::new();
    if let Some(endpoint) = endpoint {
        root.insert("server", toml_edit::value(endpoint.to_string()));
    }
    certificates.add_to(&mut root);
    let mut text = format!("{BEGIN}{root}");
    section(&mut text, &mirror_url(mirror), Some(mirror));
    // containerd 1.6 speaks TLS to a server that is plain http unless a section names it.
    if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.is_plain_http()) {
        section(&mut text, &endpoint.to_string(), None);
    }
    text.push_str(END);
    text
}

/// The mirror's section in front of the others.
///
/// # Errors
/// Why the text can't take it, and what to do.
pub(super) fn insert(text: &str, mirror: &Mirror) -> Result<String, String> {
    let document = parse(text)?;
    let mut headers = Vec::new();
    section_starts(document.as_table(), &mut headers);
    let (before, after) = match headers.into_iter().min() {
        Some(header) => text.split_at(with_comments_above(text, header)),
        None => (text, ""),
    };
    let mut result = before.to_owned();
    if !before.is_empty() && !before.ends_with('\n') {
        result.push('\n');
    }
    result.push_str(BEGIN);
    section(&mut result, &mirror_url(mirror), Some(mirror));
    result.push_str(END);
    result.push_str(after);
    match hosts_in_order(&parse(&result).map_err(|_| taken(mirror))?).first() {
        Some(first) if *first == mirror_url(mirror) => Ok(result),
        _ => Err(taken(mirror)),
    }
}

fn taken(mirror: &Mirror) -> String {
    format!(
        "there is no place for the section [host.\"{}\"]: write other hosts as [host.\"…\"] sections, and none for this address",
        mirror_url(mirror)
    )
}

/// The text without our section; `None` if it isn't in there.
pub(super) fn cut(text: &str) -> Option<String> {
    let begin = text.find(BEGIN)?;
    let end = begin + text[begin..].find(END)? + END.len();
    Some(format!("{}{}", &text[..begin], &text[end..]))
}

/// The text for another directory of the same tree: certificates that it names by relative paths are where they were.
pub(super) fn moved_from(text: &str, directory: &str) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error| not_toml(&error))?;
    move_certificates(document.as_table_mut(), directory);
    if let Some(hosts) = document.get_mut("host").and_then(Item::as_table_like_mut) {
        for (_, host) in hosts.iter_mut() {
            if let Some(host) = host.as_table_like_mut() {
                move_certificates(host, directory);
            }
        }
    }
    Ok(document.to_string())
}

fn move_certificates(table: &mut dyn toml_edit::TableLike, directory: &str) {
    for key in ["ca", "client"] {
        if let Some(value) = table.get_mut(key).and_then(Item::as_value_mut) {
            move_paths(value, directory);
        }
    }
}

fn move_paths(value: &mut Value, directory: &str) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|value| move_paths(value, directory)),
        Value::String(path) if Path::new(path.value()).is_relative() => {
            let moved = format!("../{directory}/{}", path.value());
            let decor = path.decor().clone();
            *value = Value::from(moved);
            *value.decor_mut() = decor;
        }
        _ => {}
    }
}

/// The text as TOML.
pub(super) fn parse(text: &str) -> Result<Document<String>, String> {
    Document::parse(text.to_owned()).map_err(|error| not_toml(&error))
}

fn not_toml(error: &toml_edit::TomlError) -> String {
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    format!("not TOML, so the runtime reads nothing of it ({message}): correct or remove it")
}

/// The hosts in the order in which containerd asks them.
pub(super) fn hosts_in_order(document: &Document<String>) -> Vec<&str> {
    let hosts = document.get("host").and_then(Item::as_table).into_iter().flat_map(Table::iter);
    let mut placed: Vec<(usize, &str)> = hosts
        .filter_map(|(name, host)| {
            let mut starts = Vec::new();
            section_starts(host.as_table()?, &mut starts);
            Some((starts.into_iter().min()?, name))
        })
        .collect();
    placed.sort_unstable();
    placed.into_iter().map(|(_, name)| name).collect()
}

/// Where the headers of a table and of those in it are in the text.
fn section_starts(table: &Table, starts: &mut Vec<usize>) {
    if !table.is_implicit() && !table.is_dotted() {
        // The root has no header, and its span begins the text.
        starts.extend(table.span().map(|span| span.start).filter(|_| table.position().is_some()));
    }
    for (_, item) in table.iter() {
        match item {
            Item::Table(table) => section_starts(table, starts),
            Item::ArrayOfTables(tables) => tables.iter().for_each(|table| section_starts(table, starts)),
            _ => {}
        }
    }
}

/// The start of the comments that stand right above a header: they speak of it.
fn with_comments_above(text: &str, header: usize) -> usize {
    let mut start = text[..header].rfind('\n').map_or(0, |newline| newline + 1);
    while start > 0 {
        let line = text[..start - 1].rfind('\n').map_or(0, |newline| newline + 1);
        if !text[line..].trim_start_matches([' ', '\t']).starts_with('#') {
            break;
        }
        start = line;
    }
    start
}

/// A host that is asked for content and for tags. Only the mirror has a header and a short time to answer a dial.
fn section(text: &mut String, url: &str, mirror: Option<&Mirror>) {
    let name = Value::from(url);
    // Writing to a string can't fail.
    let _ = writeln!(text, "[host.{name}]\ncapabilities = [\"pull\", \"resolve\"]");
    if let Some(mirror) = mirror {
        let _ = writeln!(text, "dial_timeout = \"{DIAL_TIMEOUT}\"");
        if let Some(secret) = &mirror.secret {
            let _ = writeln!(text, "[host.{name}.header]\n{} = {}", secret.name, Value::from(secret.value.as_str()));
        }
    }
}

/// Files of a directory without `hosts.toml` that containerd uses by their names: `*.crt`, and `*.cert` with the `*.key` beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Certificates {
    pub(super) ca: Vec<String>,
    /// Certificate, and key if it is in a file of its own.
    pub(super) client: Vec<(String, Option<String>)>,
}

impl Certificates {
    /// Those among a directory's files, as paths that begin with `prefix`.
    pub(super) fn among(mut names: Vec<String>, prefix: &str) -> Self {
        names.sort_unstable();
        let at = |name: &str| format!("{prefix}{name}");
        let ca = names.iter().filter(|name| name.ends_with(".crt")).map(|name| at(name)).collect();
        let client = names.iter().filter_map(|name| {
            let key = format!("{}.key", name.strip_suffix(".cert")?);
            Some((at(name), names.contains(&key).then(|| at(&key))))
        });
        Self { ca, client: client.collect() }
    }

    fn add_to(&self, root: &mut Table) {
        if !self.ca.is_empty() {
            root.insert("ca", toml_edit::value(self.ca.iter().collect::<Array>()));
        }
        if !self.client.is_empty() {
            let pairs = self.client.iter().map(|(certificate, key)| match key {
                Some(key) => Value::from([certificate, key].into_iter().collect::<Array>()),
                None => Value::from(certificate),
            });
            root.insert("client", toml_edit::value(pairs.collect::<Array>()));
        }
    }
}
