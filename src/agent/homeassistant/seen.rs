//! Which classes Home Assistant counts of a pipeline whose rules name none.
//!
//! Not those that the model knows: a classifier of a thousand classes would make a thousand sensors there, most of
//! which never show anything, and a message that no broker takes. But those that were seen, from the first on, and
//! at most [`MOST`]: a class that has its sensor keeps it, whatever comes later, as its history stands under it. The
//! list is kept in the store, so that a restart takes no sensor away, and begins anew with another model (a newer
//! release of the same one is none).

use crate::domain::event::watch::OTHERS;
use crate::domain::{ModelName, PipelineName};
use crate::sys::blocking::blocking;
use crate::sys::store::{Store, Tree};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Classes of a pipeline that are counted because they were seen.
pub const MOST: usize = 32;

/// The lists of all pipelines.
pub struct Seen {
    tree: Tree<List>,
    lists: BTreeMap<PipelineName, List>,
    /// What the store has was read; nothing is written before.
    taken_up: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct List {
    /// Whose classes they are.
    model: Option<ModelName>,
    /// In the order in which they were seen.
    classes: Vec<String>,
    /// It was told that there are more.
    #[serde(skip)]
    told: bool,
}

impl Seen {
    /// As this store keeps them.
    pub fn kept_in(store: &Store) -> Self {
        Self { tree: store.tree("homeassistant"), lists: BTreeMap::new(), taken_up: false }
    }

    /// Adds what a pipeline has seen since the agent's start, by the model that serves now; gives all that are
    /// counted.
    pub async fn of(
        &mut self,
        pipeline: &PipelineName,
        model: Option<&ModelName>,
        since_start: impl Iterator<Item = String>,
    ) -> Vec<String> {
        self.take_up().await;
        let list = self.lists.entry(pipeline.clone()).or_default();
        let before = list.clone();
        list.see(model, since_start);
        if list.told && !before.told {
            tracing::warn!(
                %pipeline,
                "homeassistant: more classes than {MOST} were seen, the others are not counted there; name those that \
                 matter in the pipeline's events.classes"
            );
        }
        let list = list.clone();
        let classes = list.classes.clone();
        if self.taken_up && (&list.model, &list.classes) != (&before.model, &before.classes) {
            let (tree, key) = (self.tree.clone(), pipeline.to_string());
            if let Err(reason) = blocking(move || Ok(tree.put(&key, &list)?)).await {
                tracing::warn!("homeassistant: which classes were seen is not kept: {reason}");
            }
        }
        classes
    }

    /// Reads what the store has, once it can be read.
    async fn take_up(&mut self) {
        if self.taken_up {
            return;
        }
        let tree = self.tree.clone();
        let Ok(kept) = blocking(move || Ok(tree.entries()?)).await else { return };
        self.taken_up = true;
        for (name, mut kept) in kept {
            let Ok(pipeline) = name.parse::<PipelineName>() else { continue };
            let meanwhile = self.lists.remove(&pipeline).unwrap_or_default();
            kept.see(meanwhile.model.as_ref(), meanwhile.classes.into_iter());
            self.lists.insert(pipeline, kept);
        }
    }
}

impl List {
    /// `model` is none where nothing serves now.
    fn see(&mut self, model: Option<&ModelName>, classes: impl Iterator<Item = String>) {
        if model.is_some() && self.model.as_ref() != model {
            self.classes.clear();
            self.model = model.cloned();
        }
        for class in classes {
            if self.classes.contains(&class) || class == OTHERS {
                continue;
            }
            if self.classes.len() >= MOST {
                self.told = true;
                return;
            }
            self.classes.push(class);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(names: std::ops::Range<usize>) -> impl Iterator<Item = String> {
        names.map(|n| format!("class {n:03}"))
    }

    fn model(name: &str) -> Option<ModelName> {
        Some(name.parse().unwrap())
    }

    #[test]
    fn the_first_that_are_seen_keep_their_place() {
        let mut list = List::default();
        list.see(model("a").as_ref(), classes(900..910));
        list.see(model("a").as_ref(), classes(0..1000));
        assert_eq!((list.classes.len(), list.told), (MOST, true));
        let wanted: Vec<String> = classes(900..910).chain(classes(0..MOST - 10)).collect();
        assert_eq!(list.classes, wanted);
        let before = list.clone();
        list.see(None, std::iter::empty());
        list.see(model("a").as_ref(), classes(0..3));
        assert_eq!(list, before);
        list.see(model("b").as_ref(), classes(7..8));
        assert_eq!(list.classes, classes(7..8).collect::<Vec<_>>());
        list.see(model("b").as_ref(), std::iter::once(OTHERS.to_owned()));
        assert_eq!(list.classes.len(), 1, "what stands for many is no class");
    }

    #[tokio::test]
    async fn they_are_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let main: PipelineName = "main".parse().unwrap();
        for (again, names) in [(0, 5..7), (1, 2..4), (2, 0..0)] {
            let store = Store::open(dir.path()).unwrap().store;
            let mut seen = Seen::kept_in(&store);
            let told = seen.of(&main, model("a").as_ref(), classes(names)).await;
            let wanted: Vec<String> =
                classes(5..7).chain(classes(2..4)).take(if again == 0 { 2 } else { 4 }).collect();
            assert_eq!(told, wanted, "start {again}");
            store.sync().unwrap();
        }
    }
}
