//! A configuration that is set from afar, on trial: put back where the agent is not well with it.
//!
//! 1. The wish is laid over the drop-in that is there, and judged by the reader of `agent.toml`. What does not hold
//!    is refused, and nothing was changed.
//! 2. A mark is made durable beside the drop-in: what it held before, what it is to hold, what worked, and where the
//!    answer goes. Then the drop-in is replaced, and the agent starts anew in its place.
//! 3. Each start with a mark counts itself in it first. The trial ends well once all that worked before has worked for
//!    a while ([`crate::domain::config_trial`]). Else, or where the configuration cannot be read any more, the agent
//!    cannot start with it, or too many starts end before the verdict, the former drop-in comes back.
//! 4. The verdict is made durable in the mark before anybody is told, and the command is answered by the agent that
//!    runs then. A power cut may have the answer sent twice; it cannot lose it.
//!
//! The mark lies beside the drop-in and not in the state folder, so that it is found before the configuration is read.

use super::audit::{Audit, Subject};
use crate::config::remote::{self, Values};
use crate::config::{self, AsIf, Surroundings};
use crate::domain::command::Progress;
use crate::domain::config_trial::{Before, MAX_STARTS, Verdict, Watch};
use crate::domain::health::HealthReport;
use crate::domain::{Reason, ReasonCode};
use crate::mqtt::{self, ReplyAddress};
use crate::sys::durable::{self, Access};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The mark, beside the drop-in. Not read as configuration, for it does not end in `.toml`.
const MARK: &str = ".90-remote.trial";
/// Largest file that is read back here, bytes.
const MAX_FILE: u64 = 1 << 20;
/// Before a mark is removed whose answer was handed over: what was handed over is durable by then.
const LINGER: Duration = Duration::from_secs(2);

/// What is remembered of a change.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Mark {
    /// Who asked for what.
    subject: Subject,
    /// Where the answer goes.
    answer: Option<ReplyAddress>,
    /// The drop-in before it; `None` where there was none.
    former: Option<String>,
    /// The drop-in that it is.
    wanted: Option<String>,
    /// The values that it holds.
    values: Values,
    /// What worked before it.
    before: Before,
    /// Starts with it.
    starts: u32,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<Progress>,
}

/// Where the drop-in and its mark are.
#[derive(Debug, Clone)]
pub struct Remote {
    config: PathBuf,
    file: PathBuf,
    mark: PathBuf,
}

/// What came of a wish.
pub enum Begun {
    /// It is as it is already.
    AsBefore(Values),
    /// It is on the disk, and the agent must start anew.
    OnTrial,
}

/// Who wants it, and what is to be remembered with it.
pub struct Wish {
    /// What is to be set.
    pub values: Values,
    /// Who asked.
    pub subject: Subject,
    /// Where the answer goes.
    pub answer: Option<ReplyAddress>,
    /// What works now.
    pub before: Before,
}

impl Remote {
    /// Of the configuration with this main file.
    pub fn new(config: &Path) -> Self {
        let file = config::drop_in(config, remote::DROP_IN);
        Self { config: config.to_owned(), mark: file.with_file_name(MARK), file }
    }

    /// Whether a change waits for its verdict.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn is_on_trial(&self) -> Result<bool, Reason> {
        Ok(self.read_mark()?.is_some_and(|mark| mark.end.is_none()))
    }

    /// Judges a wish, and puts it on the disk. Blocks.
    ///
    /// # Errors
    /// `BadRequest` where the configuration would not hold, `Busy` while another is on trial; what cannot be written.
    pub fn begin(&self, wish: Wish) -> Result<Begun, Reason> {
        if self.is_on_trial()? {
            let detail = "set: another change is on its trial; send it again once that one is answered";
            return Err(Reason::new(ReasonCode::Busy, detail));
        }
        let former = read_text(&self.file)?;
        let old = former.as_deref().map_or_else(|| Ok(Values::new()), remote::read)?;
        let values = remote::merge(old.clone(), &wish.values);
        if values == old {
            return Ok(Begun::AsBefore(values));
        }
        let wanted = remote::write(&values)?;
        let as_if = AsIf { file: &self.file, text: wanted.as_deref() };
        config::load_as_if(&self.config, &Surroundings::here(), Some(as_if)).map_err(|faults| {
            let first: Vec<String> =
                faults.0.iter().take(3).map(|fault| format!("{}: {}", fault.key, fault.text)).collect();
            Reason::new(ReasonCode::BadRequest, format!("set: it would not hold: {}", first.join("; ")))
        })?;
        let Wish { subject, answer, before, .. } = wish;
        durable::create_dir_synced(durable::parent_of(&self.file))?;
        let mark =
            Mark { subject, answer, former, wanted: wanted.clone(), values, before, starts: 0, end: None };
        self.write_mark(&mark)?;
        if let Err(reason) = self.put(wanted.as_deref()) {
            // Whatever is there now: a mark without its drop-in ends its trial at the next start.
            let _ = self.put(mark.former.as_deref());
            let _ = durable::remove_file_synced(&self.mark);
            return Err(reason);
        }
        Ok(Begun::OnTrial)
    }

    /// Counts a start, before anything of the configuration is read: a change with too many starts that came to no
    /// verdict is put back. Blocks.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn starts(&self) -> Result<(), Reason> {
        let Some(mut mark) = self.read_mark()? else { return Ok(()) };
        if mark.end.is_some() {
            return Ok(());
        }
        if read_text(&self.file)? != mark.wanted {
            let detail = format!(
                "set: {} did not hold what was wanted when the agent started: a power cut came before it was written, \
                 or somebody changed it; it was left as it is",
                self.file.display()
            );
            mark.end = Some(failed(detail));
            return self.write_mark(&mark);
        }
        if mark.starts >= MAX_STARTS {
            return self.put_back(mark, &format!("the agent ended {MAX_STARTS} times with it")).map(drop);
        }
        mark.starts += 1;
        self.write_mark(&mark)
    }

    /// Puts the former configuration back where a change is on trial, and tells whether it was. Blocks.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn give_up(&self, why: &str) -> Result<bool, Reason> {
        match self.read_mark()? {
            Some(mark) if mark.end.is_none() => self.put_back(mark, why).map(|()| true),
            Some(_) | None => Ok(false),
        }
    }

    /// The drop-in first: with the mark still open, the next start finds another drop-in than the one on trial, and
    /// leaves that as it is.
    fn put_back(&self, mut mark: Mark, why: &str) -> Result<(), Reason> {
        self.put(mark.former.as_deref())?;
        mark.end = Some(failed(format!("set: {why}; the former configuration is in force again")));
        self.write_mark(&mark)
    }

    fn put(&self, text: Option<&str>) -> Result<(), Reason> {
        match text {
            // Whoever may read the rest of the configuration may read this, whatever the service's umask is: the
            // command line of other users reads all of it.
            Some(text) => {
                let access = Access { mode: 0o644, owner: None };
                Ok(durable::write_atomic_for(&self.file, text.as_bytes(), access)?)
            }
            None => Ok(durable::remove_file_synced(&self.file)?),
        }
    }

    fn read_mark(&self) -> Result<Option<Mark>, Reason> {
        // One that cannot be read was not written here; the drop-in beside it is then as good as any.
        Ok(read_text(&self.mark)?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    fn write_mark(&self, mark: &Mark) -> Result<(), Reason> {
        let json = serde_json::to_vec(mark)
            .map_err(|error| Reason::new(ReasonCode::Internal, format!("set: {error}")))?;
        Ok(durable::write_atomic(&self.mark, &json)?)
    }
}

fn failed(detail: String) -> Progress {
    Progress::Failed { reason: Reason::new(ReasonCode::NotWell, detail) }
}

fn read_text(path: &Path) -> Result<Option<String>, Reason> {
    let told = |error: io::Error| {
        Reason::new(ReasonCode::Internal, format!("set: read {}: {error}", path.display()))
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(told(error)),
        Ok(found) if found.len() > MAX_FILE => return Err(told(io::Error::other("it is too large"))),
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(told)
}

/// A change whose command is still to be answered, in the agent that runs with it or after it.
pub struct Trial {
    remote: Remote,
    mark: Mark,
    watch: Watch,
    begun: Instant,
}

/// What the agent does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Look again.
    Wait,
    /// The trial is over, and the command is answered.
    Over,
    /// Start anew, with the former configuration.
    Restart,
}

impl Trial {
    /// The change that is under way, if there is one. Blocks.
    pub fn under_way(remote: Remote, patience: Duration) -> Option<Self> {
        let mark = remote.read_mark().inspect_err(|reason| tracing::warn!("{reason}")).ok()??;
        Some(Self { remote, mark, watch: Watch::new(patience), begun: Instant::now() })
    }

    /// Looks at how the agent is, and answers once there is a verdict. Writes a file now and then.
    pub fn look(&mut self, health: &HealthReport, mqtt: Option<&mqtt::Handle>, audit: &Audit) -> Next {
        if self.mark.end.is_none() {
            match self.watch.look(self.mark.before.missing(health), self.begun.elapsed()) {
                Verdict::Wait => return Next::Wait,
                Verdict::Good => {
                    let values = &self.mark.values;
                    let result = json!({ "changed": true, "values": values });
                    self.mark.end = Some(Progress::Successful { result });
                    if let Err(reason) = self.remote.write_mark(&self.mark) {
                        tracing::warn!("{reason}; tried again");
                        self.mark.end = None;
                        return Next::Wait;
                    }
                }
                Verdict::Bad(why) => {
                    tracing::warn!("the configuration that was set from afar is put back: {why}");
                    return match self.remote.give_up(&why) {
                        Ok(_) => Next::Restart,
                        Err(reason) => {
                            tracing::error!("{reason}; tried again");
                            Next::Wait
                        }
                    };
                }
            }
        }
        let Some(end) = self.mark.end.clone() else { return Next::Wait };
        if let (Some(mqtt), Some(answer)) = (mqtt, self.mark.answer.clone()) {
            mqtt.answer(answer, end.clone());
        }
        audit.end_of(self.mark.subject.clone(), &end);
        let mark = self.remote.mark.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            let removed = crate::sys::blocking::blocking(move || Remote::forget(&mark)).await;
            if let Err(reason) = removed {
                tracing::warn!("{reason}");
            }
        });
        Next::Over
    }
}

impl Remote {
    /// Removes a mark whose command is answered; not that of a change which has begun meanwhile.
    fn forget(mark: &Path) -> Result<(), Reason> {
        let ended = read_text(mark)?.and_then(|text| serde_json::from_str::<Mark>(&text).ok());
        if ended.is_none_or(|mark| mark.end.is_some()) {
            durable::remove_file_synced(mark)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
