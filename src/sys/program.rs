//! The pages of our own program that were needed to start.

use std::fs;

/// Lets go of the program's code in memory: what is used again comes back from the system's cache at once, and what
/// was only needed to start does not. A process that waits is then as small as what it does while it waits. Tells how
/// many bytes of address space that was; 0 where the system does not say where the code lies.
pub fn let_go_of_code() -> usize {
    let (Ok(program), Ok(maps)) = (fs::read_link("/proc/self/exe"), fs::read_to_string("/proc/self/maps"))
    else {
        return 0;
    };
    maps.lines().filter_map(|line| code(line, &program.to_string_lossy())).map(let_go).sum()
}

/// Start and length of a line of `maps` that is code of this file, and only that: what may be written holds what the
/// file does not.
fn code(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, rights, path) = (fields.next()?, fields.next()?, fields.nth(3)?);
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (rights == "r-xp" && path == program && end > start).then(|| (start, end - start))
}

fn let_go((start, length): (usize, usize)) -> usize {
    // SAFETY: these pages are code of a file, never written in this process: the kernel reads them again from the
    // file, or its cache, when they are next used. A wrong range is refused.
    let done = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    if done == 0 { length } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_this_very_file_is_let_go() {
        let line =
            |rights: &str, path: &str| format!("55d0a000-55d0c000 {rights} 00001000 fe:00 1234   {path}");
        assert_eq!(
            code(&line("r-xp", "/usr/bin/edgewarden"), "/usr/bin/edgewarden"),
            Some((0x55d0_a000, 0x2000))
        );
        for (rights, path) in
            [("r--p", "/usr/bin/edgewarden"), ("rw-p", "/usr/bin/edgewarden"), ("r-xp", "/lib/libc.so")]
        {
            assert_eq!(code(&line(rights, path), "/usr/bin/edgewarden"), None, "{rights} {path}");
        }
        assert_eq!(code("7ffc-7ffd r-xp 00000000 00:00 0", "/usr/bin/edgewarden"), None);
    }

    #[test]
    fn the_program_goes_on_without_the_pages_it_let_go() {
        assert!(let_go_of_code() > 0);
        assert!(let_go_of_code() > 0, "and once more");
    }
}
