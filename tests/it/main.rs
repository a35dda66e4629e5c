//! The integration tests: the real binary and real files, as users meet them. One program, so that it
//! links once; `support` holds what the modules share.

/// Starting the binary and real servers, temporary configurations, waiting.
mod support;

/// Repositories that are not open to everybody: certificates, tokens, proxies.
mod access;
/// The whole daemon: answers, updates, kills, commands, and everything bad that can come.
mod agent;
/// The rules of the source tree itself: rooms, vendors, heads, sizes.
mod architecture;
/// Each attack on the way of a model, by its TUF name, and what the owner sees of it.
mod attacks;
/// Measuring a bundle on this machine.
mod bench;
/// The command line: help, exit statuses, completions, and what it says to a running agent.
mod cli;
/// `agent.toml` through the binary: every fault at once, and what `check` tells.
mod config;
/// Building for other processors: cross's file, the programs' oldest system.
mod cross;
/// The Debian package: its files, its scripts under dpkg, its crypto library, its notices.
mod debs;
/// Updates as deltas: few bytes, hostile ones, none at all.
mod deltas;
/// The story that `edgewarden demo` tells, against the real daemon.
mod demo;
/// Signed commands beside another implementation, and how people make them.
mod dsse;
/// The operator's command line for many devices.
mod fleet;
/// What the fuzzer found worth keeping, through the same entry points.
mod fuzz;
/// What makes a model slow: found, mended, proved.
mod intake;
/// Messages that must arrive, over everything that can go wrong; many devices on one broker.
mod loss;
/// The page of messages, its examples, and what a real device says.
mod messages;
/// Models that are signed by their makers and encrypted for devices.
mod modelsec;
/// The device's side of MQTT against a real mosquitto.
mod mqtt;
/// Bad networks, and networks that are to be spared.
mod network;
/// What the package brings: unit, user, folders, manual pages.
mod packaging;
/// An ONNX file, a bundle, answers on pictures.
mod predict;
/// The children as processes: frames, kills, and the handover between two models.
mod process;
/// The README: its commands, topics, messages and configuration.
mod readme;
/// The owner's side of trust: repositories of one person and of a team, keys, delegations.
mod repo;
/// Presence, times, and what was dropped.
mod reporting;
/// A machine that is not set up, and `edgewarden setup`.
mod setup;
/// Sources that another program reads: films, network cameras, commands that misbehave.
mod stream;
/// The page of threats: each of its tests is there, each attack's test is in it.
mod threats;
/// Cameras, against the kernel's own test driver where it is there.
mod v4l2;
