//! The runtime's settings: threads, providers, memory, and the comparison of a candidate.

use super::*;

#[test]
fn the_runtimes_settings_are_checked_where_they_stand() {
    let with = |text: &str| format!("{SMALLEST}[runtime]\n{text}\n");
    let settings =
        read(&with("providers = [\"xnnpack\", \"cpu\"]\ntensorrt.fp16 = true\ncpu.arena_limit = \"64MiB\""));
    let runtime = settings.unwrap().runtime;
    assert_eq!(runtime.providers, [Provider::Xnnpack, Provider::Cpu]);
    assert_eq!(runtime.tuning.tensorrt.fp16, Some(true));
    assert_eq!(runtime.tuning.cpu.arena_limit, Some(64 << 20));
    for (text, fault) in [
        ("tensorrt.fp61 = true", "runtime.tensorrt.fp61: unknown key; did you mean fp16?"),
        ("tensorrt.builder_level = 9", "runtime.tensorrt.builder_level: 9 is out of range; use 0 to 5"),
        ("cuda.memory_limit = 5", "runtime.cuda.memory_limit: 5 bytes is out of range"),
        ("optimization = \"most\"", "runtime.optimization: \"most\" is not known; use \"disabled\" or"),
        (
            "cpu = { arena = false, arena_limit = \"1MiB\" }",
            "runtime.cpu.arena_limit: limits an arena that is off",
        ),
        ("tensorrt.profile_min = \"input:1x3\"", "runtime.tensorrt.profile_min: a profile needs"),
        ("tensorrt.calibration_table = \"t\"", "runtime.tensorrt.calibration_table: unknown key"),
        ("onednn.threads = 1", "runtime.onednn: unknown key"),
        ("xnnpack = 1", "runtime.xnnpack: expected a table"),
    ] {
        let told = faults(&with(text));
        assert!(told.len() == 1 && told[0].contains(fault), "{text}: {told:?}");
    }
}

#[test]
fn memory_and_shadow_settings_are_read_and_checked() {
    let text = format!(
        "{SMALLEST}[runtime]\nmemory_budget = \"200MiB\"\nrecycle_interval = \"10m\"\nmemory_limit = \"1GiB\"\n\
         [update]\nshadow_frames = 200\nshadow_max = \"5m\"\nshadow_min_agreement = 0.9\nshadow_max_memory = \"300MiB\"\n"
    );
    let settings = read(&text).unwrap();
    assert_eq!((settings.runtime.memory_budget, settings.runtime.memory_limit), (200 << 20, 1 << 30));
    assert_eq!(settings.runtime.recycle_interval, Duration::from_secs(600));
    let plan = settings.update.shadow_plan();
    assert_eq!((plan.frames, plan.max_time), (200, Duration::from_secs(300)));
    assert_eq!((plan.min_agreement, plan.max_memory), (0.9, 300 << 20));
    assert_eq!(plan.max_slowdown, settings.update.max_slowdown);

    let text = format!(
        "{SMALLEST}[runtime]\nmemory_limit = \"8MiB\"\nrecycle_interval = \"10ms\"\n[update]\nshadow_min_agreement = 1.5\n\
         shadow_max = \"0s\"\nshadow_frames = -1\n"
    );
    let faults = faults(&text);
    for (line, words) in [
        (4, "runtime.memory_limit: is less than a runtime needs"),
        (5, "runtime.recycle_interval: "),
        (7, "update.shadow_min_agreement: "),
        (8, "update.shadow_max: "),
        (9, "update.shadow_frames: "),
    ] {
        let found = faults.iter().any(|fault| fault.starts_with(&format!("agent.toml:{line}: {words}")));
        assert!(found, "{words} in {faults:?}");
    }
    let text = format!("{SMALLEST}[runtime]\nmemory_budget = \"2GiB\"\nmemory_limit = \"1GiB\"\n");
    assert!(self::faults(&text)[0].contains("memory_budget: is not below memory_limit"));
}

#[test]
fn all_frames_are_for_sources_that_wait() {
    let read = |text: &str| from_text(text, Path::new("/etc/edgewarden"), &Surroundings::default());
    let waits = "[[pipeline]]\nfps = \"max\"\n[pipeline.source]\nkind = \"folder\"\npath = \"/srv/a\"\n";
    let settings = read(waits).unwrap();
    assert!(settings.pipelines[0].every);
    assert_eq!(settings.pipelines[0].max_age, None, "none is too old");
    assert!(!read(&waits.replace("\"max\"", "5")).unwrap().pipelines[0].every);
    let shared = "[[pipeline]]\nname = \"b\"\nslot = \"b\"\nfps = \"max\"\nsource_of = \"main\"\n";
    assert!(read(&format!("{waits}{shared}")).unwrap().pipelines.iter().all(|one| one.every));
    for (text, wanted) in [
        (
            waits.replace("kind = \"folder\"\npath = \"/srv/a\"", "kind = \"v4l2\""),
            "fps: \"max\" is for sources that wait",
        ),
        (waits.replace("\"folder\"", "\"video\"\nrealtime = true"), "and video is live; give a number"),
        (waits.replace("\"max\"", "\"max\"\nmax_age = \"1s\""), "max_age: leaves frames out"),
        (waits.replace("\"max\"", "\"most\""), "expected a number, found text; or \"max\""),
        (
            format!("{}{shared}", waits.replace("\"max\"", "5")),
            "must stand at the pipeline that has the source",
        ),
    ] {
        let faults = read(&text).expect_err(&text).to_string();
        assert!(faults.contains(wanted), "{text}\n{faults}");
    }
}
