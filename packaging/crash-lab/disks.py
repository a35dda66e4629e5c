"""What a disk may hold after a power cut: every block write and flush of a file system is logged while a program
works on it, and the disk is built again as a cut at each of them could leave it.

How: qemu-storage-daemon (`blklogwrites` over a raw file, exported with FUSE) under a loop device; neither
device-mapper nor a virtual machine is needed, and the program runs at its full speed. Needs root. The log's format is
that of dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst of Linux).

Killing a program, or a virtual machine, shows nothing of this: what was written and not synced outlives both.
"""
import dataclasses
import mmap
import os
import pathlib
import random
import struct
import subprocess
import sys
import time

SECTOR = 512
# The end of the disk takes the marks; the file system ends before it.
MARKS = 1 << 20
FLUSH, FUA, DISCARD = 1, 2, 4
MAGIC = 0x6A736677736872

MAKE = {
    "ext4": lambda disk, size: ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-E",
                                "lazy_itable_init=0,lazy_journal_init=0", disk, f"{size >> 10}k"],
    "btrfs": lambda disk, size: ["mkfs.btrfs", "-q", "-f", "-b", str(size), "-m", "single", disk],
}


def call(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout.strip()


def unmount(at):
    """Unmounts, once the last of the killed processes has let go of it."""
    for _ in range(400):
        if not os.path.ismount(at):
            return
        if subprocess.run(["umount", "-q", str(at)], stderr=subprocess.DEVNULL).returncode:
            time.sleep(0.05)
    raise RuntimeError(f"{at} cannot be unmounted")


class Recorder:
    """A fresh file system at `mnt` whose writes are logged; a context manager."""

    def __init__(self, folder, size, kind):
        self.folder, self.size, self.kind = pathlib.Path(folder), size, kind
        self.mnt = self.folder / "mnt"
        self.marks, self.loop, self.daemon, self.raw = 0, None, None, None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def start(self):
        self.mnt.mkdir(parents=True)
        disk, log, export = (self.folder / name for name in ("disk.img", "log.img", "export"))
        for file in (disk, log, export):
            file.touch()
        os.truncate(disk, self.size + MARKS)
        call(*MAKE[self.kind](disk, self.size))
        call("cp", "--sparse=always", disk, self.folder / "base.img")
        self.daemon = subprocess.Popen([
            "qemu-storage-daemon", "--blockdev", f"driver=file,node-name=f,filename={disk}",
            "--blockdev", f"driver=file,node-name=l,filename={log}",
            "--blockdev", f"driver=blklogwrites,node-name=b,file=f,log=l,log-sector-size={SECTOR}",
            "--export", f"type=fuse,id=e,node-name=b,mountpoint={export},writable=on"])
        deadline = time.monotonic() + 20
        while export.stat().st_size == 0:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                sys.exit("crash-lab: qemu-storage-daemon exports nothing (is /dev/fuse there?)")
            time.sleep(0.02)
        self.loop = call("losetup", "-f", "--show", export)
        call("mount", "-t", self.kind, self.loop, self.mnt)
        self.raw = os.open(self.loop, os.O_WRONLY | os.O_DIRECT)
        self.buffer = mmap.mmap(-1, SECTOR)

    def mark(self, text):
        """From here on `text` has been told to somebody. A direct write without a flush takes its place in the log
        and hides no missing sync."""
        raw = text.encode()
        if len(raw) > SECTOR:
            raise ValueError(f"a mark of {len(raw)} bytes")
        self.buffer[:] = raw.ljust(SECTOR, b"\0")
        os.pwrite(self.raw, self.buffer, self.size + self.marks * SECTOR % MARKS)
        self.marks += 1

    def __exit__(self, kind, *_):
        if self.raw is not None:
            os.close(self.raw)
        # What the unmount writes is logged too; it is no part of the story.
        unmount(self.mnt)
        if self.loop:
            subprocess.run(["losetup", "-d", self.loop], stderr=subprocess.DEVNULL)
            time.sleep(0.2)
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait()


def entries(log):
    """(flags, byte offset, data) in the order in which the disk saw them."""
    with open(log, "rb") as file:
        magic, _, count, sector = struct.unpack("<QQQI", file.read(28))
        if magic != MAGIC:
            sys.exit(f"crash-lab: {log} is no log of writes")
        at = sector
        for _ in range(count):
            file.seek(at)
            first, sectors, flags, _ = struct.unpack("<QQQQ", file.read(32))
            file.seek(at + sector)
            data = bytes(sectors * sector) if flags & DISCARD else file.read(sectors * sector)
            yield flags, first * sector, data
            at += sector + (0 if flags & DISCARD else sectors * sector)


@dataclasses.dataclass
class Disk:
    """One disk that a cut may leave."""
    entry: int
    kind: str
    told: str
    writes: list

    def build(self, durable, image, size):
        call("cp", "--sparse=always", durable, image)
        with open(image, "r+b", buffering=0) as file:
            for offset, data in self.writes:
                file.seek(offset)
                file.write(data)
            file.truncate(size)


def disks(folder, size, seed, most, subsets=3, close=4):
    """The disks of a recording, at most about `most` (0: all), with the image of what was durable at that moment,
    which is only good until the next one is asked for. At each point: everything that was written; only what was
    flushed (a drive that loses its cache); and random choices of the unflushed writes, the last of them sometimes torn
    (a drive that reorders). The `close` points behind each mark are always tried, the rest by the dice."""
    folder, dice = pathlib.Path(folder), random.Random(seed)
    durable = folder / "durable.img"
    call("cp", "--sparse=always", folder / "base.img", durable)
    log = list(entries(folder / "log.img"))
    marks = [at for at, (_, offset, data) in enumerate(log) if offset >= size and data]
    last = marks[-1] if marks else len(log)
    # Between the last mark and the unmount nothing is promised that was not before.
    points = list(range(min(last + 40, len(log))))
    if most:
        near = {at + step for at in marks for step in range(close)}
        wanted = max(most // (subsets + 2), 1)
        chosen = set(dice.sample(points, min(wanted, len(points)))) | near
    else:
        chosen = set(points)
    with open(durable, "r+b", buffering=0) as base:
        def settle(write):
            base.seek(write[0])
            base.write(write[1])

        pending, told, seen, flushed = [], "", set(), 0
        for at, (flags, offset, data) in enumerate(log):
            if flags & FLUSH:
                for write in pending:
                    settle(write)
                pending.clear()
                flushed = at
            if offset >= size and data:
                told = data.rstrip(b"\0").decode()
            elif data and flags & FUA:
                settle((offset, data))
                flushed = at
            elif data:
                pending.append((offset, data))
            if at not in chosen:
                continue
            tries = [("all written", list(pending)), ("flushed only", [])]
            for _ in range(subsets if len(pending) > 1 else 0):
                some = [write for write in pending if dice.random() < 0.5]
                kind = f"{len(some)} of {len(pending)} unflushed"
                if some and len(some[-1][1]) > SECTOR and dice.random() < 0.3:
                    sectors = dice.randrange(1, len(some[-1][1]) // SECTOR)
                    some[-1] = (some[-1][0], some[-1][1][:sectors * SECTOR])
                    kind += ", the last one torn"
                tries.append((kind, some))
            for kind, writes in tries:
                key = (tuple((offset, len(data)) for offset, data in writes), flushed, told)
                if key not in seen:
                    seen.add(key)
                    yield durable, Disk(at, kind, told, writes)


def figures(folder, size):
    """How many entries, flushes and marks a recording has."""
    log = list(entries(pathlib.Path(folder) / "log.img"))
    flushes = sum(1 for flags, _, _ in log if flags & FLUSH)
    return len(log), flushes, sum(1 for _, offset, data in log if offset >= size and data)
