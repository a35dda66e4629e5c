"""The power cut: the qemu machine is killed in the middle of updates, at moments spread over all of their stages, and
must come up with a good model each time.

What its kernel had not written to the disk is lost with it, as on a device; a drive that loses or reorders what it
was told to keep is not played.
"""
import itertools
import json
import queue
import re
import threading
import time

from device import Device, good, release
from everyday import first_installed, step
from machines import Failed

OLD, NEW = "1.0.0", "2.0.0"
HEAD = ("cut", "moment", "last told", "in the journal", "served", "after the boot", "at last", "the update")


class Watched:
    """An update under way, by the progress that its client prints."""

    def __init__(self, device):
        self.client = device.machine.start("edgewarden", "update", "detector", release(NEW), "--json")
        self.lines, self.stage = queue.Queue(), "asked"
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.client.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def next(self, seconds):
        """The stage that begins next, in the words of its client; None at the end or when the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                return None
            try:
                told = json.loads(line) if line else {"status": "ended"}
            except json.JSONDecodeError:
                continue
            if told["status"] == "failed":
                raise Failed(f"the update failed: {line}")
            if told["status"] != "executing":
                return None
            stage = told["detail"].removesuffix(" " + release(NEW))
            if stage != self.stage:
                self.stage = stage
                return stage

    def end(self):
        self.client.kill()
        self.client.wait()


def rehearsal(device):
    """An update that nobody disturbs: its stages and how long each took, seconds."""
    began, stages, update = time.monotonic(), [], Watched(device)
    try:
        name = update.stage
        while name:
            following = update.next(600)
            stages.append((name, time.monotonic() - began))
            began, name = time.monotonic(), following
    finally:
        update.end()
    if not device.running(NEW):
        raise Failed(f"the undisturbed update did not end well\n{device.journal()}")
    return stages


def moments(stages, count):
    """(stage, seconds after its beginning) to cut at: each stage once, then the longest ones again, each time at
    another part of it."""
    # Before the device has begun, there is nothing to interrupt.
    real = [(name, seconds) for name, seconds in stages if name not in ("asked", "accepted")]
    turns = itertools.chain(real, itertools.cycle(sorted(real, key=lambda stage: -stage[1])[:3]))
    for number, (name, seconds) in enumerate(itertools.islice(turns, count)):
        # Multiples of the golden section are spread evenly and never meet.
        yield name, seconds * ((0.5 + 0.618 * number) % 1)


def cut_at(device, stage, seconds):
    """Starts the update and takes the power away; the stage that was really met."""
    update = Watched(device)
    try:
        while update.stage != stage:
            if update.next(300) is None:
                raise Failed(f"the update never came to {stage}, only to {update.stage}")
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and update.next(left):
            pass
        device.machine.cut()
        # What was told meanwhile.
        while update.next(0.2):
            pass
        return update.stage
    finally:
        update.end()


def power(machine, debs, count):
    """`count` cuts, each from the same frozen machine that runs the old model."""
    machine.boot()
    device = Device(machine, debs)
    first_installed(device)
    device.update(OLD)
    device.until("the old model to run", lambda: device.running(OLD))
    device.shell("sync")
    machine.freeze("ready")

    step("B", f"an update that nobody disturbs, from {OLD} to {NEW}")
    stages = rehearsal(device)
    good(", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages))
    machine.cut()

    step("C", f"{count} power cuts in the middle of it")
    table = []
    for number, (stage, seconds) in enumerate(moments(stages, count), 1):
        machine.thaw("ready")
        table.append((number, *cut_and_judge(device, stage, seconds)))
        good("cut " + ", ".join(map(str, table[-1])))
        machine.cut()
    print_table(HEAD, table)
    finished = sum(row[-2] == NEW for row in table)
    good(f"{count} of {count} came up with a good model; {finished} finished the update, {count - finished} had not begun it")


def cut_and_judge(device, stage, seconds):
    """One cut in the thawed machine, and what comes up after it: a row of the table, without its number."""
    met = cut_at(device, stage, seconds)
    device.machine.boot()
    began = time.monotonic()
    first = device.until("a good model after the cut", lambda: device.running(OLD, NEW), 60)
    waited = time.monotonic() - began
    found = journalled(device)
    last = device.until("the end of what was under way", lambda: settled(device), 120)
    deployment = last["slots"][0]["deployment"]
    fate = f"{deployment['release'].split('@')[1]} {deployment['stage']}" if deployment else "none on record"
    row = (f"{seconds:.1f} s into '{stage}'", met, found, served(first), f"{waited:.0f} s", served(last), fate)
    broken = [line for line in device.shell("dmesg").splitlines() if "EXT4-fs error" in line]
    broken += [one["detail"] for one in last["health"]["problems"] if one["code"] in ("store_rebuilt", "model_failed")]
    if broken or fate.endswith("refused"):
        raise Failed(f"cut {', '.join(row)}: {json.dumps([*broken, deployment])}")
    return row


def served(status):
    """The version that answers."""
    return status["health"]["pipelines"][0]["release"].split("@")[1]


def journalled(device):
    """Where the update stood in the agent's journal when the power came back, as the new agent tells."""
    said = device.shell("journalctl --no-pager --boot --unit=edgewarden --output=cat | grep -m1 'going on with' || true")
    if not said:
        return "none under way"
    found = re.search(r"found=(\w+)", said) or re.search(r"stage=(\w+)", said)
    return found[1].lower() if found else said.strip()


def print_table(head, rows):
    rows = [head, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, tuple("-" * width for width in widths))
    for row in rows:
        print("   | " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |", flush=True)


def settled(device):
    """The status, when nothing is under way any more and a model answers."""
    now = device.running(OLD, NEW)
    deployment = now and now["slots"][0]["deployment"]
    return now if now and (not deployment or deployment["stage"] in ("committed", "rolled_back", "refused")) else None
