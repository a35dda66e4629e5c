"""Machines that a test may install on, break and cut off: a container with systemd as PID 1, and a qemu machine.

Both know `run`, `start`, `push` and `end`. Neither has a network beyond itself. All that they start is their own
child and ends with them, also when the test is interrupted; a test that is killed takes them along (the kernel's
parent-death signal).
"""
import ctypes
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import qemu

CGROUPS = pathlib.Path("/sys/fs/cgroup")
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """A check of the test did not hold."""


class Unable(Failed):
    """There is no such machine to be had here, whatever would run in it."""


def dies_with_us(*before):
    """For a child before it starts its program."""
    def prepare():
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for step in before:
            step()
    return prepare


class Machine:
    """What both have in common. `slow` is how many times longer than usual each wait may take: a wait ends as soon as
    what it waits for is there, so a high one costs time only where something is broken."""

    slow = 4
    # Floats are some hundred times slower there.
    emulated = False

    def words(self, command):
        """The command on this machine that runs the command in that one."""
        raise NotImplementedError

    def run(self, *command, text=None, check=True, timeout=300):
        """Runs a command in it; its exit status and what it said, on both outputs."""
        try:
            done = subprocess.run(self.words(command), input=text if text is not None else "", text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout * self.slow)
        except subprocess.TimeoutExpired as late:
            said = late.stdout or b""
            said = said.decode(errors="replace") if isinstance(said, bytes) else said
            raise Failed(f"{' '.join(command)[:200]}: not done after {timeout * self.slow:.0f} s\n{said[-2000:]}") from None
        if check and done.returncode:
            raise Failed(f"{' '.join(command)[:300]}: exit status {done.returncode}\n{done.stdout[-3000:]}")
        return done

    def shell(self, script, **options):
        """Runs a script in it; what it said."""
        return self.run("sh", "-euc", script, **options).stdout

    def start(self, *command):
        """Starts a command in it; lines of its output can be read from the process that comes back."""
        return subprocess.Popen(self.words(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, preexec_fn=dies_with_us())

    def write(self, path, text, mode="644"):
        """A file of root's in it."""
        folder = os.path.dirname(path)
        self.run("sh", "-euc", f"mkdir -p {folder}; umask 077; cat >{path}; chmod {mode} {path}", text=text)

    def push(self, paths, folder):
        """Copies files and folders into a folder of it."""
        tar = ["tar", "--create", "--owner=0", "--group=0"]
        for path in map(pathlib.Path, paths):
            tar += ["-C", str(path.resolve().parent), path.name]
        with subprocess.Popen(tar, stdout=subprocess.PIPE) as packed:
            command = self.words(["sh", "-euc", f"mkdir -p {folder}; tar -xC {folder}"])
            done = subprocess.run(command, stdin=packed.stdout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode or packed.returncode:
            raise Failed(f"copy {paths} into the machine: {done.stdout}")

    def until_booted(self, seconds, alive, log):
        """Waits for systemd; a unit that failed is told, and is for the test to judge."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = self.run("systemctl", "is-system-running", check=False, timeout=20).stdout.strip()
            if state == "degraded":
                print("  (failed units: " + self.shell("systemctl list-units --failed --plain --no-legend") + ")")
            if state in ("running", "degraded"):
                return
            if not alive():
                break
            time.sleep(0.3)
        raise Unable(f"the machine did not come up\n{pathlib.Path(log).read_text(errors='replace')[-3000:]}")


class Container(Machine):
    """systemd as PID 1 on this machine's kernel, in a copy of the root of `image.sh container`."""

    def __init__(self, image, scratch):
        self.root = pathlib.Path(scratch) / "container"
        self.log = pathlib.Path(scratch) / "container.log"
        self.spawned, self.init, self.cgroups = None, None, []
        if subprocess.run(["cp", "-a", "--reflink=auto", str(image / "root"), str(self.root)]).returncode:
            raise Unable(f"{image}/root cannot be copied to {self.root}: is the disk full?")

    def words(self, command):
        environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb",
                       "DEBIAN_FRONTEND=noninteractive"]
        return ["nsenter", "-t", str(self.leader()), "-a", *environment, *command]

    def leader(self):
        """Its PID 1, as this machine sees it."""
        if self.init is None or not pathlib.Path(f"/proc/{self.init}").exists():
            found = subprocess.run(["pgrep", "-P", str(self.spawned.pid)], stdout=subprocess.PIPE, text=True).stdout.split()
            self.init = int(found[0]) if found else None
        # A process of no namespace of its own would run the command on this machine.
        if self.init and os.readlink(f"/proc/{self.init}/ns/pid") != os.readlink("/proc/self/ns/pid"):
            return self.init
        self.init = None
        return "0"

    def boot(self):
        command = ["systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine=edgewarden-test-{os.getpid()}",
                   "--register=no", "--private-network", "--console=pipe", "--resolv-conf=off", "--timezone=off",
                   "--link-journal=no", "--boot"]
        steps = []
        if not pathlib.Path("/run/systemd/system").exists():
            # No systemd here that could give it a control group (a container, such as CI's): one of our own.
            command.insert(1, "--keep-unit")
            bases = [CGROUPS / name for name in ("unified", "systemd") if (CGROUPS / name).is_dir()] or [CGROUPS]
            for group in (base / f"edgewarden-test-{os.getpid()}" for base in bases):
                try:
                    group.mkdir()
                except OSError as error:
                    raise Unable(f"no control group for a container can be made here: {error}") from None
                self.cgroups.append(group)
            steps = [lambda group=group: (group / "cgroup.procs").write_text(str(os.getpid())) for group in self.cgroups]
        with open(self.log, "w") as log:
            self.spawned = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True, preexec_fn=dies_with_us(*steps))
        # Until its first process stands, there is nothing to enter.
        deadline = time.monotonic() + 30 * self.slow
        while self.leader() == "0":
            if self.spawned.poll() is not None or time.monotonic() > deadline:
                raise Unable(f"systemd-nspawn did not start: {self.log.read_text().strip()}; --vm uses qemu instead")
            time.sleep(0.1)
        self.until_booted(60 * self.slow, lambda: self.spawned.poll() is None, self.log)

    def end(self):
        if self.spawned:
            leader = self.leader()
            # With its PID 1 all its processes end at once.
            os.kill(int(leader) if leader != "0" else self.spawned.pid, signal.SIGKILL)
            try:
                self.spawned.wait(20)
            except subprocess.TimeoutExpired:
                self.spawned.kill()
                self.spawned.wait()
            self.spawned = None
        for group in self.cgroups:
            for folder, _, _ in os.walk(group, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError as error:
                    print(f"device-test: {folder} stays: {error}", file=sys.stderr)
        self.cgroups = []
        shutil.rmtree(self.root, ignore_errors=True)


class Vm(Machine):
    """A qemu machine from `image.sh machine`; its disk is a copy-on-write one that goes with it."""

    def __init__(self, image, arch, scratch):
        self.image, self.arch, self.folder = pathlib.Path(image), arch, pathlib.Path(scratch) / f"vm-{arch}"
        self.folder.mkdir()
        self.disk, self.log = self.folder / "root.qcow2", self.folder / "console.log"
        # Short: a socket's path may have about a hundred bytes.
        self.sockets = pathlib.Path(tempfile.mkdtemp(prefix="ew-"))
        self.qemu, self.line, self.port = None, None, None
        self.accel = qemu.accelerator(arch)
        self.emulated = self.accel != "kvm"
        self.slow = 10 if self.emulated else 4
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self.image / "root.img"),
                        str(self.disk)], check=True)

    def ssh(self, *more):
        return ["ssh", "-i", str(self.image / "key"), "-p", str(self.port), "-S", str(self.sockets / "ssh"),
                "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                "-o", "BatchMode=yes", "-o", "ConnectTimeout=60", *more, "root@127.0.0.1"]

    def words(self, command):
        inside = "LC_ALL=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive " + shlex.join(command)
        return [*self.ssh(), inside]

    def power_on(self, *more):
        """Without waiting for anything."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [*qemu.command(self.arch, self.accel, self.image / "vmlinuz", self.image / "initrd.img",
                                 "root=/dev/vda rw"),
                   "-drive", f"file={self.disk},if=none,id=root,cache=writeback",
                   "-device", "virtio-blk-pci,drive=root", "-device", "virtio-rng-pci",
                   "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22",
                   "-device", "virtio-net-pci,netdev=net,romfile=", "-serial", f"file:{self.log}",
                   "-qmp", f"unix:{self.sockets}/qmp,server,nowait", *more]
        with open(self.folder / "qemu.log", "w") as log:
            self.qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         start_new_session=True, preexec_fn=dies_with_us())

    def connect(self, seconds):
        """One connection for all commands: a handshake is slow there."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.qemu.poll() is not None:
                raise Failed("qemu ended: " + (self.folder / "qemu.log").read_text() + self.log.read_text(errors="replace")[-2000:])
            if self.line is None or self.line.poll() is not None:
                self.line = subprocess.Popen(self.ssh("-M", "-N"), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                             preexec_fn=dies_with_us())
            if (self.sockets / "ssh").exists():
                return
            time.sleep(0.1)
        raise Failed(f"the machine cannot be reached\n{self.log.read_text(errors='replace')[-3000:]}")

    def boot(self):
        self.power_on()
        self.connect(60 * self.slow)
        self.until_booted(60 * self.slow, lambda: self.qemu.poll() is None, self.log)

    def qmp(self, line):
        """A line for qemu's monitor."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.sockets / "qmp"))
            stream = monitor.makefile("rw")
            stream.readline()
            for order in ({"execute": "qmp_capabilities"},
                          {"execute": "human-monitor-command", "arguments": {"command-line": line}}):
                stream.write(json.dumps(order) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
                while "event" in answer:
                    answer = json.loads(stream.readline())
        if answer.get("return"):
            raise Failed(f"qemu: {line}: {answer}")

    def freeze(self, name):
        """Keeps the running machine: memory and disk."""
        self.qmp(f"savevm {name}")

    def thaw(self, name):
        """Powers on straight into what was kept."""
        self.power_on("-loadvm", name)
        self.connect(60 * self.slow)

    def cut(self):
        """The power is gone: what its kernel had not written to the disk is lost."""
        for process in (self.qemu, self.line):
            if process and process.poll() is None:
                process.kill()
            if process:
                process.wait()
        self.qemu = self.line = None
        for name in ("ssh", "qmp"):
            (self.sockets / name).unlink(missing_ok=True)

    def end(self):
        self.cut()
        shutil.rmtree(self.sockets, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
