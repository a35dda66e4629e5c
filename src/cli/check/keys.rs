//! What the check says of keys: those that open encrypted models, and those of the models' makers.

use super::Finding;
use crate::bundle::secret;
use crate::config::Settings;
use crate::trust::model_signature::PublicKey;

/// One finding for each file that the configuration names; the device's own key only where it is wrong.
pub fn findings(settings: &Settings) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, path) in settings.model_keys().into_iter().enumerate() {
        let own = at == 0;
        if own && !path.exists() {
            continue;
        }
        match secret::read_keys(&path) {
            Ok(_) if own => {}
            Ok(keys) => {
                let all: Vec<_> = keys.iter().map(|key| key.recipient().to_string()).collect();
                found.push(Finding::ok("model key", format!("{}: of {}", path.display(), all.join(", "))));
            }
            // Another user than the agent's may not read it, which is as it should be.
            Err(fault) => found.push(Finding::warn("model key", fault)),
        }
    }
    for path in &settings.update.require_model_signature {
        found.push(match PublicKey::load(path) {
            Ok(key) => Finding::ok("model signer", format!("{}: key {}", path.display(), key.id())),
            Err(reason) => Finding::fail("model signer", reason.detail),
        });
    }
    found
}
