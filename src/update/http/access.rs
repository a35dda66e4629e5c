//! The way to the repository's web server: the clients with whom to trust, what to show, and through which
//! proxy; made anew when a file that they are made from has changed.
//!
//! - What the device shows (a token, a client certificate) goes to the repository's own origin (scheme, host
//!   and port) and nowhere else: redirects are followed here, by a client that has neither.
//! - A token is never sent in the clear: only over `https`, or to this machine itself and then through no
//!   proxy. It is in no log and no error.
//! - Files that cannot be used any more (a certificate whose key is still to come) leave the clients as they
//!   were, and are tried again with the next request.

use super::explain::chain;
use crate::config::settings::{AccessSettings, ProxySettings, RepositorySettings};
use crate::domain::{Reason, ReasonCode};
use crate::sys::secret::{self, Stamp};
use crate::sys::tls::{self, TlsError};
use reqwest::header::{self, HeaderValue};
use reqwest::{Client, NoProxy, Proxy, RequestBuilder, Response, StatusCode, redirect};
use rustls::RootCertStore;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// Redirects followed at most.
pub(super) const MAX_REDIRECTS: usize = 5;

/// The table of the configuration that all of this comes from.
pub(super) const TABLE: &str = "repository";

/// Asks web servers in the repository's name.
pub(super) struct Access {
    base: Url,
    pub(super) settings: AccessSettings,
    connect_timeout: Duration,
    kept: Mutex<Kept>,
}

/// The clients, and how the files were that they were made from.
struct Kept {
    stamps: Vec<Stamp>,
    way: Arc<Way>,
    /// That newer files cannot be used was told.
    told: bool,
}

/// Clients as the files had it at one moment.
struct Way {
    /// For the repository's own origin.
    inside: Client,
    /// For wherever it redirects to.
    outside: Client,
    token: Option<HeaderValue>,
}

/// Why there is no answer.
pub(super) enum Unsent {
    /// Nobody was reached.
    Failed(reqwest::Error),
    /// A redirect that is not followed.
    Astray(&'static str),
}

/// Says nothing of what it holds.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({})", self.base)
    }
}

impl Access {
    /// Makes the clients. Opens no connection.
    ///
    /// # Errors
    /// `RepositoryUnreachable` for files that cannot be used, and for a system without certificate
    /// authorities.
    pub(super) fn new(base: &Url, settings: &RepositorySettings) -> Result<Self, Reason> {
        let (access, connect_timeout) = (settings.access.clone(), settings.stall_timeout);
        let stamps = stamps(&access);
        let way = Arc::new(way(base, &access, connect_timeout)?);
        let kept = Mutex::new(Kept { stamps, way, told: false });
        Ok(Self { base: base.clone(), settings: access, connect_timeout, kept })
    }

    /// The clients by what the files hold now.
    fn way(&self) -> Arc<Way> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the files are read: a change meanwhile is seen the next time.
        let stamps = stamps(&self.settings);
        if stamps != kept.stamps {
            match way(&self.base, &self.settings, self.connect_timeout) {
                Ok(way) => {
                    tracing::info!(repository = %self.base, "token, certificates or proxy password were read anew");
                    *kept = Kept { stamps, way: Arc::new(way), told: false };
                }
                Err(reason) if kept.told => tracing::debug!("{reason}; going on with the former one"),
                Err(reason) => {
                    tracing::warn!("{reason}; going on with the former one");
                    kept.told = true;
                }
            }
        }
        kept.way.clone()
    }

    /// Asks for a file, and follows redirects; `dress` adds to each request.
    pub(super) async fn get(
        &self,
        url: &Url,
        dress: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Unsent> {
        let way = self.way();
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let inside = at.origin() == self.base.origin();
            let mut request = if inside { way.inside.get(at.clone()) } else { way.outside.get(at.clone()) };
            if let (true, Some(token)) = (inside, &way.token) {
                request = request.header(header::AUTHORIZATION, token.clone());
            }
            let response = dress(request).send().await.map_err(Unsent::Failed)?;
            match next(&at, &response)? {
                Some(next) => at = next,
                None => return Ok(response),
            }
        }
        Err(Unsent::Astray("too many redirects; they lead in a circle: see the web server's configuration"))
    }
}

/// Where an answer leads on to; `None` for one that does not.
fn next(at: &Url, response: &Response) -> Result<Option<Url>, Unsent> {
    let leads = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let Some(location) = response.headers().get(header::LOCATION).filter(|_| leads) else { return Ok(None) };
    let next = location.to_str().ok().and_then(|location| at.join(location).ok());
    let Some(mut next) = next.filter(|next| matches!(next.scheme(), "http" | "https")) else {
        return Err(Unsent::Astray("redirected to no web address; check repository.url"));
    };
    if at.scheme() == "https" && next.scheme() != "https" {
        return Err(Unsent::Astray("redirected from https to http"));
    }
    // A name in it would be sent along. These two cannot fail on a web address.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    Ok(Some(next))
}

/// The files that clients are made from.
fn stamps(settings: &AccessSettings) -> Vec<Stamp> {
    let AccessSettings { tls, token_file, proxy } = settings;
    let mut files: Vec<&Path> = tls.ca_file.iter().chain(token_file).map(|path| path.as_path()).collect();
    if let Some((chain, key)) = &tls.client {
        files.extend([chain.as_path(), key.as_path()]);
    }
    if let ProxySettings::Through { login: Some((_, password)), .. } = proxy {
        files.push(password);
    }
    files.into_iter().map(Stamp::of).collect()
}

fn way(base: &Url, settings: &AccessSettings, connect_timeout: Duration) -> Result<Way, Reason> {
    let unreachable = |detail: String| {
        Reason::new(ReasonCode::RepositoryUnreachable, format!("repository {base}: {detail}"))
    };
    let no_tls = |error: TlsError| unreachable(format!("cannot set up TLS: {error}"));
    let AccessSettings { tls, token_file, proxy } = settings;
    let roots = match tls::authorities(TABLE, tls.ca_file.as_deref()) {
        // Over http they are needed only where it leads on to https: a bench or a closed network may have a
        // device without any.
        Err(TlsError::NoAuthorities(_)) if base.scheme() == "http" => Arc::new(RootCertStore::empty()),
        roots => roots.map_err(no_tls)?,
    };
    let shown = tls.client.as_ref().map(|(chain, key)| (chain.as_path(), key.as_path()));
    let token = token_file.as_deref().map(token).transpose().map_err(|fault| unreachable(fault.detail))?;
    let build = |shown| {
        let config = tls::client(TABLE, roots.clone(), shown).map_err(no_tls)?;
        let builder = Client::builder()
            .user_agent(concat!("edgewarden/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(connect_timeout)
            .referer(false)
            .tls_backend_preconfigured(config);
        let builder = match proxy {
            // This machine itself: a token in the clear must not leave it.
            _ if token.is_some() && base.scheme() == "http" => builder.no_proxy(),
            ProxySettings::Environment => builder,
            ProxySettings::Direct => builder.no_proxy(),
            ProxySettings::Through { .. } => {
                builder.proxy(through(proxy).map_err(|fault| unreachable(fault.detail))?)
            }
        };
        builder.build().map_err(|error| unreachable(format!("cannot make a client: {}", chain(&error))))
    };
    let outside = build(None)?;
    let inside = if shown.is_some() { build(shown)? } else { outside.clone() };
    Ok(Way { inside, outside, token })
}

/// What goes into the header from the token's file.
fn token(path: &Path) -> Result<HeaderValue, Reason> {
    let key = "repository.token_file";
    let content = secret::read(key, path)?;
    let token = content.trim_ascii();
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(secret::bad(
            key,
            path,
            "holds more than a token; write only the token into it, on one line",
        ));
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
        .map_err(|_| secret::bad(key, path, "holds no token that can be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn through(settings: &ProxySettings) -> Result<Proxy, Reason> {
    let ProxySettings::Through { url, login, no_proxy } = settings else {
        return Err(Reason::new(ReasonCode::Internal, "there is no proxy"));
    };
    let mut proxy = Proxy::all(url.as_str()).map_err(|_| {
        Reason::new(ReasonCode::BadRequest, format!("repository.proxy {url}: cannot be used"))
    })?;
    if let Some((user, file)) = login {
        let key = "repository.proxy_password_file";
        let password = String::from_utf8(secret::read(key, file)?)
            .map_err(|_| secret::bad(key, file, "holds no text; write the password into it"))?;
        proxy = proxy.basic_auth(user, &password);
    }
    Ok(proxy.no_proxy(NoProxy::from_string(&no_proxy.join(","))))
}
