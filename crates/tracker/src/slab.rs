//! Dense tables with indices of their own kind, so that a blob's index can't be used for a node.
//!
//! State: the values and the free places, last freed first.
//! Invariants: an index that [`Slab::insert`] gave is valid until [`Slab::remove`]; using it afterwards is a broken invariant of
//! the caller and panics or finds a stranger, so whoever removes a value removes every index of it first. The order of iteration
//! is that of the places: the same calls give the same order.
//! Absent on purpose: generations in the indices (they are private to this crate and checked by `check_invariants`).

use std::fmt;
use std::marker::PhantomData;

/// An index into a [`Slab`].
pub(crate) trait Key: Copy + Ord + fmt::Debug {
    fn new(index: u32) -> Self;
    fn get(self) -> u32;

    fn at(self) -> usize {
        self.get() as usize
    }
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) struct $name(u32);

        impl Key for $name {
            fn new(index: u32) -> Self {
                Self(index)
            }

            fn get(self) -> u32 {
                self.0
            }
        }
    };
}

key!(
    /// A node that the tracker knows.
    NodeIx
);
key!(
    /// A blob that the tracker knows.
    BlobIx
);
key!(
    /// A member's place in its blob.
    Slot
);

/// Values by index.
#[derive(Debug)]
pub(crate) struct Slab<K, T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
    key: PhantomData<K>,
}

impl<K: Key, T> Slab<K, T> {
    pub(crate) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), key: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn insert(&mut self, value: T) -> K {
        if let Some(index) = self.free.pop() {
            self.places[index as usize] = Some(value);
            return K::new(index);
        }
        let index = u32::try_from(self.places.len()).expect("every table's limit is below 2^32");
        self.places.push(Some(value));
        K::new(index)
    }

    pub(crate) fn remove(&mut self, key: K) -> T {
        let value = self.places[key.at()].take().expect("an index in use has a value");
        self.free.push(key.get());
        value
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        (0_u32..).map(K::new).zip(&self.places).filter_map(|(key, value)| Some((key, value.as_ref()?)))
    }

    /// Every index in use, as a list, for walks that change the table on the way.
    pub(crate) fn keys(&self) -> Vec<K> {
        self.iter().map(|(key, _)| key).collect()
    }
}

impl<K: Key, T> std::ops::Index<K> for Slab<K, T> {
    type Output = T;

    fn index(&self, key: K) -> &T {
        self.places[key.at()].as_ref().expect("an index in use has a value")
    }
}

impl<K: Key, T> std::ops::IndexMut<K> for Slab<K, T> {
    fn index_mut(&mut self, key: K) -> &mut T {
        self.places[key.at()].as_mut().expect("an index in use has a value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_indices_stay() {
        let mut slab: Slab<Slot, &str> = Slab::new();
        let [a, b, c] = ["a", "b", "c"].map(|value| slab.insert(value));
        assert_eq!(slab.remove(b), "b");
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.insert("d"), b);
        assert_eq!(slab.iter().map(|(_, value)| *value).collect::<String>(), "adc");
        assert_eq!((slab[a], slab[c]), ("a", "c"));
        assert_eq!(slab.keys(), [a, b, c]);
    }
}
