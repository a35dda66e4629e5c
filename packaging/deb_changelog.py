"""Turns packaging/CHANGELOG.md into a Debian changelog on standard output; a part of build-debs.sh.

    deb_changelog.py CHANGELOG VERSION DATE

What is unreleased belongs to VERSION, and so does the section of that version, where there is one. DATE (seconds
since 1970) is the date of VERSION; an older section whose heading names none ("## 0.2.0 (2027-01-31)") is a second
older than the one before it, since lintian wants an order.
"""

import calendar
import pathlib
import re
import sys
import textwrap
import time

MAINTAINER = "Edgewarden <packages@edgewarden.invalid>"


def die(text):
    sys.exit(f"deb-changelog: {text}")


def sections(text):
    """Of each "## " heading: the version or None for what is unreleased, the date or None, the lines below."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("## "):
            match = re.fullmatch(r"## (?:(Unreleased)|([0-9][0-9A-Za-z.+-]*)(?: \(([0-9]{4}-[0-9]{2}-[0-9]{2})\))?)", line)
            if not match:
                die(f"line {number}: not a heading like '## Unreleased' or '## 0.2.0 (2027-01-31)': {line}")
            found.append((match[2], match[3], []))
        elif found:
            found[-1][2].append(line)
    return found


def bullet(words):
    return textwrap.fill(words, 79, initial_indent="  * ", subsequent_indent="    ", break_long_words=False,
                         break_on_hyphens=False)


def changes(lines):
    """Bullets with their continuation lines joined, and the headings of groups ("Sources:")."""
    for paragraph in re.split(r"\n(?=- )|\n\n+", "\n".join(lines).strip()):
        words = " ".join(paragraph.split())
        if words.startswith("- "):
            yield bullet(words[2:])
        elif words.endswith(":"):
            yield f"\n  [ {words[:-1]} ]"
        elif words:
            yield bullet(words)


def main(path, version, date):
    # Debian sorts 0.2.0~rc.1 before 0.2.0, as Semantic Versioning sorts 0.2.0-rc.1.
    debian = lambda name: name.replace("-", "~", 1)
    entries = {debian(version): (int(date), [])}
    for name, day, lines in sections(pathlib.Path(path).read_text(encoding="utf-8")):
        when = calendar.timegm(time.strptime(day, "%Y-%m-%d")) if day else int(date) - len(entries)
        entries.setdefault(debian(name or version), (when, []))[1].extend(changes(lines))
    for name, (when, lines) in entries.items():
        lines = lines or [bullet("No change that a user would notice.")]
        stamp = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(when))
        body = "\n".join(lines).lstrip("\n")
        print(f"edgewarden ({name}) unstable; urgency=medium\n\n{body}\n\n -- {MAINTAINER}  {stamp}\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
