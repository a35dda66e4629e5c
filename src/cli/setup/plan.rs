//! What the drop-in is to say: what was asked for, laid over what an earlier setup wrote. Pure.

use crate::cli::exit::Usage;
use std::path::Path;
use toml::{Table, Value};

/// The pipeline that setup makes, and its slot.
const PIPELINE: &str = "camera";
const SLOT: &str = "detector";

/// What stands above the tables.
const HEAD: &str = "\
# Written by `edgewarden setup`, which reads it again and writes it anew: keys that you add here stay, comments
# do not. Every key is explained in agent.toml (packages have it in /usr/share/edgewarden). What is to win over
# this file belongs in a drop-in with a later name, such as 60-mine.toml.
";

/// A thing that can be set, kept, or taken out with the word `none`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wish<T> {
    /// As it was.
    #[default]
    Keep,
    /// Taken out.
    Remove,
    /// This.
    Set(T),
}

impl Wish<String> {
    /// From an argument.
    pub fn of(argument: Option<&str>) -> Self {
        match argument {
            None => Wish::Keep,
            Some("none") => Wish::Remove,
            Some(text) => Wish::Set(text.to_owned()),
        }
    }
}

impl<T> Wish<T> {
    /// Whether it was declined; `None` where nothing was said.
    fn declines(&self) -> Option<bool> {
        match self {
            Wish::Keep => None,
            Wish::Remove => Some(true),
            Wish::Set(_) => Some(false),
        }
    }
}

/// Something that a person may do without, as the table of setup's own calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// `[mqtt]`
    Broker,
    /// `[repository]`
    Repository,
    /// The pipeline's source.
    Camera,
}

impl Thing {
    fn word(self) -> &'static str {
        match self {
            Thing::Broker => "broker",
            Thing::Repository => "repository",
            Thing::Camera => "camera",
        }
    }
}

/// Whether an earlier setup was told to do without it.
pub fn declined(tables: &Table, thing: Thing) -> bool {
    without(tables).iter().any(|word| word == thing.word())
}

fn without(tables: &Table) -> Vec<String> {
    let list = tables.get("setup").and_then(|setup| setup.get("without")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Remembers what was declined, so that a later setup neither asks nor looks for it.
fn remember(tables: &mut Table, thing: Thing, declined: Option<bool>) {
    let Some(declined) = declined else { return };
    let mut words = without(tables);
    words.retain(|word| word != thing.word());
    if declined {
        words.push(thing.word().to_owned());
    }
    words.sort();
    if words.is_empty() {
        tables.remove("setup");
    } else {
        let words = words.into_iter().map(Value::from).collect();
        section(tables, "setup").insert("without".into(), Value::Array(words));
    }
}

/// All that was asked for, found, or answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wishes {
    /// `device.id`
    pub device: Option<String>,
    /// `device.groups`; none keeps those that are there.
    pub groups: Vec<String>,
    /// The pipeline's source.
    pub source: Wish<Table>,
    /// The pipeline of another file whose source it is instead.
    pub pipeline: Option<String>,
    /// `mqtt.url`
    pub broker: Wish<String>,
    /// `mqtt.username`
    pub username: Option<String>,
    /// `mqtt.password_file`
    pub password_file: Option<String>,
    /// `mqtt.ca_file`
    pub ca_file: Option<String>,
    /// `repository.url`
    pub repository: Wish<String>,
    /// `repository.root`
    pub root: Option<String>,
}

/// The drop-in's tables: the former ones with the wishes laid over them.
pub fn lay(former: Table, wishes: &Wishes) -> Table {
    let mut tables = former;
    set(&mut tables, "device", "id", wishes.device.clone());
    if !wishes.groups.is_empty() {
        let groups = wishes.groups.iter().map(|group| Value::from(group.as_str())).collect();
        section(&mut tables, "device").insert("groups".into(), Value::Array(groups));
    }
    link(&mut tables, "mqtt", &wishes.broker);
    if wishes.broker != Wish::Remove {
        set(&mut tables, "mqtt", "username", wishes.username.clone());
        set(&mut tables, "mqtt", "password_file", wishes.password_file.clone());
        set(&mut tables, "mqtt", "ca_file", wishes.ca_file.clone());
    }
    link(&mut tables, "repository", &wishes.repository);
    if wishes.repository != Wish::Remove {
        set(&mut tables, "repository", "root", wishes.root.clone());
    }
    match &wishes.source {
        Wish::Keep => {}
        Wish::Remove => drop(tables.remove("pipeline")),
        Wish::Set(source) => look(&mut tables, source.clone(), wishes.pipeline.as_deref()),
    }
    remember(&mut tables, Thing::Broker, wishes.broker.declines());
    remember(&mut tables, Thing::Repository, wishes.repository.declines());
    remember(&mut tables, Thing::Camera, wishes.source.declines());
    tables
}

/// A table, made where it is missing or no table.
fn section<'t>(tables: &'t mut Table, name: &str) -> &'t mut Table {
    let entry = tables.entry(name).or_insert_with(|| Table::new().into());
    if !entry.is_table() {
        *entry = Table::new().into();
    }
    match entry {
        Value::Table(table) => table,
        _ => unreachable!("it was made a table above"),
    }
}

fn set(tables: &mut Table, name: &str, key: &str, value: Option<String>) {
    if let Some(value) = value {
        section(tables, name).insert(key.into(), value.into());
    }
}

fn link(tables: &mut Table, name: &str, url: &Wish<String>) {
    match url {
        Wish::Keep => {}
        Wish::Remove => drop(tables.remove(name)),
        Wish::Set(url) => set(tables, name, "url", Some(url.clone())),
    }
}

/// Gives the pipeline its source: the first one of the drop-in, else the one of another file, else a new
/// one. A source of the same kind keeps what else was said of it.
fn look(tables: &mut Table, source: Table, elsewhere: Option<&str>) {
    let mut pipelines = match tables.remove("pipeline") {
        Some(Value::Array(pipelines)) => pipelines,
        Some(_) | None => Vec::new(),
    };
    if !pipelines.first().is_some_and(Value::is_table) {
        let mut new = Table::new();
        new.insert("name".into(), elsewhere.unwrap_or(PIPELINE).into());
        if elsewhere.is_none() {
            new.insert("slot".into(), SLOT.into());
        }
        pipelines = vec![new.into()];
    }
    if let Some(Value::Table(first)) = pipelines.first_mut() {
        let kind = |source: &Table| source.get("kind").and_then(Value::as_str).map(str::to_owned);
        match first.get_mut("source") {
            Some(Value::Table(former)) if kind(former) == kind(&source) => former.extend(source),
            _ => drop(first.insert("source".into(), source.into())),
        }
    }
    tables.insert("pipeline".into(), Value::Array(pipelines));
}

/// The drop-in's text; the same tables give the same text.
pub fn text(tables: &Table) -> anyhow::Result<String> {
    Ok(format!("{HEAD}\n{}", toml::to_string(tables)?))
}

/// The source that `--camera` means; `jetson` tells what a ribbon cable hangs on.
///
/// # Errors
/// [`Usage`] for words that mean nothing, and for a path where nothing is.
pub fn source(camera: &str, jetson: bool) -> Result<Table, Usage> {
    let mut source = Table::new();
    let mut say = |key: &str, value: Value| drop(source.insert(key.into(), value));
    let begins = |schemes: &[&str]| schemes.iter().any(|scheme| camera.starts_with(scheme));
    let path = Path::new(camera);
    if camera == "synthetic" {
        say("kind", "synthetic".into());
    } else if let Some(number) = camera.strip_prefix("csi:") {
        let number: u8 = number
            .parse()
            .map_err(|_| Usage(format!("--camera {camera}: write csi:0, or another camera's number")))?;
        say("kind", if jetson { "csi_jetson" } else { "csi_pi" }.into());
        say("camera", i64::from(number).into());
    } else if begins(&["rtsp://", "rtsps://"]) {
        say("kind", "rtsp".into());
        say("url", camera.into());
    } else if begins(&["http://", "https://"]) {
        say("kind", "http_mjpeg".into());
        say("url", camera.into());
    } else if path.starts_with("/dev") {
        say("kind", "v4l2".into());
        say("device", camera.into());
    } else if path.is_dir() {
        say("kind", "folder".into());
        say("path", absolute(path)?.into());
    } else if path.is_file() {
        say("kind", "video".into());
        say("path", absolute(path)?.into());
    } else {
        let known = "a camera's device file (/dev/v4l/by-id/…), csi:0, an rtsp:// or http:// URL, a folder of \
                     pictures, a video file, synthetic, or none";
        return Err(Usage(format!("--camera {camera}: is not there, or no camera; name {known}")));
    }
    Ok(source)
}

/// A path that holds from any folder, as text.
///
/// # Errors
/// [`Usage`] for a path that is no UTF-8, which a configuration cannot name.
pub fn absolute(path: &Path) -> Result<String, Usage> {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    match whole.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Usage(format!("{}: its name is no UTF-8 text; rename it", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes() -> Wishes {
        Wishes {
            device: Some("press-7".into()),
            groups: vec!["line-3".into()],
            source: Wish::Set(source("/dev/v4l/by-id/usb-x", false).unwrap()),
            broker: Wish::Set("mqtt://broker".into()),
            username: Some("press-7".into()),
            repository: Wish::Set("https://models.example.com/".into()),
            root: Some("/etc/edgewarden/root.json".into()),
            ..Wishes::default()
        }
    }

    fn tables(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn a_first_setup_writes_all_that_was_asked_for() {
        let laid = lay(Table::new(), &wishes());
        assert_eq!(
            laid,
            tables(
                "[device]\nid = \"press-7\"\ngroups = [\"line-3\"]\n\
                 [mqtt]\nurl = \"mqtt://broker\"\nusername = \"press-7\"\n\
                 [repository]\nurl = \"https://models.example.com/\"\nroot = \"/etc/edgewarden/root.json\"\n\
                 [[pipeline]]\nname = \"camera\"\nslot = \"detector\"\n\
                 source = { kind = \"v4l2\", device = \"/dev/v4l/by-id/usb-x\" }\n"
            )
        );
        let text = text(&laid).unwrap();
        assert!(text.starts_with("# Written by `edgewarden setup`"));
        assert_eq!(tables(&text), laid, "what is written is read again");
        assert_eq!(
            super::text(&lay(tables(&text), &wishes())).unwrap(),
            text,
            "a second time changes nothing"
        );
    }

    #[test]
    fn nothing_asked_for_keeps_everything_and_none_takes_it_out() {
        let former = lay(Table::new(), &wishes());
        assert_eq!(lay(former.clone(), &Wishes::default()), former);
        let none = Wishes {
            source: Wish::Remove,
            broker: Wish::of(Some("none")),
            repository: Wish::of(Some("none")),
            // Of what is taken out, nothing is set.
            username: Some("x".into()),
            root: Some("y".into()),
            ..Wishes::default()
        };
        let laid = lay(former, &none);
        let setup = "[setup]\nwithout = [\"broker\", \"camera\", \"repository\"]\n";
        assert_eq!(laid, tables(&format!("[device]\nid = \"press-7\"\ngroups = [\"line-3\"]\n{setup}")));
        let all = [Thing::Broker, Thing::Repository, Thing::Camera];
        assert!(all.iter().all(|thing| declined(&laid, *thing)), "it is remembered");
        assert_eq!(lay(laid.clone(), &Wishes::default()), laid);
        let wanted = lay(laid, &wishes());
        assert!(all.iter().all(|thing| !declined(&wanted, *thing)), "until it is asked for");
        assert_eq!(wanted.get("setup"), None);
    }

    #[test]
    fn a_users_own_keys_stay() {
        let former = tables(
            "[mqtt]\nurl = \"mqtt://a\"\nkeep_alive = \"60s\"\n\
             [[pipeline]]\nname = \"mine\"\nfps = 3\n\
             source = { kind = \"v4l2\", device = \"/dev/video0\", width = 1280 }\n\
             [[pipeline]]\nname = \"second\"\nsource_of = \"mine\"\n",
        );
        let again = Wishes {
            broker: Wish::Set("mqtt://b".into()),
            source: Wish::Set(source("/dev/video2", false).unwrap()),
            ..Wishes::default()
        };
        let laid = lay(former.clone(), &again);
        assert_eq!(laid["mqtt"]["keep_alive"].as_str(), Some("60s"));
        assert_eq!(laid["mqtt"]["url"].as_str(), Some("mqtt://b"));
        assert_eq!(laid["pipeline"][0]["fps"].as_integer(), Some(3));
        assert_eq!(laid["pipeline"][0]["source"]["width"].as_integer(), Some(1280));
        assert_eq!(laid["pipeline"][0]["source"]["device"].as_str(), Some("/dev/video2"));
        assert_eq!(laid["pipeline"][1], former["pipeline"][1]);
        // Another kind has other keys.
        let other = Wishes { source: Wish::Set(source("csi:1", true).unwrap()), ..Wishes::default() };
        let source = lay(former, &other)["pipeline"][0]["source"].clone();
        assert_eq!(source, Value::Table(tables("kind = \"csi_jetson\"\ncamera = 1\n")));
    }

    #[test]
    fn the_pipeline_of_another_file_gets_its_source() {
        let wishes = Wishes {
            source: Wish::Set(source("synthetic", false).unwrap()),
            pipeline: Some("belt".into()),
            ..Wishes::default()
        };
        let laid = lay(Table::new(), &wishes);
        assert_eq!(laid, tables("[[pipeline]]\nname = \"belt\"\nsource = { kind = \"synthetic\" }\n"));
    }

    #[test]
    fn a_camera_in_one_word() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.mp4");
        std::fs::write(&file, "").unwrap();
        let (folder, file) = (dir.path().to_str().unwrap(), file.to_str().unwrap());
        for (camera, expected) in [
            ("synthetic", "kind = \"synthetic\"".to_owned()),
            ("csi:0", "kind = \"csi_pi\"\ncamera = 0".into()),
            ("rtsp://cam/1", "kind = \"rtsp\"\nurl = \"rtsp://cam/1\"".into()),
            ("https://cam/v.mjpg", "kind = \"http_mjpeg\"\nurl = \"https://cam/v.mjpg\"".into()),
            ("/dev/video9", "kind = \"v4l2\"\ndevice = \"/dev/video9\"".into()),
            (folder, format!("kind = \"folder\"\npath = \"{folder}\"")),
            (file, format!("kind = \"video\"\npath = \"{file}\"")),
        ] {
            assert_eq!(source(camera, false).unwrap(), tables(&expected), "{camera}");
        }
        for bad in ["csi:x", "csi:-1", "/nowhere/at/all", "camera", ""] {
            assert!(source(bad, false).is_err(), "{bad}");
        }
    }
}
