//! What the API server refuses by CEL: the part of [`crate::Swarm::check`] that an expression can say, so that a mistake is told to who makes it.
//!
//! State: none. Invariants: what a rule refuses, `check` refuses too, and each message says what to write instead; a text that is refused is refused by one
//! rule of its field. The server estimates each rule's cost from the schema's bounds and refuses what may be dear, so every list and text that a
//! rule looks at is bounded.
//! Absent on purpose: whether one pattern of repositories covers or is another, and what is inside a caBundle: too dear. The operator says those in a condition.

use std::fmt::Display;

use serde::Serialize;

use crate::{EndpointError, GlobError, HostError, ReferenceError, check};

/// An entry of `x-kubernetes-validations`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    rule: String,
    message: String,
    /// The field below that is to blame, where it isn't the one with the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    field_path: Option<&'static str>,
}

fn rule(rule: impl Into<String>, message: impl Display) -> Rule {
    Rule { rule: rule.into(), message: message.to_string(), field_path: None }
}

fn rule_at(field_path: &'static str, expression: impl Into<String>, message: impl Display) -> Rule {
    Rule { field_path: Some(field_path), ..rule(expression, message) }
}

/// A DNS name or an IPv4 address, or an IPv6 address in brackets (roughly: a second rule reads it).
const NAME: &str =
    r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\])";
/// A port, from 1 to 65535.
const PORT: &str = r"(:0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?";
/// A part of a repository.
const PART: &str = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*";
/// A DNS label of Kubernetes.
const LABEL: &str = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
/// Docker Hub's names.
const HUB: &str = r"(index\.|registry-1\.)?docker\.io";
const HUB_NAMES: &str = "['docker.io', 'index.docker.io', 'registry-1.docker.io']";

/// The whole specification.
pub(crate) fn spec() -> [Rule; 4] {
    // A registry that has the first part of a repository, by any of its names.
    let listed = |repository: &str| {
        format!(
            "{repository}.split('/')[0] in hosts \
             || ({repository}.matches(r'^{HUB}/') && hosts.exists(host, host in {HUB_NAMES}))"
        )
    };
    // A list of one: the way to name a value, so that it is made once and not for each rule.
    let hosts = "[self.registries.map(g, g.host)]";
    let any = "!has(self.registries) || self.registries.exists(g, g.host == '*')";
    [
        rule_at(".registries", "has(self.registries) && self.registries.size() > 0", check::NO_REGISTRIES),
        rule_at(
            ".rules",
            format!(
                "{any} || {hosts}.all(hosts, self.rules.all(r, r.repository.matches(r'^[^/]*[*]') || {}))",
                listed("r.repository")
            ),
            "a rule is for a registry that isn't in spec.registries: add it there, or correct the rule",
        ),
        rule_at(
            ".artifacts",
            format!("{any} || {hosts}.all(hosts, self.artifacts.all(a, {}))", listed("a.reference")),
            "an artifact is in a registry that isn't in spec.registries: add it there, or correct the reference",
        ),
        rule_at(
            ".artifacts",
            "self.mode != 'OriginOnly' || self.artifacts.size() == 0 || self.rules.size() > 0",
            check::PUSHED_FROM_ORIGIN,
        ),
    ]
}

/// The list of registries. Of the same host twice the list's key speaks: hosts are lower case.
pub(crate) fn registries() -> [Rule; 1] {
    [rule(
        format!("self.filter(r, r.host in {HUB_NAMES}).size() <= 1"),
        "docker.io, index.docker.io and registry-1.docker.io are one registry: write one entry, docker.io",
    )]
}

/// A registry.
pub(crate) fn registry() -> [Rule; 3] {
    [
        rule_at(".access", "self.access != 'Shared' || has(self.secretRef)", check::SHARED_WITHOUT_SECRET),
        rule_at(".endpoint", "self.host != '*' || !has(self.endpoint) || self.endpoint == ''", check::ENDPOINT_OF_MANY),
        rule_at(
            ".caBundle",
            "!has(self.caBundle) || self.caBundle == '' || !has(self.endpoint) || !self.endpoint.startsWith('http://')",
            check::BUNDLE_WITHOUT_TLS,
        ),
    ]
}

/// A registry's host.
pub(crate) fn host() -> [Rule; 6] {
    [
        rule("!self.matches('[A-Z]')", check::NOT_LOWER_CASE),
        rule("!self.contains('://')", HostError::Scheme),
        rule("self.contains('://') || !self.contains('/')", HostError::Path),
        rule(format!("!self.matches(r'^{NAME}:[^/]*$') || self.matches(r'^{NAME}{PORT}$')"), HostError::Port),
        rule(format!("self == '*' || self.contains('/') || self.matches(r'^{NAME}(:[^/]*)?$')"), HostError::Name),
        address(r"^\[[0-9A-Fa-f:.]+\](:|$)"),
    ]
}

/// That the brackets of a text which matches this hold an address.
fn address(pattern: &str) -> Rule {
    rule(
        format!("!self.matches(r'{pattern}') || isIP(self.substring(self.indexOf('[') + 1, self.indexOf(']')))"),
        "not an IPv6 address in the brackets: write one, as in [2001:db8::1]:5000",
    )
}

/// A registry's endpoint.
pub(crate) fn endpoint() -> [Rule; 5] {
    let http = "^https?://";
    [
        rule(format!("self == '' || self.matches('{http}')"), EndpointError::Scheme),
        rule(format!("!self.matches('{http}.*@')"), EndpointError::Credentials),
        rule(format!("self.contains('@') || !self.matches('{http}[^/]*(/.|[?#])')"), EndpointError::Path),
        rule(
            format!("!self.matches('{http}[^/@?#]*/?$') || self.matches(r'{http}{NAME}{PORT}/?$')"),
            "not a host behind the scheme: write a DNS name or an address, with :port if it has one",
        ),
        address(&format!(r"{http}\[[0-9A-Fa-f:.]+\](:|/|$)")),
    ]
}

/// A registry's certificates.
pub(crate) fn ca_bundle() -> [Rule; 1] {
    [rule("!self.startsWith('-----')", check::NOT_BASE64)]
}

/// A Secret's name.
pub(crate) fn secret_name() -> [Rule; 1] {
    [rule(format!(r"self.matches(r'^{LABEL}(\.{LABEL})*$')"), check::NOT_A_SECRET)]
}

/// A Secret's namespace.
pub(crate) fn secret_namespace() -> [Rule; 1] {
    [rule(format!("self == '' || self.matches('^{LABEL}$')"), check::NOT_A_NAMESPACE)]
}

/// A rule's repositories.
pub(crate) fn repository() -> [Rule; 8] {
    [
        rule("!self.matches('[A-Z]')", check::NOT_LOWER_CASE),
        rule("!self.contains('://')", GlobError::Scheme),
        rule("self.contains('://') || !self.matches('(^/|//|/$)')", GlobError::EmptyPart),
        rule(r"!self.matches('([^/][*][*]|[*][*][^/])')", GlobError::StarsInPart),
        rule(
            r"self.contains('://') || self.matches(r'^[^/]*(/[A-Za-z0-9._*/-]*)?$') && self.matches(r'^[A-Za-z0-9._*:\[\]-]*(/|$)')",
            GlobError::Character,
        ),
        rule("self.contains('/')", GlobError::NoRepository),
        rule(format!("!self.matches(r'^{HUB}/[^/*]+$')"), check::NOT_ON_HUB),
        rule(
            format!(r"!self.matches(r'^[A-Za-z0-9._:\[\]-]+/([^/]|$)') || self.matches(r'^{NAME}{PORT}/')"),
            "not a registry in front: write its host, with :port if it has one, as in registry.example.com:5000/team/*",
        ),
    ]
}

/// The name of an artifact.
pub(crate) fn artifact_name() -> [Rule; 1] {
    [rule(format!("self.matches('^{LABEL}$')"), check::NOT_A_NAME)]
}

/// What an artifact is.
pub(crate) fn reference() -> [Rule; 9] {
    let named = r"^(localhost|[^/@]*[.:\]][^/@]*)/";
    [
        rule("!self.matches('^[^/]*[A-Z]')", check::NOT_LOWER_CASE),
        rule("!self.contains('://')", HostError::Scheme),
        rule(format!("self.contains('://') || self.matches(r'{named}')"), ReferenceError::NoRegistry),
        rule(
            format!("self.contains('://') || !self.matches(r'{named}') || self.matches(r'^{NAME}{PORT}/')"),
            "not a registry in front: write its host, with :port if it has one",
        ),
        rule(format!("!self.matches(r'^{HUB}/[^/]+$')"), ReferenceError::DockerLibrary),
        rule(
            format!("!self.matches(r'{named}') || self.contains('@') || self.matches(':[^/]*$')"),
            ReferenceError::NoTag,
        ),
        rule(
            format!(
                "self.contains('://') || !self.matches(r'{named}') || self.matches(r'^[^/]+(/{PART})+(:[^/]*)?(@.*)?$')"
            ),
            ReferenceError::Repository,
        ),
        rule(
            "self.contains('://') || !self.matches('/[^/:@]*:') || self.matches('/[^/:@]*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(@.*)?$')",
            ReferenceError::Tag,
        ),
        rule(
            "!self.contains('@') || self.matches('@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$')",
            "not a digest behind the @: write sha256: and 64 hex digits in lower case, or sha512: and 128",
        ),
    ]
}

/// A requirement of a selector.
pub(crate) fn requirement() -> [Rule; 2] {
    let has_values = "has(self.values) && self.values.size() > 0";
    [
        rule_at(".values", format!("!(self.operator in ['In', 'NotIn']) || ({has_values})"), check::VALUES_MISSING),
        rule_at(".values", format!("self.operator in ['In', 'NotIn'] || !({has_values})"), check::VALUES_UNUSED),
    ]
}

/// How nodes exchange content.
pub(crate) fn transfer() -> [Rule; 1] {
    let rechoke =
        "(has(self.rechokeMilliseconds) ? self.rechokeMilliseconds : (self.preset == 'Classic' ? 10000 : 100))";
    [rule_at(
        ".optimisticMilliseconds",
        format!("!has(self.optimisticMilliseconds) || self.optimisticMilliseconds >= {rechoke}"),
        "less than rechokeMilliseconds (Datacenter: 100, Classic: 10000): write at least as much, or leave it out",
    )]
}
