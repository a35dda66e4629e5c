#!/usr/bin/env python3
"""The time of an install beside the floor, in one run (see bench-install.sh, which sets everything up).

bench_install.py PROGRAM BUNDLE PICTURE LIBRARY [--size MB] [--rounds N]

The bundle gets a file of so many random megabytes, another one in each round. An install is what the agent does from
its order until the bundle is durable in its place: resolve, download from a web server on this machine, check, stage. The
floor is what nobody can leave out: `sha256sum`, `cp` and `sync` of the same bytes, on the same disk. The two take turns,
so that a busy machine is busy for both. `sha256sum` of many distributions does not use the processor's instructions for
SHA-256; the agent does, and so does `openssl`, which is measured beside it.
"""
import argparse
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

from device import Device

STAGED = re.compile(r"^(\S+Z) .*stage=OnTrial")
BEGUN = re.compile(r"^(\S+Z) .*\bdeploying ")
STAGES = re.compile(r"^(\S+Z) .*stage=(\w+)")


def seconds(text):
    """Of a time in the log; nanoseconds are more than Python reads."""
    return datetime.datetime.fromisoformat(text.rstrip("Z")[:26] + "+00:00").timestamp()


class Bench(Device):
    def prepare(self, number, size):
        """A new release with a random file, published; gives its name and the file."""
        bundle = self.folder / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        shutil.copytree(self.bundle, bundle)
        weights = bundle / "weights.bin"
        with open(weights, "wb") as file:
            for _ in range(size):
                file.write(os.urandom(1 << 20))
        path = bundle / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["version"] = f"100.0.{number}"
        path.write_text(json.dumps(manifest))
        self.call("bundle", "seal", bundle)
        # Random bytes have nothing in common: looking for it would only take minutes.
        self.call("repo", "publish", self.folder / "repo", bundle, "--keys", self.folder / "keys", "--deltas", "0")
        subprocess.run(["sync"], check=True)
        return f"{manifest['name']}@{manifest['version']}", weights

    def floor(self, file):
        """Seconds of hashing with sha256sum, of hashing with openssl, and of writing until it is durable."""
        copy = self.folder / "copy"

        def timed(*commands):
            begun = time.monotonic()
            for command in commands:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return time.monotonic() - begun
        try:
            return (timed(["sha256sum", file]), timed(["openssl", "dgst", "-sha256", file]),
                    timed(["cp", "--reflink=never", file, copy], ["sync", copy, self.folder]))
        finally:
            copy.unlink(missing_ok=True)

    def measured(self, release):
        """Seconds of the install, and of its parts by the agent's log."""
        before = len(self.log())
        self.update(release)
        lines = self.log()[before:].splitlines()
        begun = next(seconds(found[1]) for line in lines if (found := BEGUN.match(line)))
        marks = {found[2]: seconds(found[1]) for line in lines if (found := STAGES.match(line))}
        parts = {"resolve": marks["Fetching"] - begun, "fetch": marks["Verifying"] - marks["Fetching"],
                 "check and stage": marks["OnTrial"] - marks["Verifying"]}
        return marks["OnTrial"] - begun, parts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("program", "bundle", "picture", "library"):
        parser.add_argument(name)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    device = Bench(args.program, args.bundle, args.picture, args.library)
    device.probation = 3, "100ms"
    device.http = True
    rows, ratios = [], []
    with device:
        for number in range(1, args.rounds + 1):
            release, file = device.prepare(number, args.size)
            before = device.floor(file)
            took, parts = device.measured(release)
            plain, fast, copied = (statistics.mean(both) for both in zip(before, device.floor(file)))
            ratios.append(took / (plain + copied))
            rows.append((number, f"{took:.2f}", *(f"{part:.2f}" for part in parts.values()), f"{plain:.2f}",
                         f"{fast:.2f}", f"{copied:.2f}", f"{took / (plain + copied):.2f}",
                         f"{took / (fast + copied):.2f}"))
    head = ("round", "install s", *parts, "sha256sum", "openssl", "cp + sync", "ratio", "with openssl")
    widths = [max(len(str(row[column])) for row in [head, *rows]) for column in range(len(head))]
    print(f"{args.size} MiB of random bytes beside {args.bundle}, over HTTP on this machine")
    for row in [head, *rows]:
        print("  ".join(str(cell).rjust(width) for cell, width in zip(row, widths)))
    print(f"median ratio {statistics.median(ratios):.2f}; wanted: at most 1.5")
    sys.exit(statistics.median(ratios) > 1.5)


if __name__ == "__main__":
    main()
