//! The files of a configuration: drop-ins over the main file, and files that are missing or cannot be read.

use super::*;
use crate::config::load_in;

fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("config.d")).unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn drop_ins_are_laid_over_in_the_order_of_their_names() {
    let folder = folder_with(&[
        (
            "agent.toml",
            "[device]\nid = \"one\"\n[mqtt]\nurl = \"mqtt://a\"\n[[pipeline]]\nname = \"x\"\nfps = 3\n\
                        source = { kind = \"folder\", path = \"pictures\" }\n",
        ),
        ("config.d/20-last.toml", "[device]\nid = \"three\"\n"),
        (
            "config.d/10-site.toml",
            "[device]\nid = \"two\"\ngroups = [\"g\"]\n[mqtt]\nkeep_alive = \"1m\"\n\
                                   [[pipeline]]\nname = \"x\"\nfps = 7\n[[pipeline]]\nname = \"y\"\n\
                                   source = { kind = \"synthetic\", seed = 9 }\n",
        ),
        ("config.d/.10-site.toml.swp.toml", "not toml"),
        ("config.d/README", "not toml"),
    ]);
    let settings = load_in(&folder.path().join("agent.toml"), &around()).unwrap();
    assert_eq!(settings.device.id.as_str(), "three");
    assert_eq!(settings.device.groups.len(), 1);
    let mqtt = settings.mqtt.unwrap();
    assert_eq!((mqtt.host.as_str(), mqtt.port, mqtt.keep_alive), ("a", 1883, Duration::from_secs(60)));
    assert_eq!(settings.pipelines.len(), 2);
    assert_eq!(settings.pipelines[0].fps, 7.0);
    let pictures = SourceSettings::Folder { path: folder.path().join("pictures"), repeat: true };
    assert_eq!(settings.pipelines[0].source, pictures);
    assert_eq!(settings.pipelines[1].name.as_str(), "y");
}

#[test]
fn a_drop_in_that_changes_the_kind_of_source_replaces_it() {
    let folder = folder_with(&[
        ("agent.toml", "[[pipeline]]\nsource = { kind = \"folder\", path = \"/p\" }\n"),
        ("config.d/a.toml", "[[pipeline]]\nsource = { kind = \"synthetic\" }\n"),
    ]);
    let settings = load_in(&folder.path().join("agent.toml"), &around()).unwrap();
    assert!(matches!(settings.pipelines[0].source, SourceSettings::Synthetic { seed: 1, .. }));
}

#[test]
fn a_fault_in_a_drop_in_names_the_drop_in() {
    let folder = folder_with(&[("agent.toml", SMALLEST), ("config.d/a.toml", "\n[device]\nidd = \"x\"\n")]);
    let errors = load_in(&folder.path().join("agent.toml"), &around()).unwrap_err().to_string();
    assert!(errors.contains("config.d/a.toml:3: device.idd: unknown key; did you mean id?"), "{errors}");
}

#[test]
fn a_device_begins_without_a_file_but_a_mistyped_name_is_told() {
    let folder = folder_with(&[("config.d/50-setup.toml", "[device]\nid = \"three\"\n")]);
    let main = folder.path().join("agent.toml");
    let settings = load_in(&main, &around()).unwrap();
    assert_eq!(settings.device.id.as_str(), "three");
    assert_eq!((settings.pipelines.len(), settings.mqtt, settings.repository), (0, None, None));
    assert_eq!(crate::config::files(&main), [folder.path().join("config.d/50-setup.toml")]);
    // An empty file is as none.
    std::fs::write(&main, "").unwrap();
    assert_eq!(load_in(&main, &around()).unwrap().device.id.as_str(), "three");
    assert_eq!(crate::config::files(&main).len(), 2);
    // A name that nobody knows, a link that leads nowhere, and a folder without drop-ins are faults.
    assert!(load_in(&folder.path().join("agnt.toml"), &around()).is_err());
    std::fs::remove_file(&main).unwrap();
    std::os::unix::fs::symlink("nowhere.toml", &main).unwrap();
    assert!(load_in(&main, &around()).is_err());
    let empty = tempfile::tempdir().unwrap();
    assert!(load_in(&empty.path().join("agent.toml"), &around()).is_err());
    assert!(
        load_in(Path::new(crate::config::DEFAULT_PATH), &around()).is_ok()
            || Path::new(crate::config::DEFAULT_PATH).exists()
    );
}

#[test]
fn a_drop_in_can_be_tried_before_it_is_written() {
    let folder = folder_with(&[
        ("config.d/50-setup.toml", "[device]\nid = \"old\"\n"),
        ("config.d/90-mine.toml", "[device]\ngroups = [\"g\"]\n"),
    ]);
    let main = folder.path().join("agent.toml");
    let file = crate::config::drop_in(&main, "50-setup.toml");
    let as_if =
        |text| crate::config::load_as_if(&main, &around(), Some(crate::config::AsIf { file: &file, text }));
    assert_eq!(as_if(None).unwrap().device.id.as_str(), "pi-4");
    let tried = as_if(Some("[device]\nid = \"new\"\ngroups = [\"h\"]\n")).unwrap().device;
    assert_eq!((tried.id.as_str(), tried.groups[0].as_str()), ("new", "g"), "later names win");
    let faults = as_if(Some("\n[device]\nidd = 1\n")).unwrap_err().to_string();
    assert!(faults.contains("50-setup.toml:3: device.idd: unknown key"), "{faults}");
    assert_eq!(load_in(&main, &around()).unwrap().device.id.as_str(), "old", "nothing was written");
}

#[test]
fn drop_ins_are_bounded() {
    let folder = folder_with(&[("agent.toml", SMALLEST)]);
    for number in 0..65 {
        std::fs::write(folder.path().join(format!("config.d/{number}.toml")), "").unwrap();
    }
    let faults = load_in(&folder.path().join("agent.toml"), &around()).unwrap_err().to_string();
    assert!(faults.contains("config.d:1: holds more than 64 drop-ins"), "{faults}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = folder_with(&[("agent.toml", SMALLEST)]);
    let missing = load_in(&folder.path().join("other.toml"), &around()).unwrap_err().to_string();
    assert!(
        missing.contains("other.toml:1: cannot read this file") && missing.contains("--config"),
        "{missing}"
    );
    std::fs::write(folder.path().join("config.d/b.toml"), [0xff, 0xfe]).unwrap();
    std::fs::write(folder.path().join("config.d/c.toml"), "x".repeat((1 << 20) + 1)).unwrap();
    let faults = load_in(&folder.path().join("agent.toml"), &around()).unwrap_err().to_string();
    assert!(faults.contains("b.toml:1: cannot read this file") && faults.contains("UTF-8"), "{faults}");
    assert!(faults.contains("c.toml:1: is larger than"), "{faults}");
}
