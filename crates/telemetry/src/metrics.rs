//! The registry that features put their metrics into, and its text.
//!
//! State: none; a registry belongs to who makes it. Invariant: every name begins with `shoal_`.

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// The media type of the text.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An empty registry. Names are given without the prefix: `pulls` becomes `shoal_pulls_total`.
#[must_use]
pub fn registry() -> Registry {
    Registry::with_prefix("shoal")
}

/// A registry as OpenMetrics text.
#[must_use]
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string fails only if a collector does; half a text has no `# EOF`, so scrapers refuse it.
    if text::encode(&mut text, registry).is_err() {
        tracing::error!("a metric can't be written");
    }
    text
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn names_have_the_prefix_and_the_text_has_its_end() {
        let mut registry = registry();
        let pulls = Counter::<u64>::default();
        registry.register("pulls", "Pulls that were answered", pulls.clone());
        pulls.inc();
        let text = encode(&registry);
        assert!(text.contains("# TYPE shoal_pulls counter\n") && text.contains("\nshoal_pulls_total 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
