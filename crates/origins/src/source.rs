//! The Swarms' document, as the tracker gives it to each node.
//!
//! State: none. Absent on purpose: labels: the tracker's identity provider knows them.

use shoal_api::Document;
use shoal_tracker_server::SwarmSource;

/// A node with labels gets what they select; one whose labels nobody knows gets all, and selects itself.
#[must_use]
pub fn source(document: &Document) -> SwarmSource {
    let document = document.clone();
    SwarmSource::new(move |labels| match labels {
        Some(labels) => document.select(labels).text().into(),
        None => document.text().into(),
    })
}
