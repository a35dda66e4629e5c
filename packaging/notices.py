"""Licences and notices of all crates that are linked into the program; a part of build-debs.sh.

    cargo metadata --format-version 1 --filter-platform TARGET | notices.py > third-party

Reads the description of the whole tree, follows from our crate what is linked (neither what only builds nor what only
tests), and prints each text once with the crates that it belongs to.
"""

import hashlib
import json
import pathlib
import re
import sys

NAMES = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|UNLICENSE|COPYRIGHT|PATENTS)([-._].*)?", re.IGNORECASE)
# Not texts: programs and pages of that name.
OTHERS = {".rs", ".py", ".html", ".json", ".toml", ".c", ".h"}
# A crate brings others' sources in folders; their texts lie that deep at most.
DEPTH = 3
LARGEST = 1 << 20


def die(text):
    sys.exit(f"notices: {text}")


def linked(tree):
    """The packages whose code is in the program: normal dependencies, without macros that run at build time."""
    packages = {package["id"]: package for package in tree["packages"]}
    nodes = {node["id"]: node for node in tree["resolve"]["nodes"]}
    macros = {id for id, package in packages.items() if any("proc-macro" in one["kind"] for one in package["targets"])}
    root = tree["resolve"]["root"] or die("run it in the folder of the crate")
    found, waiting = set(), [root]
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            id = dependency["pkg"]
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if normal and id not in found and id not in macros:
                found.add(id)
                waiting.append(id)
    return sorted((packages[id] for id in found), key=lambda one: (one["name"], one["version"]))


def texts(package):
    """Licence files of the crate and of the sources that it brings: name below the crate, text."""
    folder = pathlib.Path(package["manifest_path"]).parent
    named = package.get("license_file")
    paths = {folder / named} if named else set()
    for depth in range(DEPTH + 1):
        paths.update(path for path in folder.glob("/".join(["*"] * (depth + 1)))
                     if NAMES.fullmatch(path.name) and path.suffix.lower() not in OTHERS)
    for path in sorted(paths):
        if path.is_file() and path.stat().st_size <= LARGEST:
            text = path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n").strip("\n")
            yield str(path.relative_to(folder)), text


def main():
    packages = linked(json.load(sys.stdin))
    if not packages:
        die("the tree has no dependencies")
    by_text, without = {}, []
    print("Edgewarden contains the crates of this list. Below it are the texts that they bring, each once.\n")
    for package in packages:
        label = f"{package['name']} {package['version']}"
        licence = package["license"] or "see its text"
        print(f"  {label}: {licence}; {package['repository'] or 'https://crates.io/crates/' + package['name']}")
        found = False
        for name, text in texts(package):
            found = True
            digest = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
            by_text.setdefault(digest, (text, []))[1].append(f"{label} ({name})")
        if not found:
            without.append((label, licence, ", ".join(package["authors"]) or "no author named"))
    if without:
        print("\nThese bring no text of their own and name only their licence:\n")
        for label, licence, authors in without:
            print(f"  {label}: {licence}; {authors}")
    print("\nBeside them it contains Rust's standard library (MIT OR Apache-2.0; https://www.rust-lang.org/).")
    for text, labels in by_text.values():
        print("\n" + "=" * 78)
        print("\n".join(labels))
        print("=" * 78 + "\n\n" + text)


if __name__ == "__main__":
    main()
