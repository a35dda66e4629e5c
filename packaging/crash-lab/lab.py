#!/usr/bin/env python3
"""Power cuts at the block layer, with the real agent (see crash-lab.sh, which sets everything up).

lab.py PROGRAM LIBRARY MODELS SHIM [--quick] [--seed N] [--disks N] [--only NAME]

Each run records every block write while the real agent, with its children, a broker and a web server, installs a first
release on a fresh file system, updates it, refuses a bad one, is rolled back and updated again, all by signed commands.
Then the disk is built as a cut at each write could leave it, and the agent is started on it. These hold each time:

- before the start: what the links name is whole, every digest as signed; it is the release whose end had been told, or
  the one that was under way; the repository's metadata and the trust clock are not older than at what had been told;
- after it: that release, or the one under way, answers frames; a deployment whose end had been told is neither forgotten
  nor told again; a command whose number had been taken is refused; nothing is left in downloads/, no bundle too many;
- on every tenth disk: the next update succeeds.

The planted runs forget to sync one kind of file (nosync.c) while recording; each must lead to findings. What a missing
sync of a folder loses is seen on btrfs only: each fsync on ext4 commits the whole journal, and with it what was renamed.
"""
import argparse
import concurrent.futures
import json
import pathlib
import queue
import re
import shutil
import signal
import sys
import tempfile
import time

import disks
from world import SLOT, Agent, Broker, Trouble, World, connected, ended, serving, sha256, slot

SIZE = {"ext4": 32 << 20, "btrfs": 120 << 20}
BROKEN = "the checker itself failed"
# Of a planted bug this many are enough.
ENOUGH = 3
EVERY = 10


class Story:
    """What the agent is asked to do while the disk is recorded, and what serves after each step."""

    def __init__(self, world):
        self.world = world
        one, two, bad, five = (world.publish(name) for name in ("v1", "v2", "v3", "v5"))
        update = {"command": "update", "slot": SLOT}
        self.steps = [({**update, "release": one}, "successful", one), ({**update, "release": two}, "successful", two),
                      ({**update, "release": bad}, "failed", two),
                      ({"command": "rollback", "slot": SLOT}, "successful", one),
                      ({**update, "release": five}, "successful", five)]
        self.commands = {}

    def after(self, step):
        return self.steps[step - 1][2] if step else None

    def tell(self, agent, mark):
        """Carries it out; marks each number that was taken, and each end."""
        told = {"step": 0, "sequence": 0, "timestamp": 0, "clock": "", "deployment": ""}
        for number, (action, wanted, _) in enumerate(self.steps, 1):
            # Newer metadata each time.
            self.world.publish("v1", f"0.0.{number}")

            def replied(signed, reply):
                if reply["status"] == "executing" and told["sequence"] < (number := self.world.sequence_of(signed)):
                    told["sequence"] = number
                    self.commands[told["sequence"]] = signed
                    mark(json.dumps(told))

            reply = agent.order(replied, **action)
            if reply["status"] != wanted:
                sys.exit(f"crash-lab: {action}: {reply}\n{agent.said()}")
            agent.until("the new model", serving(self.after(number)))
            told.update(step=number, deployment=slot(agent.status())["deployment"]["id"],
                        timestamp=held_timestamp(agent.state), clock=held_clock(agent.state))
            mark(json.dumps(told))


def held_timestamp(state):
    try:
        return json.loads((state / "metadata/timestamp.json").read_text())["signed"]["version"]
    except (OSError, ValueError, KeyError):
        return 0


def held_clock(state):
    try:
        # Without the zone, a longer fraction of the same second sorts behind a shorter one.
        return (state / "clock").read_text().strip().rstrip("Z")
    except OSError:
        return ""


class Checker:
    """Looks at one disk after the other, with a broker of its own."""

    def __init__(self, story, folder, kind):
        self.story, self.world, self.kind = story, story.world, kind
        self.broker = Broker(self.world.folder)
        self.folder = pathlib.Path(folder)
        self.mnt, self.image = self.folder / "mnt", self.folder / "crash.img"
        self.mnt.mkdir(parents=True)
        self.rebuilt = 0

    def close(self):
        self.broker.close()

    def check(self, told, thorough):
        """What is wrong with the image; None where nothing is."""
        try:
            disks.call("mount", "-t", self.kind, "-o", "loop", self.image, self.mnt)
        except RuntimeError as error:
            return f"does not mount: {error}"
        try:
            told = json.loads(told) if told else {"step": 0, "sequence": 0, "timestamp": 0, "clock": "", "deployment": ""}
            self.look(self.mnt / "state", told)
            self.live(self.mnt / "state", told, thorough)
        except Trouble as trouble:
            return str(trouble)
        finally:
            disks.unmount(self.mnt)
        return None

    def allowed(self, told):
        """The release whose end was told, and the one that may be under way."""
        step = told["step"]
        return {self.story.after(step), self.story.after(min(step + 1, len(self.story.steps)))}

    def linked(self, state, name):
        """The release that a link names, every digest checked here and not by the agent."""
        link = state / "slots" / SLOT / name
        if not link.is_symlink():
            return None
        digest = link.readlink().name
        releases = {digest: release for release, digest in self.world.digests.items()}
        if digest not in releases:
            raise Trouble(f"{name} names {digest}, which nobody has signed")
        bundle = state / "models" / digest
        try:
            if sha256(bundle / "manifest.json") != digest:
                raise Trouble(f"{name} ({releases[digest]}): its manifest is another one")
            for file in json.loads((bundle / "manifest.json").read_text())["files"]:
                found = bundle / file["path"]
                if found.stat().st_size != file["size"] or sha256(found) != file["sha256"]:
                    raise Trouble(f"{name} ({releases[digest]}): {file['path']} is not as signed")
        except OSError as error:
            raise Trouble(f"{name} ({releases[digest]}): {error}") from error
        return releases[digest]

    def look(self, state, told):
        current = self.linked(state, "current")
        self.linked(state, "previous")
        if current not in self.allowed(told):
            raise Trouble(f"{current} is current, {self.story.after(told['step'])} had been told")
        if held_timestamp(state) < told["timestamp"]:
            raise Trouble(f"metadata {held_timestamp(state)} is older than {told['timestamp']}")
        if held_clock(state) < told["clock"]:
            raise Trouble(f"the trust clock went back from {told['clock']}")

    def live(self, state, told, thorough):
        with Agent(self.world, self.broker, state) as agent:
            self.settle(agent, told)
            if taken := self.story.commands.get(told["sequence"]):
                agent.until("the broker", connected)
                if any(reply["status"] == "executing" for reply in self.broker.ask(taken)):
                    raise Trouble(f"command {taken['id']} was taken before the cut and is taken again")
            current = self.allow(told, slot(agent.status())["current"])
            self.rebuilt += any(one["code"] == "store_rebuilt" for one in agent.status()["health"]["problems"])
            if thorough:
                following = self.story.following
                if (reply := agent.order(command="update", slot=SLOT, release=following))["status"] != "successful":
                    raise Trouble(f"the next update: {reply.get('reason')}")
                agent.until("frames after the next update", serving(following))
                current = following
            # Swept after the end of a deployment, just behind its report.
            deadline = time.monotonic() + 2
            while (left := self.left(state)) and time.monotonic() < deadline:
                time.sleep(0.1)
            if left:
                raise Trouble(f"left behind: {left}")
            agent.kill()
            if self.linked(state, "current") != current:
                raise Trouble(f"{current} served and is not linked")

    def settle(self, agent, told):
        """Waits for the end of what was under way, and for frames."""
        if told["deployment"]:
            def newest(status):
                return slot(status)["deployment"]
            try:
                agent.until("", newest, 5)
            except Trouble as trouble:
                raise Trouble(f"deployment {told['deployment']} had ended and is forgotten") from trouble
        else:
            # There may be none, and until the slot's actor has spoken nothing tells.
            time.sleep(0.4)
        now = agent.until("the end of what was under way", ended)
        if current := self.allow(told, now["current"]):
            agent.until(f"frames answered by {current}", serving(current))
        if told["deployment"]:
            newest = now["deployment"]["id"]
            # They are made of the time.
            if newest < told["deployment"]:
                raise Trouble(f"deployment {told['deployment']} had ended and is forgotten")
            if newest == told["deployment"] and "going on with" in agent.said():
                raise Trouble(f"deployment {newest} had ended and was told again")

    def allow(self, told, current):
        release = current and current["release"]
        if release not in self.allowed(told):
            raise Trouble(f"{release} serves, {self.story.after(told['step'])} had been told")
        return release

    def left(self, state):
        """What nothing needs any more."""
        named = {link.readlink().name for link in (state / "slots" / SLOT).glob("*") if link.is_symlink()}
        models = [one.name for one in (state / "models").iterdir() if one.name not in named]
        return models + [str(one.relative_to(state)) for one in (state / "downloads").iterdir()]


def record(world, story, folder, kind, shim, forget):
    """One story on a fresh disk; gives the log's figures."""
    broker = Broker(world.folder)
    environment = {"LD_PRELOAD": str(shim), "EDGEWARDEN_LAB_FORGET": forget} if forget else {}
    try:
        with disks.Recorder(folder, SIZE[kind], kind) as recorder:
            with Agent(world, broker, recorder.mnt / "state", environment=environment) as agent:
                story.tell(agent, recorder.mark)
                agent.kill()
    finally:
        broker.close()
    return disks.figures(folder, SIZE[kind])


def replay(story, folder, kind, seed, most, workers, enough, close):
    """Checks the disks of a recording; gives how many there were, the findings, and how many stores were rebuilt."""
    # A btrfs has an id that cannot be mounted twice.
    workers = 1 if kind == "btrfs" else workers
    checkers = [Checker(story, folder / f"check-{number}", kind) for number in range(workers)]
    free, findings, tried = queue.Queue(), [], 0
    for checker in checkers:
        free.put(checker)

    def one(checker, disk, thorough):
        try:
            why = checker.check(disk.told, thorough)
        except Exception as error:  # noqa: BLE001: told like a finding, and never lost
            why = f"{BROKEN}: {error!r}"
        if why:
            findings.append((disk, why))
            shutil.copy(checker.image, folder / "finding.img")
        free.put(checker)

    try:
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            for durable, disk in disks.disks(folder, SIZE[kind], seed, most, close=close):
                checker = free.get()
                if enough and len(findings) >= enough:
                    break
                disk.build(durable, checker.image, SIZE[kind])
                pool.submit(one, checker, disk, tried % EVERY == EVERY - 1)
                tried += 1
    finally:
        for checker in checkers:
            checker.close()
    return tried, findings, sum(checker.rebuilt for checker in checkers)


def nothing_goes_past(world, story, folder, shim):
    """With everything forgotten, the kernel must not be asked for a single sync: else a planted bug would be none."""
    calls = "fsync,fdatasync,sync_file_range,msync,sync,syncfs"
    trace = folder / "syncs"
    broker = Broker(world.folder)
    environment = {"EDGEWARDEN_LAB_FORGET": "file,folder,store"}
    prefix = ["strace", "-f", "-qq", "-e", f"trace={calls},openat", "-e", "signal=none", "-o", trace,
              "-E", f"LD_PRELOAD={shim}"]
    try:
        with Agent(world, broker, folder / "state", environment=environment, prefix=prefix) as agent:
            story.tell(agent, lambda text: None)
    finally:
        broker.close()
    past = [line for line in trace.read_text().splitlines()
            if re.search(r"\b(fsync|fdatasync|sync_file_range|msync|sync|syncfs)\(", line) or re.search(r"O_D?SYNC", line)]
    if past:
        sys.exit(f"crash-lab: {len(past)} syncs go past the shim, such as: {past[0]}")


RUNS = [
    # Name, file system, what is forgotten, share of the disks.
    ("as it is", "ext4", "", 1.0),
    ("as it is", "btrfs", "", 0.15),
    ("no fsync of files", "ext4", "file", 0.5),
    ("no fsync of folders", "btrfs", "folder", 0.5),
    ("no fsync of sled's file", "ext4", "store", 0.5),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("program", "library", "models", "shim"):
        parser.add_argument(name, type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--quick", action="store_true", help="fewer disks: two or three minutes")
    parser.add_argument("--disks", type=int, help="about so many disks of the first run (0: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", help="the runs whose name and file system hold this")
    parser.add_argument("--keep", action="store_true", help="leave the recordings where they are")
    args = parser.parse_args()
    # Ended by a time limit it must leave no loop device and no process behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("crash-lab: ended"))
    most = args.disks if args.disks is not None else 120 if args.quick else 800
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="edgewarden-crash-lab-"))
    rows, bad = [], False
    try:
        with World(args.program, args.library, args.models) as world:
            (scratch / "past").mkdir()
            nothing_goes_past(world, Story(world), scratch / "past", args.shim)
        print("shim: with all syncs forgotten, strace sees none in the kernel", flush=True)
        for number, (name, kind, forget, share) in enumerate(RUNS):
            if args.only and args.only not in f"{name} {kind}":
                continue
            begun = time.monotonic()
            folder = scratch / f"run-{number}"
            with World(args.program, args.library, args.models) as world:
                story = Story(world)
                entries, flushes, marks = record(world, story, folder, kind, args.shim, forget)
                story.following = world.publish("v1", "9.0.0")
                tried, findings, rebuilt = replay(story, folder, kind, args.seed, int(most * share), args.workers,
                                                  ENOUGH if forget else 0, 2 if args.quick else 4)
            broken = any(BROKEN in why for _, why in findings)
            good = bool(findings) and not broken if forget else not findings
            bad |= not good
            for disk, why in findings[:5]:
                print(f"{name}, {kind}: entry {disk.entry}, {disk.kind}: {why}", flush=True)
            rows.append((name, kind, entries, flushes, marks, tried, rebuilt, len(findings),
                         "as wanted" if good else "WRONG", f"{time.monotonic() - begun:.0f} s"))
            if not args.keep:
                shutil.rmtree(folder)
    finally:
        if args.keep:
            print(f"kept: {scratch}")
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    head = ("run", "file system", "log entries", "flushes", "marks", "disks tried", "stores rebuilt", "findings", "", "time")
    widths = [max(len(str(row[column])) for row in [head, *rows]) for column in range(len(head))]
    print()
    for row in [head, *rows]:
        print("  ".join(str(cell).ljust(width) if number < 2 else str(cell).rjust(width)
                        for number, (cell, width) in enumerate(zip(row, widths))).rstrip())
    print(f"\nseed {args.seed}; {sum(row[5] for row in rows)} disks in all")
    sys.exit(bad)


if __name__ == "__main__":
    main()
