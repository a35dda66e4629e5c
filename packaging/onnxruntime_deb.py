"""Fills the tree of the package edgewarden-onnxruntime from a wheel; the work of onnxruntime-deb.sh.

    onnxruntime_deb.py WHEEL PINS TREE

Prints the package's file name and its date (seconds since 1970).
"""

import calendar
import gzip
import hashlib
import io
import os
import pathlib
import re
import sys
import textwrap
import time
import zipfile

FOLDER = "usr/lib/edgewarden/onnxruntime"
PROVIDER = "edgewarden-onnxruntime-provider"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Debian's libstdc++6 that has a symbol version, by the last number of GLIBCXX_3.4.N.
LIBSTDCXX = [
    (21, "5"), (22, "6"), (24, "7"), (25, "8"), (26, "9"), (28, "10"), (29, "11"), (30, "12"), (32, "13"), (33, "14"),
]
# What lintian finds and we keep, each with its reason.
OVERRIDES = """\
# The library comes as Microsoft builds it, with these linked in; the notices name them.
{package}: embedded-library curl *
{package}: embedded-library mbedtls *
# Its licence names the holder of the rights and no year.
{package}: copyright-without-copyright-notice
"""


def die(text):
    sys.exit(f"onnxruntime-deb: {text}")


def newest(pattern, content):
    """The highest version that the library names, as a tuple of numbers."""
    found = [tuple(int(part) for part in match.split(b".")) for match in re.findall(pattern, content)]
    return max(found, default=None)


def dependencies(libraries):
    """From the symbol versions of the libraries themselves: the build machine's do not count."""
    content = b"\0".join(libraries)
    glibc = newest(rb"\0GLIBC_(2\.[0-9]+)(?:\.[0-9]+)?(?=\0)", content) or die("the library names no glibc version")
    stdcxx = newest(rb"\0GLIBCXX_3\.4\.([0-9]+)(?=\0)", content)
    needs = [f"libc6 (>= {glibc[0]}.{glibc[1]})"]
    if b"\0libgcc_s.so.1\0" in content:
        needs.append("libgcc-s1 (>= 4.2)")
    if stdcxx:
        package = next((debian for number, debian in LIBSTDCXX if stdcxx[0] <= number), None)
        needs.append(f"libstdc++6 (>= {package})" if package else die(
            f"GLIBCXX_3.4.{stdcxx[0]} is newer than this script knows; add it to LIBSTDCXX"))
    return ", ".join(needs)


def compressed(content):
    """Without name and date. Not gzip.compress, whose header differs between versions of Python."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(content)
    return buffer.getvalue()


def check_pin(pins, version, machine, library):
    """The digest that is pinned for this version and machine, where there is one, must be the library's."""
    digest = hashlib.sha256(library).hexdigest()
    for line in pins.read_text().splitlines():
        words = line.split()
        if words[:2] == [version, machine] and words[2] != digest:
            die(f"the library in the wheel has SHA-256 {digest}, not the pinned {words[2]}; nothing was made")
    return digest


def main(wheel, pins, tree):
    match = re.fullmatch(
        r"(?P<name>onnxruntime(_[a-z0-9]+)*)-(?P<version>[0-9]+(\.[0-9]+)+)(\+[a-z0-9.]+)?"
        r"-[^-]+-[^-]+-(?:manylinux_[0-9]+_[0-9]+|manylinux2014|linux)_(?P<machine>x86_64|aarch64)(?:\..+)?\.whl",
        wheel.name,
    ) or die(f"{wheel.name}: not the name of a Linux wheel of ONNX Runtime for x86_64 or aarch64")
    version, machine = match["version"], match["machine"]
    package = "edgewarden-" + match["name"].replace("_", "-")
    try:
        archive = zipfile.ZipFile(wheel)
    except zipfile.BadZipFile as error:
        die(f"{wheel}: {error}; fetch it again")
    entries = {entry.filename: entry for entry in archive.infolist()}
    inside = re.compile(r"onnxruntime/capi/(libonnxruntime[a-z_]*\.so(?:\.[0-9.]+)?)")
    libraries = {m[1]: archive.read(name) for name in sorted(entries) if (m := inside.fullmatch(name))}
    core = next((name for name in libraries if re.fullmatch(r"libonnxruntime\.so(\.[0-9.]+)?", name)), None) or die(
        f"{wheel.name} holds no libonnxruntime.so: its library is part of the Python module only; "
        "build ONNX Runtime with --build_shared_lib and --build_wheel, or take another wheel")
    digest = check_pin(pins, version, machine, libraries[core]) if match["name"] == "onnxruntime" else None

    folder = tree / FOLDER
    folder.mkdir(parents=True)
    for name, content in libraries.items():
        # Without a provider besides the processor's, the bridge between them has nothing to do.
        if name == "libonnxruntime_providers_shared.so" and len(libraries) == 2:
            continue
        (folder / name).write_bytes(content)
    if core != "libonnxruntime.so":
        (folder / "libonnxruntime.so").symlink_to(core)

    newest_date = max(calendar.timegm(entry.date_time + (0, 0, 0)) for entry in entries.values())
    date = int(os.environ.get("SOURCE_DATE_EPOCH") or newest_date)
    documents(tree / "usr/share/doc" / package, archive, entries, package, version, date)
    size = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    architecture = ARCHITECTURES[machine]
    control = tree / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(textwrap.dedent(f"""\
        Package: {package}
        Version: {version}
        Architecture: {architecture}
        Maintainer: Edgewarden <packages@edgewarden.invalid>
        Installed-Size: {-(-size // 1024)}
        Depends: {dependencies(list(libraries.values()))}
        Provides: {PROVIDER} (= {version})
        Conflicts: {PROVIDER}
        Replaces: {PROVIDER}
        Section: libs
        Priority: optional
        Homepage: https://onnxruntime.ai
        Description: ONNX Runtime, for Edgewarden only
         The library that runs the models of the Edgewarden agent, as Microsoft builds
         it for Python ({match["name"]} {version}), in a folder of Edgewarden's own.
        """))
    sums = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n"
        for path in sorted(tree.rglob("*"))
        if path.is_file() and not path.is_symlink() and control not in path.parents
    ]
    (control / "md5sums").write_text("".join(sums))
    if digest:
        print(f"onnxruntime-deb: library {digest}", file=sys.stderr)
    print(f"{package}_{version}_{architecture}.deb", date)


def documents(folder, archive, entries, package, version, date):
    """Licence and notices of the wheel, and the changelog that Debian wants."""
    folder.mkdir(parents=True)
    licence = entries.get("onnxruntime/LICENSE") or die("the wheel has no licence (onnxruntime/LICENSE)")
    terms = "".join(
        f" {line.strip() or '.'}\n" for line in archive.read(licence).decode("utf-8").replace("\r", "").strip().split("\n"))
    (folder / "copyright").write_text(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        "Upstream-Name: ONNX Runtime\n"
        "Source: https://github.com/microsoft/onnxruntime\n"
        "Comment: The notices of what is linked into the library are in\n"
        " ThirdPartyNotices.txt.gz beside this file.\n\n"
        "Files: *\n"
        "Copyright: Microsoft Corporation\n"
        f"License: Expat\n{terms}")
    for name in ["ThirdPartyNotices.txt", "Privacy.md"]:
        entry = entries.get(f"onnxruntime/{name}")
        if entry:
            (folder / f"{name}.gz").write_bytes(compressed(archive.read(entry)))
        elif name == "ThirdPartyNotices.txt":
            die("the wheel has no notices of others' code (onnxruntime/ThirdPartyNotices.txt)")
    when = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(date))
    changelog = (f"{package} ({version}) unstable; urgency=medium\n\n"
                 f"  * ONNX Runtime {version} as in its wheel.\n\n"
                 f" -- Edgewarden <packages@edgewarden.invalid>  {when}\n")
    overrides = folder.parent.parent / "lintian/overrides"
    overrides.mkdir(parents=True)
    (overrides / package).write_text(OVERRIDES.format(package=package))
    (folder / "changelog.gz").write_bytes(compressed(changelog.encode()))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*(pathlib.Path(argument) for argument in sys.argv[1:]))
