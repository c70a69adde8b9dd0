//! Patterns over repositories: `registry.example.com:5000/payroll/*`.
//!
//! State: none. Invariants: at most [`MAX_PARTS`] parts and few enough wildcards in each that a match takes at most the product of both lengths.
//! Absent on purpose: `?`, character classes and negation: rules are read from the first to the last.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A pattern of path parts. `*` stands for anything within a part, `**` for any number of parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
}

/// Registries allow 255 characters of repository; that many parts can't be in them.
const MAX_PARTS: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Any number of parts.
    Any,
    /// One part: text, with `*` in it or not.
    One(String),
}

impl Glob {
    /// Whether the path is meant. It is host and repository: `registry.example.com:5000/payroll/api`.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        wildcard_match(&self.parts, &path, |part| *part == Part::Any, |part, text| part.matches(text))
    }

    /// Whether everything that `other` means is meant by this one as well. It may miss that, and never claims it wrongly.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        // A star of the other is a text that only a star matches.
        let one = |own: &Part, part: &Part| matches!(part, Part::One(text) if own.matches(text));
        wildcard_match(&self.parts, &other.parts, |part| *part == Part::Any, one)
    }

    /// Orders by how specific two patterns are: part by part from the left, plain text beats text with `*` in it (the one with more text first),
    /// that beats `*`, that beats `**`; of two that are alike so far the longer one is more specific.
    #[must_use]
    pub fn cmp_specificity(&self, other: &Self) -> Ordering {
        let of = |glob: &Self| glob.parts.iter().map(Part::specificity).collect::<Vec<_>>();
        of(self).cmp(&of(other))
    }

    /// The pattern's first part, if it is plain text: the registry.
    #[must_use]
    pub fn literal_host(&self) -> Option<&str> {
        match self.parts.first() {
            Some(Part::One(text)) if !text.contains('*') => Some(text),
            _ => None,
        }
    }

    /// All repositories of a registry, given as a host or as `*`.
    pub(crate) fn whole_registry(host: &str) -> Self {
        Self { parts: vec![Part::One(host.to_owned()), Part::Any] }
    }

    /// The same pattern with another text as its first part.
    pub(crate) fn with_host(mut self, host: &str) -> Self {
        if let Some(first) = self.parts.first_mut() {
            *first = Part::One(host.to_owned());
        }
        self
    }

    /// The parts, if all are plain text.
    pub(crate) fn as_literal(&self) -> Option<Vec<&str>> {
        let texts = self.parts.iter().map(|part| match part {
            Part::One(text) if !text.contains('*') => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }
}

impl Part {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(pattern) => {
                let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
                wildcard_match(&pattern, &text, |c| *c == '*', |own, other| own == other)
            }
        }
    }

    /// Rank of the kind, then the number of characters that are text.
    fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::One(text) if text == "*" => (1, 0),
            Self::One(text) if text.contains('*') => (2, text.chars().filter(|c| *c != '*').count()),
            // Two plain texts that match the same path are the same text.
            Self::One(_) => (3, 0),
        }
    }
}

/// Matches a sequence against a pattern in which some elements stand for any number of elements.
///
/// Greedy with one way back: a later star takes over from an earlier one, because whatever the earlier could still swallow the later can as well.
/// So a match costs at most the product of both lengths, not a power.
fn wildcard_match<P, T>(
    pattern: &[P],
    text: &[T],
    is_star: impl Fn(&P) -> bool,
    equal: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut pos) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while pos < text.len() {
        match pattern.get(at) {
            Some(element) if is_star(element) => {
                star = Some((at, pos));
                at += 1;
            }
            Some(element) if equal(element, &text[pos]) => {
                at += 1;
                pos += 1;
            }
            _ => {
                let Some((star_at, swallowed)) = star else { return false };
                star = Some((star_at, swallowed + 1));
                at = star_at + 1;
                pos = swallowed + 1;
            }
        }
    }
    pattern[at..].iter().all(is_star)
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.contains("://") {
            return Err(GlobError::Scheme);
        }
        // Colons and brackets belong to the registry's port and address.
        let known =
            |at: usize, c: char| c.is_ascii_alphanumeric() || "-._*".contains(c) || (at == 0 && ":[]".contains(c));
        let parts = text.split('/').enumerate().map(|(at, part)| match part {
            "" => Err(GlobError::EmptyPart),
            "**" => Ok(Part::Any),
            part if part.contains("**") => Err(GlobError::StarsInPart),
            part if !part.chars().all(|c| known(at, c)) => Err(GlobError::Character),
            part => Ok(Part::One(part.to_owned())),
        });
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        match parts.len() {
            0 | 1 => Err(GlobError::NoRepository),
            2..=MAX_PARTS => Ok(Self { parts }),
            _ => Err(GlobError::TooLong),
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.parts.iter().enumerate() {
            let slash = if at == 0 { "" } else { "/" };
            let text = match part {
                Part::Any => "**",
                Part::One(text) => text,
            };
            write!(f, "{slash}{text}")?;
        }
        Ok(())
    }
}

/// Why a text is not a pattern of repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// A URL.
    #[error("a repository has no scheme: write registry/repository")]
    Scheme,
    /// Two slashes in a row, or one at an end.
    #[error("an empty part: write registry/repository without a slash at an end or two in a row")]
    EmptyPart,
    /// `**` together with text.
    #[error("\"**\" is a part of its own: write team/** for all below team, and team* within a part")]
    StarsInPart,
    /// Something that no repository has.
    #[error(
        "repositories have letters, digits and -._ and wildcards are * and ** alone; tags and digests don't belong here"
    )]
    Character,
    /// No slash.
    #[error("no repository: write registry/repository, as in docker.io/library/*, or registry/** for all")]
    NoRepository,
    /// More parts than a repository can have.
    #[error("more than {MAX_PARTS} parts")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> Glob {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_match() {
        let cases = [
            ("r:5000/payroll/*", "r:5000/payroll/api", true),
            ("r:5000/payroll/*", "r:5000/payroll/api/v1", false),
            ("r:5000/payroll/*", "r:5000/payroll", false),
            ("r/payroll/**", "r/payroll/api/v1", true),
            ("r/payroll/**", "r/payroll", true),
            ("r/payroll/**", "r/payrolls/a", false),
            ("r/**", "r/a", true),
            ("r/**", "s/a", false),
            ("r/**/cuda", "r/cuda", true),
            ("r/**/cuda", "r/ml/x/cuda", true),
            ("r/**/cuda", "r/ml/x/cudas", false),
            ("r/**/a/**/b", "r/a/a/c/b", true),
            ("r/**/a/**/b", "r/b/a", false),
            ("*/library/*", "docker.io/library/nginx", true),
            ("**/nginx", "docker.io/library/nginx", true),
            ("r/team-*/a*c", "r/team-/abc", true),
            ("r/team-*/a*c", "r/team-x/ac", true),
            ("r/team-*/a*c", "r/team-x/ab", false),
            ("r/a", "r/a", true),
            ("r/a", "r/A", false),
            ("[::1]:5/a", "[::1]:5/a", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(glob(pattern).matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn from_the_most_to_the_least_specific() {
        let ranked = ["r/a/b/c", "r/a/b", "r/a/b*d", "r/a/b*", "r/a/*", "r/a/**", "r/*/b", "r/**", "*/a/b", "*/**"];
        for pair in ranked.windows(2) {
            assert_eq!(glob(pair[0]).cmp_specificity(&glob(pair[1])), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(glob("r/a*/x").cmp_specificity(&glob("r/*a/x")), Ordering::Equal);
    }

    #[test]
    fn what_a_pattern_covers() {
        let cases = [
            ("r/**", "r/a/*", true),
            ("r/**", "r/**", true),
            ("r/*", "r/a*", true),
            ("r/*", "r/**", false),
            ("r/a*", "r/*", false),
            ("*/**", "r/**/x", true),
            ("r/**/x", "r/**", false),
            ("r/a", "r/a", true),
            ("r/a", "r/b", false),
        ];
        for (outer, inner, expected) in cases {
            assert_eq!(glob(outer).covers(&glob(inner)), expected, "{outer} {inner}");
        }
    }

    #[test]
    fn malformed_patterns_say_what_to_write() {
        let cases = [
            ("", GlobError::EmptyPart),
            ("r", GlobError::NoRepository),
            ("r/", GlobError::EmptyPart),
            ("r//a", GlobError::EmptyPart),
            ("r/a**", GlobError::StarsInPart),
            ("r/***", GlobError::StarsInPart),
            ("https://r/a", GlobError::Scheme),
            ("r/a b", GlobError::Character),
            ("r/a?", GlobError::Character),
            ("r/a:1", GlobError::Character),
            ("r/é", GlobError::Character),
            ("r/a@sha256:0", GlobError::Character),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Glob>(), Err(error), "{text}");
        }
        assert_eq!(["a"; MAX_PARTS + 1].join("/").parse::<Glob>(), Err(GlobError::TooLong));
    }

    /// The definition, without any care for time.
    fn by_definition(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                by_definition(rest, text) || (!text.is_empty() && by_definition(pattern, &text[1..]))
            }
            ([a, rest @ ..], [b, more @ ..]) => a == b && by_definition(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_match_is_what_the_definition_says(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            let found = wildcard_match(&pattern, &text, |c| *c == '*', |a, b| a == b);
            prop_assert_eq!(found, by_definition(&pattern, &text));
        }

        #[test]
        fn what_is_covered_is_matched(outer in "r(/[ab*]{1,2}){1,3}", inner in "r(/[ab*]{1,2}){1,3}", path in "r(/[ab]{1,2}){1,3}") {
            if let (Ok(outer), Ok(inner)) = (outer.parse::<Glob>(), inner.parse::<Glob>())
                && outer.covers(&inner)
                && inner.matches(&path)
            {
                prop_assert!(outer.matches(&path));
            }
        }

        #[test]
        fn what_is_printed_parses_back(text in "[a-b*./é ]{0,12}") {
            if let Ok(pattern) = text.parse::<Glob>() {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }
}
