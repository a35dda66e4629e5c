//! A login as the programs want it.

use crate::domain::stream::Login;

/// A user, and the password in both ways that it may be written.
pub(super) struct Secret {
    /// The user's name.
    pub(super) user: String,
    /// As it is.
    pub(super) password: String,
    /// `user:password` as a URL wants it.
    in_url: String,
    /// The password in both ways, which must not be shown.
    pub(super) shown: Vec<String>,
}

impl Secret {
    /// Of a source that has a login.
    pub(super) fn of(login: Option<&Login>, password: Option<&str>) -> Option<Self> {
        let login = login?;
        let password = password.unwrap_or_default();
        // What is neither letter nor digit means something somewhere: in a URL, in ffmpeg's list.
        let encode = |text: &str| -> String {
            let plain = |byte: u8| byte.is_ascii_alphanumeric();
            text.bytes()
                .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
                .collect()
        };
        let in_url = format!("{}:{}", encode(&login.user), encode(password));
        let shown = vec![password.to_owned(), encode(password)];
        Some(Self { user: login.user.clone(), password: password.to_owned(), in_url, shown })
    }

    /// The URL with the login in it.
    pub(super) fn url(&self, url: &str) -> String {
        url.replacen("://", &format!("://{}@", self.in_url), 1)
    }
}
