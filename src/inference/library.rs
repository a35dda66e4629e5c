//! Finding and checking `libonnxruntime.so` before the runtime's binding touches it, so that what is
//! wrong with it can be told in one line.
//!
//! The binding hides the cause of a failed load, and the system's linker says "no such file" of a library
//! for another processor. So the file, its processor, its symbol and its version are looked at here.

use crate::domain::{Reason, ReasonCode};
use std::ffi::{CStr, CString, c_char, c_void};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Oldest minor version of ONNX Runtime 1.x that has the functions this program calls.
pub const OLDEST_MINOR: u32 = 17;

/// Environment variable that names the library.
pub const VARIABLE: &str = "EDGEWARDEN_ONNXRUNTIME";
/// Where the package puts it.
pub const INSTALLED: &str = "/usr/lib/edgewarden/onnxruntime/libonnxruntime.so";
/// Where `packaging/` puts it in a clone of the repository.
pub const LOCAL: &str = ".deps/onnxruntime/libonnxruntime.so";

/// The library to load: `explicit`, else [`VARIABLE`], else [`INSTALLED`], else [`LOCAL`] below the
/// current folder or a folder above the program. The first two are taken whether they exist or not, so
/// that a mistake in them is told instead of passed over.
///
/// # Errors
/// `LoadFailed` with the places that were searched.
pub fn find_library(explicit: Option<&Path>) -> Result<PathBuf, Reason> {
    if let Some(path) = explicit {
        return Ok(path.to_owned());
    }
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let above = program.iter().flat_map(|program| program.ancestors().skip(1));
    let local = here.iter().map(PathBuf::as_path).chain(above).map(|folder| folder.join(LOCAL));
    std::iter::once(PathBuf::from(INSTALLED)).chain(local).find(|path| path.is_file()).ok_or_else(|| {
        Reason::new(
            ReasonCode::LoadFailed,
            format!(
                "no ONNX Runtime library: neither {INSTALLED} nor {LOCAL} exists; name one with --runtime or \
                 {VARIABLE}, or run packaging/setup.sh in a clone"
            ),
        )
    })
}

/// Loads the library at `path` for good and returns its version, such as "1.31.1".
///
/// # Errors
/// `LoadFailed` that tells which of these it is: no such file, another processor's, no shared library, a
/// library that is missing one it needs, not ONNX Runtime, too old.
pub fn probe(path: &Path) -> Result<String, Reason> {
    let fault = |what: String| {
        Reason::new(ReasonCode::LoadFailed, format!("ONNX Runtime library {}: {what}", path.display()))
    };
    check_processor(path).map_err(fault)?;
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| fault("its path holds a NUL".into()))?;
    // SAFETY: loading a library runs its initialisers; that the configured file may do so is what
    // configuring it means. The handle is never closed, so symbols and strings of it stay valid.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: `dlerror` gives null or a string that is valid until the next call on this thread.
        let message = unsafe { libc::dlerror().as_ref().map(|text| CStr::from_ptr(text)) };
        let message = message.map_or("unknown".into(), |text| text.to_string_lossy().into_owned());
        return Err(fault(format!("cannot be loaded: {message}")));
    }
    // SAFETY: the handle is open and the name ends with NUL.
    let symbol = unsafe { libc::dlsym(handle, c"OrtGetApiBase".as_ptr()) };
    if symbol.is_null() {
        return Err(fault(
            "is not ONNX Runtime (it has no OrtGetApiBase); use the libonnxruntime.so of a release".into(),
        ));
    }
    /// The head of `OrtApiBase` in `onnxruntime_c_api.h`; unchanged since 1.0.
    #[repr(C)]
    struct ApiBase {
        get_api: *const c_void,
        get_version_string: unsafe extern "C" fn() -> *const c_char,
    }
    // SAFETY: in every ONNX Runtime the symbol is `const OrtApiBase* OrtGetApiBase(void)`, and the
    // version is a static string.
    let version = unsafe {
        let get_base: unsafe extern "C" fn() -> *const ApiBase = std::mem::transmute(symbol);
        match get_base().as_ref() {
            Some(base) => CStr::from_ptr((base.get_version_string)()).to_string_lossy().into_owned(),
            None => return Err(fault("gives no API; install it again".into())),
        }
    };
    check_version(&version).map_err(fault)?;
    Ok(version)
}

fn check_version(version: &str) -> Result<(), String> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(1), Some(minor)) if minor >= OLDEST_MINOR => Ok(()),
        _ => Err(format!("is version {version}; this program needs 1.{OLDEST_MINOR} or a later 1.x")),
    }
}

/// Reads the ELF head: a 64-bit or 32-bit library of the processor that this program is built for.
fn check_processor(path: &Path) -> Result<(), String> {
    let mut head = [0; 20];
    let mut file = std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist; install it or name another".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    file.read_exact(&mut head).map_err(|_| "is not a shared library".to_owned())?;
    if head[..4] != *b"\x7fELF" {
        return Err("is not a shared library for Linux (no ELF head)".into());
    }
    // Offset 18: e_machine, in the byte order that offset 5 tells (1 is little-endian).
    let machine = [head[18], head[19]];
    let machine = if head[5] == 1 { u16::from_le_bytes(machine) } else { u16::from_be_bytes(machine) };
    let ours = match std::env::consts::ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        "arm" => 40,
        "riscv64" => 243,
        // Unknown here: the linker's own message has to do.
        _ => return Ok(()),
    };
    if machine == ours {
        return Ok(());
    }
    let theirs = match machine {
        3 => "x86 (32 bit)".to_owned(),
        40 => "arm (32 bit)".to_owned(),
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv".to_owned(),
        other => format!("processor number {other}"),
    };
    Err(format!("is built for {theirs}, this machine is {}; install the one for it", std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn detail(path: &Path) -> String {
        let reason = probe(path).unwrap_err();
        assert_eq!(reason.code, ReasonCode::LoadFailed);
        reason.detail
    }

    #[test]
    fn each_wrong_library_is_told_apart() {
        assert!(detail(Path::new("/nonexistent/libonnxruntime.so")).contains("does not exist"));
        assert!(detail(file(b"").path()).contains("not a shared library"));
        assert!(detail(file(&[b'x'; 100]).path()).contains("no ELF head"));

        let mut elf = [0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 8; // MIPS: never ours
        assert!(detail(file(&elf).path()).contains("processor number 8"));
        elf[18] = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
        assert!(detail(file(&elf).path()).contains("is built for"));
        elf[18] = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
        assert!(detail(file(&elf).path()).contains("cannot be loaded"));
    }

    #[test]
    fn a_library_that_is_something_else_is_named() {
        // The C library is loaded in every process, under a path that the process itself knows.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps.split_whitespace().find(|word| word.contains("/libc.so")).unwrap();
        assert!(detail(Path::new(libc)).contains("is not ONNX Runtime"));
    }

    #[test]
    fn old_versions_are_refused() {
        for bad in ["1.16.3", "2.0.0", "", "x", "1"] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
        for good in ["1.17.0", "1.31.1", "1.20.0-rc1"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn an_explicit_library_is_taken_as_it_is() {
        assert_eq!(find_library(Some(Path::new("/x/y.so"))).unwrap(), Path::new("/x/y.so"));
    }
}
