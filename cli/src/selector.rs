//! Label selectors as kubectl writes them: `gpu=a100,zone in (a,b),!spot`.
//!
//! State: none. Absent on purpose: whether a key or a value can be one: the API server says that.

use shoal_api::{LabelSelector, Operator, Requirement};

const EXPECTED: &str = "write labels as kubectl has them, as in gpu=a100,zone in (a,b),!spot";

/// The selector that the text is.
pub(crate) fn parse(text: &str) -> Result<LabelSelector, &'static str> {
    let mut selector = LabelSelector::default();
    let mut depth = 0_u32;
    let parts = text.split(|c: char| {
        depth = match c {
            '(' => depth + 1,
            ')' => depth.saturating_sub(1),
            _ => depth,
        };
        c == ',' && depth == 0
    });
    for part in parts {
        let part = part.trim();
        let requirement = if let Some(key) = part.strip_prefix('!') {
            requirement(key, Operator::DoesNotExist, &[])?
        } else if let Some((key, value)) = part.split_once("!=") {
            requirement(key, Operator::NotIn, &[value])?
        } else if let Some((key, value)) = part.split_once('=') {
            let Requirement { key, .. } = requirement(key, Operator::In, &[value])?;
            let value = value.strip_prefix('=').unwrap_or(value).trim().to_owned();
            // Twice the same label with two values is nobody's: say so instead of forgetting one.
            if selector.match_labels.insert(key, value).is_some() {
                return Err(EXPECTED);
            }
            continue;
        } else if let Some(values) = part.strip_suffix(')') {
            let (words, values) = values.split_once('(').ok_or(EXPECTED)?;
            let (key, operator) = words.trim().split_once(char::is_whitespace).ok_or(EXPECTED)?;
            let operator = match operator.trim() {
                "in" => Operator::In,
                "notin" => Operator::NotIn,
                _ => return Err(EXPECTED),
            };
            requirement(key, operator, &values.split(',').collect::<Vec<_>>())?
        } else {
            requirement(part, Operator::Exists, &[])?
        };
        selector.match_expressions.push(requirement);
    }
    Ok(selector)
}

fn requirement(key: &str, operator: Operator, values: &[&str]) -> Result<Requirement, &'static str> {
    let key = key.trim();
    let is_key = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if key.is_empty() || !key.chars().all(is_key) {
        return Err(EXPECTED);
    }
    let values = values.iter().map(|value| value.trim().to_owned()).collect();
    Ok(Requirement { key: key.to_owned(), operator, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_kubectl_reads_them() {
        let selector = parse("gpu=a100, os==linux,zone in (a, b),!spot,tier!=x,ssd,rack notin (r1)").unwrap();
        let labels: Vec<_> = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["gpu=a100", "os=linux"]);
        let requirements: Vec<_> = selector
            .match_expressions
            .iter()
            .map(|requirement| {
                format!("{} {:?} {}", requirement.key, requirement.operator, requirement.values.join("+"))
            })
            .collect();
        assert_eq!(requirements, ["zone In a+b", "spot DoesNotExist ", "tier NotIn x", "ssd Exists ", "rack NotIn r1"]);
        for text in ["", "a=b,", "=b", "a in b", "a in (b", "a of (b)", "a b", "(a)", "a=b,a=c", "!"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
