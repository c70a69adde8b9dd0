//! A table that forgets what was unused for longest when it is full.
//!
//! State: the entries, each with the moment of its last use, counted in uses.
//! Invariants: never more entries than its bound.
//! Absent on purpose: time. What an entry is still worth, its owner knows.

use std::collections::BTreeMap;

/// See the module.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    entries: BTreeMap<K, (u64, V)>,
    uses: u64,
    max: usize,
}

impl<K: Ord + Clone, V> Bounded<K, V> {
    pub(super) const fn new(max: usize) -> Self {
        Self { entries: BTreeMap::new(), uses: 0, max }
    }

    /// An entry, which counts as used now.
    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        self.uses += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.uses;
        Some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if !self.entries.contains_key(&key) && self.entries.len() >= self.max {
            self.forget();
        }
        self.uses += 1;
        self.entries.insert(key, (self.uses, value));
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.entries.retain(|_, (_, value)| keep(value));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (_, value))| (key, value))
    }

    /// Forgets the sixteenth that was unused for longest, so that a full table isn't searched for each new entry.
    fn forget(&mut self) {
        let mut uses: Vec<u64> = self.entries.values().map(|(used, _)| *used).collect();
        let (_, last, _) = uses.select_nth_unstable(self.max / 16);
        let last = *last;
        self.entries.retain(|_, (used, _)| *used > last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let mut table = Bounded::new(16);
        for key in 0..16 {
            table.insert(key, ());
        }
        assert!(table.get(&0).is_some());
        table.insert(16, ());
        let keys: Vec<i32> = table.iter().map(|(key, ())| *key).collect();
        assert!(keys.len() <= 16 && keys.contains(&0) && keys.contains(&16) && !keys.contains(&1), "{keys:?}");
    }

    #[test]
    fn a_full_table_takes_what_it_has_already() {
        let mut table = Bounded::new(1);
        table.insert("a", 1);
        table.insert("a", 2);
        assert_eq!(table.get(&"a"), Some(&mut 2));
        table.insert("b", 3);
        assert_eq!(table.get(&"a"), None);
        assert_eq!(table.iter().count(), 1);
    }
}
