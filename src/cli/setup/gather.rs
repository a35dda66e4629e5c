//! From arguments, what is there, what is found, and answers: what the drop-in is to say.

use super::Args;
use super::ask::Person;
use super::before::Before;
use super::cameras::{self, Found, Meant};
use super::plan::{self, Thing, Wish, Wishes};
use crate::cli::check;
use crate::cli::exit::Usage;
use crate::inference::source::stream::tools::{Board, Tools};
use crate::inference::source::v4l2::find;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;
use toml::Table;

/// The broker that is tried where none was named.
const USUAL_BROKER: (&str, u16) = ("localhost", 1883);
/// A broker on this machine answers at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// All wishes but the pinned root; `say` hears what was found and left out.
pub fn gather(
    args: &Args,
    before: &Before,
    person: Person,
    found: &[Found],
    say: &mut Vec<String>,
) -> anyhow::Result<Wishes> {
    let mut wishes = Wishes {
        device: device(args, before, person)?,
        groups: args.groups.iter().map(ToString::to_string).collect(),
        username: args.username.clone(),
        ca_file: args.ca_file.as_deref().map(plan::absolute).transpose()?,
        ..Wishes::default()
    };
    wishes.broker = broker(args, before, person, say)?;
    wishes.password_file = match args.password_file.as_deref() {
        Some(credential) if credential.starts_with("credential:") => {
            let name = credential.trim_start_matches("credential:");
            say.push(format!(
                "broker: systemd hands the password over with LoadCredential={name}:FILE below [Service]: sudo \
                 systemctl edit edgewarden"
            ));
            Some(credential.to_owned())
        }
        Some(file) => Some(plan::absolute(Path::new(file))?),
        None if before.lacks_password(args) => Some(plan::absolute(&before.password())?),
        None => None,
    };
    wishes.source = camera(args, before, person, found, say)?;
    if wishes.source != Wish::Keep && !before.has("pipeline") {
        wishes.pipeline = before.pipeline_elsewhere()?;
    }
    wishes.repository = repository(args, before, person, say)?;
    Ok(wishes)
}

/// The id, where it is to be written: the host name becomes one, so that the device keeps it when the
/// machine is called otherwise.
fn device(args: &Args, before: &Before, person: Person) -> anyhow::Result<Option<String>> {
    if let Some(id) = &args.device_id {
        return Ok(Some(id.to_string()));
    }
    if !before.is_unnamed() {
        return Ok(None);
    }
    let host = before.others.device.id.to_string();
    if !check::is_common(&host) {
        return Ok(Some(host));
    }
    let question = format!("This machine is called {host}, as many are. The device's own id [{host}]:");
    Ok(Some(person.ask(&question)?.unwrap_or(host)))
}

fn broker(
    args: &Args,
    before: &Before,
    person: Person,
    say: &mut Vec<String>,
) -> anyhow::Result<Wish<String>> {
    if args.broker.is_some() || before.has("mqtt") || before.others.mqtt.is_some() {
        return Ok(Wish::of(args.broker.as_deref()));
    }
    if before.declined(Thing::Broker) {
        say.push("broker: none, as was said before; name one with --broker".to_owned());
        return Ok(Wish::Keep);
    }
    let (host, port) = USUAL_BROKER;
    if (host, port).to_socket_addrs().is_ok_and(answers) {
        say.push(format!("broker: {host}:{port} answers and is taken; another one with --broker"));
        return Ok(Wish::Set(format!("mqtt://{host}:{port}")));
    }
    let question =
        "No broker answers on this machine. URL of one, such as mqtt://broker.local (empty: none):";
    let answer = person.ask(question)?;
    if answer.is_none() {
        say.push("broker: none; the device will report nothing until one is named with --broker".to_owned());
    }
    Ok(answered(answer, person))
}

/// What an answer means. Nothing, said by somebody, is remembered.
fn answered(answer: Option<String>, person: Person) -> Wish<String> {
    match answer {
        None if !person.is_there() => Wish::Keep,
        None => Wish::Remove,
        Some(answer) => Wish::of(Some(&answer)),
    }
}

/// Whether somebody listens at one of these addresses.
fn answers(addresses: impl IntoIterator<Item = SocketAddr>) -> bool {
    addresses.into_iter().any(|address| TcpStream::connect_timeout(&address, PATIENCE).is_ok())
}

fn repository(
    args: &Args,
    before: &Before,
    person: Person,
    say: &mut Vec<String>,
) -> anyhow::Result<Wish<String>> {
    let wish = match &args.repository {
        Some(named) => Wish::of(Some(named)),
        None if args.root.is_some() || before.has("repository") || before.others.repository.is_some() => {
            Wish::Keep
        }
        None if before.declined(Thing::Repository) => {
            say.push("repository: none, as was said before; name one with --repository".to_owned());
            Wish::Keep
        }
        None => answered(person.ask("URL of the repository of signed models (empty: none):")?, person),
    };
    // A folder is as good as its URL.
    match wish {
        Wish::Set(folder) if Path::new(&folder).is_dir() => {
            let whole = plan::absolute(Path::new(&folder))?;
            let url = url::Url::from_directory_path(&whole);
            let url = url.map_err(|()| Usage(format!("--repository {whole}: cannot be written as a URL")))?;
            Ok(Wish::Set(url.into()))
        }
        other @ (Wish::Keep | Wish::Remove | Wish::Set(_)) => Ok(other),
    }
}

fn camera(
    args: &Args,
    before: &Before,
    person: Person,
    found: &[Found],
    say: &mut Vec<String>,
) -> anyhow::Result<Wish<Table>> {
    if let Some(camera) = &args.camera {
        return Ok(match camera.as_str() {
            "none" => Wish::Remove,
            camera => Wish::Set(source(camera, say)?),
        });
    }
    if before.has("pipeline") || !before.others.pipelines.is_empty() {
        return Ok(Wish::Keep);
    }
    if before.declined(Thing::Camera) {
        say.push("camera: none, as was said before; name one with --camera".to_owned());
        return Ok(Wish::Keep);
    }
    let camera = match cameras::meant(found) {
        Meant::One(one) => {
            say.push(format!("camera: {} is taken; another one with --camera", one.camera));
            Some(one.camera.clone())
        }
        Meant::Several if person.is_there() => person.ask("Which of the cameras above (empty: none):")?,
        Meant::Several => {
            let names: Vec<&str> = found.iter().map(|one| one.camera.as_str()).collect();
            let detail = format!(
                "{} cameras were found; name one with --camera, or --camera none: {}",
                names.len(),
                names.join(", ")
            );
            return Err(Usage(detail).into());
        }
        Meant::None => {
            let question =
                "No camera was found. One on the network (rtsp://…), a folder of pictures (empty: none):";
            person.ask(question)?
        }
    };
    match camera {
        Some(camera) => Ok(Wish::Set(source(&camera, say)?)),
        None => {
            let remedy = "plug one in, or name another kind of source with --camera";
            say.push(format!("camera: none; the device will look at nothing: {remedy}"));
            Ok(if person.is_there() { Wish::Remove } else { Wish::Keep })
        }
    }
}

/// The source, with a device file replaced by the link to it that stays.
fn source(camera: &str, say: &mut Vec<String>) -> Result<Table, Usage> {
    let stable = if camera.starts_with("/dev/video") { find::stable_path(Path::new(camera)) } else { None };
    let stable = stable.and_then(|path| path.to_str().map(str::to_owned));
    if let Some(stable) = &stable {
        say.push(format!("camera: {camera} is written as {stable}, which stays when it is plugged in anew"));
    }
    plan::source(stable.as_deref().unwrap_or(camera), Tools::here().board == Board::Jetson)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_found_and_a_closed_port_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(answers([address]));
        drop(listener);
        assert!(!answers([address]));
        assert!(!answers([]));
    }
}
