//! The pages of our own program and its libraries that were needed to start.

use std::fs;

/// Lets go of code and constants in memory: what is used again comes back from the system's cache at once, and what
/// was only needed to start, or for an update, does not. A process that waits is then as small as what it does while
/// it waits. Tells how many bytes of address space that was; 0 where the system does not say what lies where.
pub fn let_go_of_code() -> usize {
    let Ok(smaps) = fs::read_to_string("/proc/self/smaps") else { return 0 };
    unchanged(&smaps).into_iter().map(let_go).sum()
}

/// Start and length of each part of memory that is a file's, cannot be written, and holds nothing but what the file
/// does: what the loader has changed before it was closed for writing counts as anonymous.
fn unchanged(smaps: &str) -> Vec<(usize, usize)> {
    let (mut found, mut part) = (Vec::new(), None);
    for line in smaps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let first = fields.next().unwrap_or_default();
        if first == "Anonymous:" {
            found.extend(part.take().filter(|_| fields.next() == Some("0")));
        } else if let Some((start, end)) = first.split_once('-') {
            let (rights, path) = (fields.next().unwrap_or_default(), fields.nth(3).unwrap_or_default());
            let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            let (start, end) = (number(start), number(end));
            let fixed = matches!(rights, "r-xp" | "r--p") && path.starts_with('/') && end > start;
            part = fixed.then(|| (start, end - start));
        }
    }
    found
}

fn let_go((start, length): (usize, usize)) -> usize {
    // SAFETY: these pages are a file's, privately mapped, closed for writing, and the same as in the file: the kernel
    // reads them again from there, or from its cache, when they are next used. A wrong range is refused.
    let done = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    if done == 0 { length } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_differ_from_its_file_is_let_go() {
        let part = |rights: &str, path: &str, anonymous: u32| {
            format!(
                "55d0a000-55d0c000 {rights} 00001000 fe:00 1234   {path}\nRss:   8 kB\nAnonymous:   {anonymous} kB\n"
            )
        };
        let code = part("r-xp", "/usr/bin/edgewarden", 0);
        assert_eq!(unchanged(&code), [(0x55d0_a000, 0x2000)]);
        for other in [
            part("r--p", "/usr/bin/edgewarden", 4),
            part("rw-p", "/usr/bin/edgewarden", 0),
            part("rw-s", "/dev/shm/frames", 0),
            part("r-xp", "[vdso]", 0),
            part("r-xp", "", 0),
        ] {
            assert_eq!(unchanged(&other), [], "{other}");
            assert_eq!(unchanged(&format!("{other}{code}{other}")).len(), 1);
        }
    }

    #[test]
    fn the_program_goes_on_without_the_pages_it_let_go() {
        assert!(let_go_of_code() > 0);
        assert!(let_go_of_code() > 0, "and once more");
    }
}
