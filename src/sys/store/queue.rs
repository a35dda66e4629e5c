//! Values in the order they came.

use super::{Batch, COUNTS, Live, StoreError, Tree};
use serde::{Serialize, de::DeserializeOwned};

/// Values of one type in the order they came, each with a number that rises and is never used again.
#[derive(Debug)]
pub struct Queue<T> {
    pub(super) tree: Tree<T>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { tree: self.tree.clone() }
    }
}

impl<T> Queue<T> {
    /// How many values there are; reads all keys.
    pub fn len(&self) -> Result<usize, StoreError> {
        self.tree.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        self.tree.is_empty()
    }

    /// Removes the value with this number; no error when there is none. Durable after the next sync.
    pub fn remove(&self, number: u64) -> Result<(), StoreError> {
        self.tree.remove(&numbered(number))
    }
}

impl<T: Serialize + DeserializeOwned> Queue<T> {
    /// Appends a value and tells its number. Durable after the next sync, together with all that came
    /// before it.
    pub fn push(&self, value: &T) -> Result<u64, StoreError> {
        let store = &self.tree.store;
        let mut live = store.turn();
        let (batch, numbers) = self.appended(&[value], &live)?;
        store.apply_with(batch, &mut live)?;
        Ok(numbers.first().copied().unwrap_or(0))
    }

    /// Appends values and removes others, all of it or nothing, and tells the numbers of the new ones; durable when
    /// this returns. One change and one sync: the disk is written to far less than for one after the other. Where it
    /// fails it is not tried again.
    pub fn exchange(&self, new: &[&T], gone: &[u64]) -> Result<Vec<u64>, StoreError> {
        let store = &self.tree.store;
        let mut live = store.turn();
        let (mut batch, numbers) = self.appended(new, &live)?;
        gone.iter().for_each(|number| batch.remove(&self.tree, &numbered(*number)));
        store.commit_with(batch, &mut live)?;
        Ok(numbers)
    }

    /// The change that appends values, and their numbers.
    fn appended(&self, values: &[&T], live: &Live) -> Result<(Batch, Vec<u64>), StoreError> {
        let mut batch = Batch::default();
        if values.is_empty() {
            return Ok((batch, Vec::new()));
        }
        let counts = self.tree.store.tree::<u64>(COUNTS);
        let last = counts.get_with(self.tree.name, live)?.unwrap_or(0);
        let numbers: Vec<u64> = (last + 1..).take(values.len()).collect();
        batch.put(&counts, self.tree.name, &(last + values.len() as u64))?;
        for (number, value) in numbers.iter().zip(values) {
            batch.put(&self.tree, &numbered(*number), *value)?;
        }
        Ok((batch, numbers))
    }

    /// The oldest `count` values with their numbers.
    pub fn first(&self, count: usize) -> Result<Vec<(u64, T)>, StoreError> {
        self.after(0, count)
    }

    /// The oldest `count` values with a number above `number`.
    pub fn after(&self, number: u64, count: usize) -> Result<Vec<(u64, T)>, StoreError> {
        let found = self.tree.starting_at(&numbered(number.saturating_add(1)), count)?;
        Ok(found
            .into_iter()
            .map(|(key, value)| (u64::from_str_radix(&key, 16).unwrap_or(0), value))
            .collect())
    }

    /// The value with this number.
    pub fn get(&self, number: u64) -> Result<Option<T>, StoreError> {
        self.tree.get(&numbered(number))
    }
}

/// A number as a key: the order of the texts is the order of the numbers.
fn numbered(number: u64) -> String {
    format!("{number:016x}")
}
