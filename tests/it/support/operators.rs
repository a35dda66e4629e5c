//! People with keys, the lists they stand on, and the commands they sign.

use edgewarden::trust::envelope::{self, Statement};
use edgewarden::trust::keys::Key;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// Somebody with a key.
pub struct Person {
    /// The key.
    pub key: Key,
    name: &'static str,
}

impl Person {
    /// A key that is always the same for the same number.
    pub fn new(name: &'static str, seed: u8) -> Self {
        Self { key: Key::from_seed(&[seed; 32]).unwrap(), name }
    }

    /// The entry of the list.
    pub fn entry(&self, roles: &[&str]) -> Value {
        json!({ "name": self.name, "key": self.key.public_hex(), "roles": roles })
    }

    /// The same for one group alone.
    pub fn entry_for(&self, roles: &[&str], group: &str) -> Value {
        let mut entry = self.entry(roles);
        entry["groups"] = json!([group]);
        entry
    }

    /// A good command of this moment; its id is made of the number.
    pub fn statement(&self, to: impl ToString, sequence: u64, action: Value) -> Statement {
        let issued = Timestamp::now();
        Statement {
            id: format!("{}-{sequence}", self.name).parse().unwrap(),
            key: self.key.id().parse().unwrap(),
            audience: to.to_string().parse().unwrap(),
            sequence,
            issued,
            expires: issued + Duration::from_secs(600),
            action: action.as_object().unwrap().clone(),
        }
    }

    /// Signs a statement, whatever it says.
    pub fn sign(&self, statement: &Statement) -> String {
        envelope::sign(statement, &self.key).expect("sign")
    }
}

/// A list of operators.
pub fn list(entries: &[Value]) -> Vec<u8> {
    json!({ "format": 1, "operators": entries }).to_string().into_bytes()
}
