//! The files of a repository over HTTP. Only this file and the folder beside it name `reqwest`: `access` has
//! the clients with certificates, token and proxy, `explain` says what a failure means.
//!
//! What arrives is trusted by nobody: sizes are bounded while it streams, and digests are the caller's
//! to check. What matters is to get there over a bad link:
//!
//! - A download that broke off goes on where it stopped, also after a restart: `Range` with `If-Range`
//!   (RFC 9110, 13.1.5 and 14.2). The validator (a strong `ETag`, else `Last-Modified`) is kept beside
//!   the file. A server that ignores the range, or whose file has changed, starts again from the front.
//! - Nothing is waited for longer than the stall timeout; a whole download may take as long as it needs, but
//!   a server that only drips counts as silent (`Pace`).
//! - Tries that follow each other without progress are counted; one that came `PROGRESS` bytes further begins
//!   the count anew. A file that begins from the front more than `AFRESH` times must come further than ever
//!   before, so that no server keeps a device busy for ever. Waits between tries grow, with jitter;
//!   `Retry-After` is obeyed up to [`MAX_RETRY_AFTER`].
//! - No compression is asked for: sizes and ranges are those of the signed files.

mod pace;

use crate::config::settings::RepositorySettings;
use crate::domain::{Reason, ReasonCode};
use crate::sys::blocking::blocking;
use crate::sys::durable;
use crate::trust::transport::{BoxFuture, OnBytes, Transport};
use access::{Access, Unsent};
use backon::{BackoffBuilder, ExponentialBuilder};
use explain::{answered, failed, unreachable};
use pace::Pace;
use percent_encoding::percent_decode_str;
use reqwest::header::{self, HeaderMap};
use reqwest::{Response, StatusCode};
use std::borrow::Cow;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use throttle::Throttle;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

mod access;
mod explain;
mod throttle;

/// A try that came so many bytes further counts as progress.
const PROGRESS: u64 = 64 << 10;

/// So often a file may begin from the front without counting as stuck.
const AFRESH: u32 = 3;

/// Longest wait that a server can ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

/// First and longest wait between two tries.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Longest validator that is kept, bytes.
const MAX_VALIDATOR: usize = 512;

/// A repository on a web server.
#[derive(Debug, Clone)]
pub struct HttpTransport {
    access: Arc<Access>,
    base: Url,
    stall: Duration,
    retries: usize,
    throttle: Arc<Throttle>,
    waits: (Duration, Duration),
}

/// Why one try did not succeed.
enum Trouble {
    /// Another try may.
    Passing {
        reason: Reason,
        /// What the server asks to wait.
        wait: Option<Duration>,
    },
    /// No other try will.
    Lasting(Reason),
}

/// From where a download goes on.
struct Resume {
    have: u64,
    validator: Option<String>,
}

impl Trouble {
    fn passing(reason: Reason) -> Self {
        Trouble::Passing { reason, wait: None }
    }
}

impl From<durable::DurableError> for Trouble {
    fn from(error: durable::DurableError) -> Self {
        Trouble::Lasting(error.into())
    }
}

impl HttpTransport {
    /// A client for the repository at `base`, which must be `http` or `https`. Opens no connection yet.
    ///
    /// # Errors
    /// `BadRequest` for another address; `RepositoryUnreachable` where certificates, token or proxy password
    /// cannot be used as they are.
    pub fn new(base: &Url, settings: &RepositorySettings) -> Result<Self, Reason> {
        let base = base.clone();
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            let detail = format!("repository {base}: expected http:// or https://");
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        // Fails when one was installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let access = Arc::new(Access::new(&base, settings)?);
        Ok(Self {
            access,
            base,
            stall: settings.stall_timeout,
            retries: settings.retries.max(1),
            throttle: Arc::new(Throttle::new(settings.rate_limit)),
            waits: WAITS,
        })
    }

    /// The URL of a file. Refuses what could leave the repository.
    fn url(&self, path: &str) -> Result<Url, Reason> {
        let fits =
            |part: &Cow<'_, str>| !matches!(part.as_ref(), "" | "." | "..") && !part.contains(['\\', '\0']);
        // TUF writes the names of roles with %XX, so that a slash in one is not a folder; as part of a URL
        // they are encoded once and not twice.
        let parts: Option<Vec<Cow<'_, str>>> =
            path.split('/').map(|part| percent_decode_str(part).decode_utf8().ok()).collect();
        let mut url = self.base.clone();
        match (url.path_segments_mut(), parts) {
            (Ok(mut segments), Some(parts)) if parts.iter().all(fits) => {
                segments.pop_if_empty().extend(&parts);
            }
            (Ok(_) | Err(()), _) => {
                let detail = format!("repository {}: \"{path}\" is not the path of a file in it", self.base);
                return Err(Reason::new(ReasonCode::Malformed, detail));
            }
        }
        Ok(url)
    }

    /// The waits between tries that follow each other without progress.
    fn waits(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        ExponentialBuilder::default()
            // Without a seed of its own every device would draw the same jitter.
            .with_jitter_seed(getrandom::u64().unwrap_or_else(|_| std::process::id().into()))
            .with_jitter()
            .with_min_delay(self.waits.0)
            .with_max_delay(self.waits.1)
            .with_max_times(self.retries - 1)
            .build()
    }

    /// Sends a request and sorts the answer: `None` when there is no such file.
    async fn ask(&self, url: &Url, resume: Option<Resume>) -> Result<Option<Response>, Trouble> {
        let asked = self.access.get(url, |request| {
            let mut request = request.header(header::ACCEPT_ENCODING, "identity");
            if let Some(Resume { have, validator }) = &resume {
                request = request.header(header::RANGE, format!("bytes={have}-"));
                // Without one (the server sends none, or a power cut took it) the digest still decides.
                if let Some(validator) = validator {
                    request = request.header(header::IF_RANGE, validator);
                }
            }
            request
        });
        let response = match timeout(self.stall, asked).await {
            Ok(Ok(response)) => response,
            Ok(Err(Unsent::Astray(why))) => return Err(Trouble::Lasting(unreachable(url, why))),
            Ok(Err(Unsent::Failed(error))) => {
                let reason = failed(&self.access, url, &error);
                return Err(if error.is_builder() {
                    Trouble::Lasting(reason)
                } else {
                    Trouble::passing(reason)
                });
            }
            Err(_) => return Err(Trouble::passing(self.stalled(url))),
        };
        let status = response.status();
        if let Some(coding) = response.headers().get(header::CONTENT_ENCODING)
            && coding != "identity"
        {
            let what = "the server compresses what was asked for as it is; switch that off for this folder";
            return Err(Trouble::Lasting(unreachable(url, what)));
        }
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(Some(response))
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Err(Trouble::Passing {
                    reason: answered(&self.access, url, status),
                    wait: retry_after(&response),
                })
            }
            _ if status.is_server_error() => Err(Trouble::Passing {
                reason: answered(&self.access, url, status),
                wait: retry_after(&response),
            }),
            _ => Err(Trouble::Lasting(answered(&self.access, url, status))),
        }
    }

    /// The next bytes of a body; `None` at its end.
    async fn chunk(
        &self,
        url: &Url,
        response: &mut Response,
        pace: &mut Pace,
    ) -> Result<Option<bytes::Bytes>, Trouble> {
        pace.asked(Instant::now());
        match timeout(self.stall, response.chunk()).await {
            Ok(Ok(Some(chunk))) if pace.is_dripping(chunk.len(), Instant::now()) => {
                Err(Trouble::passing(unreachable(url, &pace.told())))
            }
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(Trouble::passing(failed(&self.access, url, &error))),
            Err(_) => Err(Trouble::passing(self.stalled(url))),
        }
    }

    fn stalled(&self, url: &Url) -> Reason {
        unreachable(url, &format!("nothing came for {} s; check the network", self.stall.as_secs_f32()))
    }

    async fn get_once(&self, url: &Url, max: u64) -> Result<Option<Vec<u8>>, Trouble> {
        let Some(mut response) = self.ask(url, None).await? else { return Ok(None) };
        if response.status() != StatusCode::OK {
            return Err(Trouble::Lasting(answered(&self.access, url, response.status())));
        }
        let (mut bytes, mut pace) = (Vec::new(), Pace::new(self.stall, Instant::now()));
        while let Some(chunk) = self.chunk(url, &mut response, &mut pace).await? {
            if (bytes.len() + chunk.len()) as u64 > max {
                let detail =
                    format!("fetch {url}: more than {max} bytes; the repository is damaged or hostile");
                return Err(Trouble::Lasting(Reason::new(ReasonCode::SizeMismatch, detail)));
            }
            bytes.extend_from_slice(&chunk);
            self.throttle.passed(chunk.len()).await;
        }
        Ok(Some(bytes))
    }

    /// One try to complete the file. Whatever came of it, what `into` holds is a beginning of the file.
    async fn download_once(
        &self,
        url: &Url,
        size: u64,
        into: &Path,
        progress: OnBytes<'_>,
    ) -> Result<(), Trouble> {
        let validator_path = validator_path(into);
        let mut have = fs::metadata(into).map_or(0, |meta| meta.len());
        if have > size {
            restart(into, &validator_path)?;
            have = 0;
        }
        progress(have);
        if have == size && into.exists() {
            return finish(into, &validator_path).await;
        }
        let known = fs::read_to_string(&validator_path).ok();
        let resume = (have > 0).then(|| Resume { have, validator: known.clone() });
        let Some(mut response) = self.ask(url, resume).await? else {
            let detail = format!("fetch {url}: the repository does not have it; publish the release again");
            return Err(Trouble::Lasting(Reason::new(ReasonCode::NotFound, detail)));
        };
        match response.status() {
            // It sends the rest of another file, though it was asked not to (RFC 9110, 15.3.7.3).
            StatusCode::PARTIAL_CONTENT
                if known
                    .is_some_and(|known| validator(response.headers()).is_some_and(|new| new != known)) =>
            {
                restart(into, &validator_path)?;
                return Err(Trouble::passing(unreachable(url, "the file changed while it was fetched")));
            }
            StatusCode::PARTIAL_CONTENT => match content_range(response.headers()) {
                Some((first, total)) if first == have && total.is_none_or(|total| total == size) => {}
                Some((first, Some(total))) if first == have => return Err(wrong_size(url, size, total)),
                Some(_) | None => {
                    restart(into, &validator_path)?;
                    return Err(Trouble::passing(unreachable(
                        url,
                        "the answer is not the range that was asked for",
                    )));
                }
            },
            StatusCode::RANGE_NOT_SATISFIABLE => {
                restart(into, &validator_path)?;
                let what = "the server has no bytes from there on, or takes no ranges";
                return Err(Trouble::passing(unreachable(url, what)));
            }
            _ => {
                if let Some(total) = response.content_length()
                    && total != size
                {
                    return Err(wrong_size(url, size, total));
                }
                restart(into, &validator_path)?;
                have = 0;
                if let Some(validator) = validator(response.headers()) {
                    durable::write_atomic(&validator_path, validator.as_bytes())?;
                }
            }
        }
        let mut file = durable::Incoming::open(into, have).await?;
        let mut pace = Pace::new(self.stall, Instant::now());
        let streamed = loop {
            let chunk = match self.chunk(url, &mut response, &mut pace).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break Ok(()),
                Err(trouble) => break Err(trouble),
            };
            if have + chunk.len() as u64 > size {
                break Err(wrong_size(url, size, have + chunk.len() as u64));
            }
            let came = chunk.len();
            if let Err(error) = file.write(chunk).await {
                break Err(error.into());
            }
            have += came as u64;
            progress(have);
            self.throttle.passed(came).await;
        };
        // What came is kept for the next try, whatever ended this one.
        file.close().await?;
        streamed?;
        if have < size {
            return Err(Trouble::passing(unreachable(
                url,
                &format!("broke off after {have} of {size} bytes"),
            )));
        }
        finish(into, &validator_path).await
    }

    async fn download_all(
        &self,
        path: &str,
        size: u64,
        into: &Path,
        progress: OnBytes<'_>,
    ) -> Result<(), Reason> {
        let url = self.url(path)?;
        let mut waits = self.waits();
        let mut furthest = fs::metadata(into).map_or(0, |meta| meta.len());
        let mut afresh = 0;
        loop {
            let trouble = match self.download_once(&url, size, into, progress).await {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            let after = fs::metadata(into).map_or(0, |meta| meta.len());
            if after < furthest && afresh < AFRESH {
                (furthest, afresh) = (0, afresh + 1);
            }
            if after >= furthest.saturating_add(PROGRESS) {
                furthest = after;
                waits = self.waits();
            }
            wait_or_give_up(trouble, &mut waits).await?;
        }
    }

    async fn get_all(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, Reason> {
        let url = self.url(path)?;
        let mut waits = self.waits();
        loop {
            match self.get_once(&url, max).await {
                Ok(found) => return Ok(found),
                Err(trouble) => wait_or_give_up(trouble, &mut waits).await?,
            }
        }
    }
}

impl Transport for HttpTransport {
    fn get<'a>(&'a self, path: &'a str, max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        Box::pin(self.get_all(path, max))
    }

    fn download<'a>(
        &'a self,
        path: &'a str,
        size: u64,
        into: &'a Path,
        progress: OnBytes<'a>,
    ) -> BoxFuture<'a, Result<(), Reason>> {
        Box::pin(self.download_all(path, size, into, progress))
    }
}

/// Waits before the next try; gives the reason back when there is none left.
async fn wait_or_give_up(trouble: Trouble, waits: &mut impl Iterator<Item = Duration>) -> Result<(), Reason> {
    match trouble {
        Trouble::Lasting(reason) => Err(reason),
        Trouble::Passing { reason, wait } => {
            let Some(next) = waits.next() else { return Err(reason) };
            let wait = wait.map_or(next, |asked| asked.min(MAX_RETRY_AFTER).max(next));
            tracing::info!(%reason, wait_ms = wait.as_millis() as u64, "fetching again");
            sleep(wait).await;
            Ok(())
        }
    }
}

fn validator_path(into: &Path) -> PathBuf {
    let mut name = into.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".validator");
    into.with_file_name(name)
}

/// Forgets what came so far.
fn restart(into: &Path, validator: &Path) -> Result<(), Trouble> {
    // Removed, not truncated: other names of the same file must keep their bytes.
    durable::remove_file_synced(into)?;
    Ok(durable::remove_file_synced(validator)?)
}

/// The file is whole: makes it durable, which can take seconds on a slow card.
async fn finish(into: &Path, validator: &Path) -> Result<(), Trouble> {
    let (into, validator) = (into.to_owned(), validator.to_owned());
    let synced = blocking(move || {
        durable::sync_file(&into)?;
        durable::remove_file_synced(&validator)?;
        Ok(durable::sync_dir(into.parent().unwrap_or(Path::new(".")))?)
    });
    synced.await.map_err(Trouble::Lasting)
}

/// What `If-Range` may carry: a strong entity tag, else the date of the last change.
fn validator(headers: &HeaderMap) -> Option<String> {
    let strong = headers.get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    let found = strong.or_else(|| headers.get(header::LAST_MODIFIED))?.to_str().ok()?;
    (found.len() <= MAX_VALIDATOR).then(|| found.to_owned())
}

/// First byte and whole length from `Content-Range: bytes 5-9/10` (or `/*`).
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let first = range.split_once('-')?.0.trim().parse().ok()?;
    let total = if total == "*" { None } else { Some(total.trim().parse().ok()?) };
    Some((first, total))
}

/// Seconds from `Retry-After`; its other form, a date, is left to our own waits.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn wrong_size(url: &Url, size: u64, total: u64) -> Trouble {
    let detail = format!(
        "fetch {url}: has {total} bytes or more where {size} were signed; the repository is damaged or hostile"
    );
    Trouble::Lasting(Reason::new(ReasonCode::SizeMismatch, detail))
}

#[cfg(test)]
mod tests;
