//! A camera's controls (exposure, focus …), set by their names.
//!
//! A name is the driver's in small letters, with one underscore for whatever is neither letter nor
//! number: "White Balance, Automatic" is `white_balance_automatic`, as `v4l2-ctl` has it.

use super::kernel::{ControlInfo, Device};
use rustix::io::Errno;
use std::collections::BTreeMap;

const NUMBER: u32 = 1;
const SWITCH: u32 = 2;
const MENU: u32 = 3;
const BUTTON: u32 = 4;
const MENU_OF_NUMBERS: u32 = 9;

const DISABLED: u32 = 1;
const READ_ONLY: u32 = 4;
/// Governed by another control.
const INACTIVE: u32 = 0x10;

/// Choices of a menu that are looked at.
const MAX_CHOICES: i32 = 64;

/// A control as people name it.
pub fn name(control: &ControlInfo) -> String {
    let words = control.name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_").to_ascii_lowercase()
}

/// Those that can be set here.
fn settable(control: &ControlInfo) -> bool {
    let kinds = [NUMBER, SWITCH, MENU, BUTTON, MENU_OF_NUMBERS];
    kinds.contains(&control.kind) && control.flags & (DISABLED | READ_ONLY) == 0
}

/// One that is to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Its place among the controls.
    pub control: ControlInfo,
    /// To what.
    pub value: i32,
}

/// The wishes in the order in which they are to be carried out: switches and menus first, because an
/// automatic one must be off before the value that it governs can be set.
///
/// # Errors
/// The first control that is not there, with all that are, or whose value is out of its range.
pub fn plan(
    known: &[ControlInfo],
    wanted: &BTreeMap<String, i32>,
    choices: impl Fn(&ControlInfo) -> Vec<(i32, String)>,
) -> Result<Vec<Wish>, String> {
    let mut wishes = Vec::new();
    for (wish, value) in wanted {
        let found = known.iter().find(|control| settable(control) && name(control) == *wish);
        let Some(control) = found else {
            let names: Vec<String> = known.iter().filter(|control| settable(control)).map(name).collect();
            let known = if names.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has {}", names.join(", "))
            };
            return Err(format!("control {wish}: not known to this camera; {known}"));
        };
        let [min, max, step, _] = control.bounds;
        let outside = |range: String| Err(format!("control {wish} = {value}: is out of range; use {range}"));
        match control.kind {
            BUTTON => {}
            MENU | MENU_OF_NUMBERS => {
                let choices = choices(control);
                if !choices.iter().any(|(choice, _)| choice == value) {
                    let all = choices.iter().map(|(choice, text)| format!("{choice} ({text})"));
                    return outside(all.collect::<Vec<_>>().join(", "));
                }
            }
            _ if !(min..=max).contains(value) => return outside(format!("{min} to {max}")),
            _ if step > 1 && (i64::from(*value) - i64::from(min)) % i64::from(step) != 0 => {
                return outside(format!("{min} to {max} in steps of {step}"));
            }
            _ => {}
        }
        wishes.push(Wish { control: control.clone(), value: *value });
    }
    wishes.sort_by_key(|wish| !matches!(wish.control.kind, SWITCH | MENU));
    Ok(wishes)
}

/// The choices of a menu with their texts; some numbers between may have none.
pub fn choices(device: &Device, control: &ControlInfo) -> Vec<(i32, String)> {
    let [min, max, ..] = control.bounds;
    let range = min.max(0)..=max.min(min.max(0).saturating_add(MAX_CHOICES));
    range.filter_map(|index| Some((index, device.menu_text(control, index.try_into().ok()?)?))).collect()
}

/// A control that the device has refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What was tried and what to do.
    pub what: String,
    /// The kernel's word.
    pub error: Errno,
}

/// Sets them.
///
/// # Errors
/// The first that the device refuses.
pub fn set(device: &Device, wishes: &[Wish]) -> Result<(), Refused> {
    for Wish { control, value } in wishes {
        let Err(error) = device.set_control(control.id, *value) else { continue };
        let now = device.controls().into_iter().find(|now| now.id == control.id);
        let remedy = match now.is_some_and(|now| now.flags & INACTIVE != 0) {
            true => "another control governs it, so set that one to manual as well",
            false => "leave it out",
        };
        let what = format!("control {} = {value}: {}; {remedy}", name(control), std::io::Error::from(error));
        return Err(Refused { what, error });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(name: &str, kind: u32, bounds: [i32; 4], flags: u32) -> ControlInfo {
        ControlInfo { id: 1, kind, name: name.into(), bounds, flags }
    }

    fn camera() -> Vec<ControlInfo> {
        vec![
            control("Brightness", NUMBER, [-64, 64, 1, 0], 0),
            control("Exposure, Auto", MENU, [0, 3, 1, 3], 0),
            control("Exposure (Absolute)", NUMBER, [3, 2047, 1, 250], INACTIVE),
            control("Focus, Auto", SWITCH, [0, 1, 1, 1], 0),
            control("Focus (absolute)", NUMBER, [0, 250, 5, 0], INACTIVE),
            control("Zoom, Reset", BUTTON, [0, 0, 0, 0], 0),
            control("User Controls", 6, [0; 4], 0),
            control("Gain", NUMBER, [0, 9, 1, 0], DISABLED),
            control("Privacy", SWITCH, [0, 1, 1, 0], READ_ONLY),
        ]
    }

    fn planned(wanted: &[(&str, i32)]) -> Result<Vec<(String, i32)>, String> {
        let wanted = wanted.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let menu = |_: &ControlInfo| vec![(1, "Manual".to_owned()), (3, "Aperture Priority".to_owned())];
        let wishes = plan(&camera(), &wanted, menu)?;
        Ok(wishes.iter().map(|wish| (name(&wish.control), wish.value)).collect())
    }

    #[test]
    fn names_are_those_of_v4l2_ctl() {
        let names: Vec<String> = camera().iter().map(name).collect();
        assert_eq!(names[..4], ["brightness", "exposure_auto", "exposure_absolute", "focus_auto"]);
        assert_eq!(name(&control("  White -- Balance!", 1, [0; 4], 0)), "white_balance");
    }

    #[test]
    fn what_governs_is_set_before_what_is_governed() {
        let wanted = [
            ("brightness", 64),
            ("exposure_absolute", 3),
            ("exposure_auto", 1),
            ("focus_absolute", 30),
            ("focus_auto", 0),
            ("zoom_reset", 77),
        ];
        let order: Vec<String> = planned(&wanted).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            order,
            [
                "exposure_auto",
                "focus_auto",
                "brightness",
                "exposure_absolute",
                "focus_absolute",
                "zoom_reset"
            ]
        );
    }

    #[test]
    fn each_fault_names_what_there_is() {
        for (name, value, fault) in [
            (
                "brightnes",
                1,
                "control brightnes: not known to this camera; it has brightness, exposure_auto, \
                exposure_absolute, focus_auto, focus_absolute, zoom_reset",
            ),
            ("gain", 1, "control gain: not known"),
            ("privacy", 1, "control privacy: not known"),
            ("user_controls", 1, "control user_controls: not known"),
            ("brightness", 65, "control brightness = 65: is out of range; use -64 to 64"),
            ("focus_auto", 2, "control focus_auto = 2: is out of range; use 0 to 1"),
            (
                "focus_absolute",
                31,
                "control focus_absolute = 31: is out of range; use 0 to 250 in steps of 5",
            ),
            (
                "exposure_auto",
                2,
                "control exposure_auto = 2: is out of range; use 1 (Manual), 3 (Aperture Priority)",
            ),
        ] {
            let why = planned(&[(name, value)]).unwrap_err();
            assert!(why.starts_with(fault), "{why}");
        }
        let none = plan(&[], &BTreeMap::from([("gain".to_owned(), 1)]), |_| Vec::new()).unwrap_err();
        assert!(none.ends_with("it has none"), "{none}");
        assert_eq!(planned(&[]), Ok(Vec::new()));
    }
}
