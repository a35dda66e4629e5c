//! What whoever runs the broker and the repository needs to let the device in. Pure.

use crate::config::Settings;
use crate::domain::Reason;
use crate::mqtt::topics::{Audience, Topics};
use serde::Serialize;

/// What the broker has to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grants {
    /// The user name that the device says; absent where it says none.
    pub username: Option<String>,
    /// Lines for mosquitto's `acl_file`.
    pub acl: Vec<String>,
    /// The command that adds the user to mosquitto's `password_file`.
    pub password: Option<String>,
}

impl Grants {
    /// Those of a device; `None` without a broker.
    ///
    /// # Errors
    /// For a root that cannot be part of a topic.
    pub fn of(settings: &Settings) -> Result<Option<Self>, Reason> {
        let Some(mqtt) = &settings.mqtt else { return Ok(None) };
        let topics = Topics::new(&mqtt.root)?;
        let device = &settings.device;
        let audiences = std::iter::once(Audience::Device(device.id.clone()))
            .chain(device.groups.iter().cloned().map(Audience::Group));
        let mut acl: Vec<String> = mqtt.username.iter().map(|user| format!("user {user}")).collect();
        acl.push(format!("topic write {}", topics.all_of(&device.id)));
        // Replies go where the asker wants them; ours wants them here.
        acl.push(format!("topic write {}", topics.operator_replies("+")));
        acl.extend(audiences.map(|audience| format!("topic read {}", topics.commands(&audience))));
        let user = mqtt.username.clone();
        let password =
            user.as_ref().map(|user| format!("sudo mosquitto_passwd /etc/mosquitto/passwd {user}"));
        Ok(Some(Self { username: user, acl, password }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, from_text};
    use std::path::Path;

    fn grants(text: &str) -> Option<Grants> {
        let around = Surroundings { hostname: "pi-4".into(), ..Surroundings::default() };
        Grants::of(&from_text(text, Path::new("/etc/edgewarden"), &around).unwrap()).unwrap()
    }

    #[test]
    fn a_device_may_say_what_is_its_own_and_hear_its_commands() {
        let text = "[device]\nid = \"press-7\"\ngroups = [\"line-3\"]\n\
                    [mqtt]\nurl = \"mqtt://b\"\nusername = \"press\"\npassword_file = \"/p\"\nroot = \"works\"\n";
        let grants = grants(text).unwrap();
        assert_eq!(
            grants.acl,
            [
                "user press",
                "topic write works/press-7/#",
                "topic write works/_reply/+",
                "topic read works/press-7/cmd/+/+",
                "topic read works/group/line-3/cmd/+/+",
            ]
        );
        assert_eq!(grants.password.unwrap(), "sudo mosquitto_passwd /etc/mosquitto/passwd press");
    }

    #[test]
    fn without_a_name_there_is_no_user_and_without_a_broker_nothing() {
        let grants_of = grants;
        let open = grants_of("[mqtt]\nurl = \"mqtt://b\"\n").unwrap();
        assert_eq!((open.username, open.password), (None, None));
        assert_eq!(open.acl[0], "topic write edgewarden/pi-4/#");
        assert_eq!(grants_of(""), None);
    }
}
