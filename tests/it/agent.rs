//! The whole daemon: the real program with its children, a real mosquitto, a real ONNX Runtime, and a
//! repository that can misbehave.

/// Bundles, metadata and repositories that must be refused.
mod bad_repository;
/// Bad libraries, models, manifests and pictures.
mod bad_things;
/// A disk that turns read-only.
mod broken_disk;
/// The broker away and back, and every command over MQTT.
mod broker;
/// The camera: shared, paused, still, away and back.
mod camera;
/// Signed commands: refused, replayed, revoked, stolen.
mod commands;
/// The configuration set from afar, on trial; the log, the check and the device's name over MQTT; the audit log.
mod control;
/// What children may cost: memory, its limits, and a fresh process for one that has grown.
mod cost;
/// `kill -9` at every stage of a deployment.
mod crash;
/// A store that is damaged, a disk that is read-only.
mod damaged;
/// Events: begun once, told again, ended, whatever happens to the agent.
mod events;
/// Folders and films with every frame answered.
mod film;
/// A disk that is full: at the start, or of a sudden.
mod full_disk;
/// Bundle files that the agent cannot open itself.
mod handover;
/// What Home Assistant sees of a device.
mod homeassistant;
/// A bundle of more than 4 GiB.
mod large;
/// The local socket, the service manager, two agents on one machine.
mod machine;
/// Each reason to refuse a command: told, counted, written down.
mod refusals;
/// Bundles that rotted on the disk: fetched again, or left for the one before.
mod rot;
/// Sensors: lines of a program, a serial port, an MQTT topic; windows, gaps, numbers and anomalies.
mod sensors;
/// Answers on real photographs, swaps without a lost frame, children that die or hang.
mod serving;
/// A candidate beside the model that serves, before it counts.
mod shadow;
