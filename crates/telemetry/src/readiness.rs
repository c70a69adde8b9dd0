//! Whether a process is ready: conditions by name, all of which must hold.
//!
//! State: for each condition, why it doesn't hold. Invariant: a condition that was named holds only when somebody has said so.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// All conditions of a process.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<BTreeMap<&'static str, Option<String>>>>);

/// One condition, for whoever knows whether it holds.
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    all: Readiness,
}

/// A condition that doesn't hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which one.
    pub name: &'static str,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl Readiness {
    /// Without conditions, so ready.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }

    /// Adds a condition, which doesn't hold yet. All are added before the process says that it has started.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition { name, all: self.clone() };
        condition.fails("not yet");
        condition
    }

    /// The conditions that don't hold, by name.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let missing =
            |(name, reason): (&&'static str, &Option<String>)| Some(Missing { name, reason: reason.clone()? });
        self.0.borrow().iter().filter_map(missing).collect()
    }

    /// Returns when all hold.
    pub async fn ready(&self) {
        let mut changes = self.0.subscribe();
        // The sender is this one's own: it can't be gone.
        let _ = changes.wait_for(|conditions| conditions.values().all(Option::is_none)).await;
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Condition {
    /// Says that it holds.
    pub fn holds(&self) {
        self.set(None);
    }

    /// Says that it doesn't, and why, in words for people.
    pub fn fails(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<String>) {
        self.all.0.send_if_modified(|conditions| {
            let changed = conditions.get(self.name) != Some(&reason);
            conditions.insert(self.name, reason);
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_conditions_must_hold() {
        let readiness = Readiness::new();
        readiness.ready().await;
        let (store, tracker) = (readiness.condition("store"), readiness.condition("tracker"));
        store.holds();
        tracker.fails("connection refused");
        let missing: Vec<_> = readiness.missing().iter().map(ToString::to_string).collect();
        assert_eq!(missing, ["tracker: connection refused"]);
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        tracker.holds();
        waiting.await.unwrap();
        store.fails("the disk is full");
        assert_eq!(readiness.missing().len(), 1);
    }
}
