//! The README's table of values is what `values.yaml` says: each value with its default and its comment.

use std::fmt::Write as _;
use std::fs;

use crate::helm::chart;
use crate::rendered::compare;

const BEGIN: &str = "<!-- Written from values.yaml by SHOAL_UPDATE=1 cargo test -p shoal-e2e --test chart. -->\n";
const END: &str = "<!-- The end of what is written. -->\n";

/// The values in order: path, default, what the comment before it says. A map has no default and is there if something is said of it; a list that
/// is written in lines shows the first.
fn values(text: &str) -> Vec<(String, String, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut path, mut comment, mut values) = (Vec::<(usize, &str)>::new(), String::new(), Vec::new());
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim_start();
        if let Some(words) = line.strip_prefix("# ") {
            comment = format!("{comment} {words}").trim_start().to_owned();
            continue;
        }
        let said = std::mem::take(&mut comment);
        let Some((key, default)) = line.split_once(':').filter(|_| !line.starts_with("- ")) else { continue };
        path.retain(|(outer, _)| *outer < indent);
        path.push((indent, key));
        let default = match default.trim() {
            "" => lines[at + 1].trim().strip_prefix("- ").map_or_else(String::new, |first| format!("[{{{first}}}]")),
            default => default.to_owned(),
        };
        if !default.is_empty() || !said.is_empty() {
            let dotted = path.iter().map(|(_, key)| *key).collect::<Vec<_>>().join(".");
            values.push((dotted, default, said));
        }
    }
    values
}

#[test]
fn the_readme_has_every_value() {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let body = text.split_once("\n\n").unwrap().1;
    let mut table = String::from("| value | default | |\n|---|---|---|\n");
    for (path, default, words) in values(body) {
        let default = if default.is_empty() { default } else { format!("`{default}`") };
        writeln!(table, "| `{path}` | {default} | {} |", words.replace('|', "\\|")).unwrap();
    }
    let path = chart().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    compare(&path, &format!("{before}{BEGIN}{table}{END}{after}"));
}

#[test]
fn values_are_found_with_their_comments() {
    let text = "a:\n  # First\n  # line.\n  b: 1\n  c: \"\"\n  # Map.\n  d:\n    e: {}\n    # Own.\n    f:\n    - x: 1\ng: 2\n";
    let found = values(text);
    let found: Vec<_> = found.iter().map(|(path, default, words)| [path, default, words].map(String::as_str)).collect();
    assert_eq!(
        found,
        [
            ["a.b", "1", "First line."],
            ["a.c", "\"\"", ""],
            ["a.d", "", "Map."],
            ["a.d.e", "{}", ""],
            ["a.d.f", "[{x: 1}]", "Own."],
            ["g", "2", ""],
        ]
    );
}
