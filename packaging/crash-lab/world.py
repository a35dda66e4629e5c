"""What stands around the device: a signed repository behind a web server, a broker, somebody with a key; and the agent
itself, started on whatever state folder it is given.
"""
import datetime
import hashlib
import json
import os
import pathlib
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from device import Unix, free_port  # noqa: E402

DEVICE, SLOT = "lab", "detector"
# Only a guard against what hangs.
PATIENCE = 20


class Trouble(Exception):
    """What the device did wrong, in a line."""


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"crash-lab: {' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


class Broker:
    """mosquitto with a listener of its own that hears the replies to commands."""

    def __init__(self, folder):
        self.port = free_port()
        config = pathlib.Path(folder) / f"mosquitto-{self.port}.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nlog_type error\n")
        config.chmod(0o644)
        program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin") or sys.exit("no mosquitto")
        self.server = subprocess.Popen([program, "-c", config])
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        self.listener = subprocess.Popen(
            ["mosquitto_sub", "-p", str(self.port), "-q", "1", "-t", f"edgewarden/{DEVICE}/ack/#"],
            stdout=subprocess.PIPE, text=True)
        self.replies = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.listener.stdout:
            self.replies.put(json.loads(line))

    def send(self, signed):
        """Publishes a signed command."""
        run("mosquitto_pub", "-p", self.port, "-q", 1, "-t", signed["topic"], "-m", signed["envelope"])

    def reply(self, wanted, patience=PATIENCE):
        """The next reply to a command."""
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            try:
                reply = self.replies.get(timeout=left)
            except queue.Empty:
                break
            if reply["id"] == wanted["id"]:
                return reply
        raise Trouble(f"no reply to command {wanted['id']}")

    def ask(self, signed, is_over=lambda: False):
        """Publishes a signed command and gives reply after reply, until the end of it or until `is_over`. It is sent
        again while nothing is heard: a device that has just connected may not listen yet."""
        begun = datetime.datetime.now(datetime.timezone.utc).isoformat()[:26]
        deadline, again, heard = time.monotonic() + PATIENCE, 0, False
        while time.monotonic() < deadline and not is_over():
            if not heard and time.monotonic() >= again:
                self.send(signed)
                again = time.monotonic() + 2
            try:
                reply = self.reply(signed, 0.05)
            except Trouble:
                continue
            # Answers to a time before may still come, too.
            if reply["sent_at"] >= begun:
                heard, deadline = True, time.monotonic() + PATIENCE
                yield reply
                if reply["status"] in ("successful", "failed"):
                    return
        if not is_over():
            raise Trouble(f"no end of command {signed['id']}")

    def close(self):
        for process in (self.listener, self.server):
            process.terminate()
            process.wait()


class World:
    """The repository with its keys, and its web server; a context manager."""

    def __init__(self, program, library, models):
        self.program, self.library = pathlib.Path(program).resolve(), pathlib.Path(library).resolve()
        self.models, self.web, self.digests, self.sequence = pathlib.Path(models), None, {}, 0
        self.turn = threading.Lock()
        # Kills are no boot loop of the model; the key is newer than this script.
        known = (self.models.parent.parent / "agent.toml").read_text()
        self.update_lines = "max_starts = 0" if "max_starts" in known else ""
        # A short path: that of the agent's socket may have about a hundred bytes.
        self.scratch = tempfile.TemporaryDirectory(prefix="edgewarden-lab-")
        self.folder = pathlib.Path(self.scratch.name)
        self.repository, self.keys = self.folder / "repository", self.folder / "keys"

    def __enter__(self):
        self.folder.chmod(0o755)
        run(self.program, "repo", "init", self.repository, "--keys", self.keys)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        self.web = subprocess.Popen([self.program, "repo", "serve", self.repository, "--listen",
                                     f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *_):
        if self.web:
            self.web.terminate()
            self.web.wait()
        self.scratch.cleanup()

    def publish(self, model, version=None):
        """Publishes one of the demo's bundles, under another version where one is given; gives the release."""
        bundle = self.models / model
        if version:
            bundle = self.folder / f"bundle-{version}"
            shutil.copytree(self.models / model, bundle)
            manifest = json.loads((bundle / "manifest.json").read_text())
            manifest["version"] = version
            (bundle / "manifest.json").write_text(json.dumps(manifest))
            run(self.program, "bundle", "seal", bundle)
        told = json.loads(run(self.program, "repo", "publish", self.repository, bundle, "--keys", self.keys, "--json"))
        self.digests[told["release"]] = told["digest"]
        return told["release"]

    def timestamp(self):
        """The version of the newest metadata."""
        return json.loads((self.repository / "metadata/timestamp.json").read_text())["signed"]["version"]

    def sign(self, **action):
        """A signed command under the next number."""
        with self.turn:
            self.sequence += 1
            number = self.sequence
        key = self.keys / "signing.pem"
        return json.loads(run(self.program, "sign-command", "--key", key, "--to", DEVICE, "--sequence", number,
                              "--id", f"lab-{number}", "--expires", "1d", "--action", json.dumps(action), "--json"))


    @staticmethod
    def sequence_of(signed):
        return int(signed["id"].rpartition("-")[2])


class Agent:
    """The real agent on a state folder; a context manager that kills it."""

    def __init__(self, world, broker, state, extra="", environment=None, prefix=()):
        self.world, self.broker, self.state = world, broker, pathlib.Path(state)
        self.extra, self.environment, self.prefix = extra, environment or {}, list(prefix)
        self.scratch = tempfile.TemporaryDirectory(prefix="ewl-")
        self.folder = pathlib.Path(self.scratch.name)
        self.process = None

    def __enter__(self):
        config = self.folder / "agent.toml"
        root = self.world.repository / "metadata/1.root.json"
        config.write_text(f"""
[device]
id = "{DEVICE}"
[paths]
state = "{self.state}"
runtime = "{self.folder}/run"
[runtime]
library = "{self.world.library}"
intra_threads = 1
[mqtt]
url = "mqtt://127.0.0.1:{self.broker.port}"
results_per_second = 1
[repository]
url = "{self.world.url}"
root = "{root}"
[update]
probation_frames = 3
probation_min = "200ms"
# Not what is tried here: a busy machine must not roll an update back, and the cuts are no boot loop.
slow_floor_ms = 60000
max_boots = 100
disk_reserve = "1MiB"
{self.world.update_lines}
{self.extra}
[[pipeline]]
name = "main"
slot = "{SLOT}"
fps = 20
source = {{ kind = "synthetic", seed = 7, width = 160, height = 120 }}
""")
        self.log = open(self.folder / "agent.log", "w")
        self.process = subprocess.Popen([*self.prefix, self.world.program, "run", "--config", config],
                                        stdout=self.log, stderr=self.log, start_new_session=True,
                                        env={**os.environ, **self.environment})
        return self

    def __exit__(self, *_):
        self.kill()
        # What a killed agent leaves in shared memory; the next one on the same folder would drop it.
        prefix = "ew" + hashlib.sha256(str(self.state).encode()).hexdigest()[:8]
        for left in pathlib.Path("/dev/shm").glob(f"{prefix}*"):
            left.unlink(missing_ok=True)
        self.log.close()
        self.scratch.cleanup()

    def kill(self):
        """Ends it as the end of power would, with its children."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process:
            self.process.wait()

    def stop(self):
        """Ends it in order."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def said(self):
        return (self.folder / "agent.log").read_text()

    def status(self):
        """What the agent says of itself; None while it does not answer."""
        connection = Unix(self.folder / "run/agent.sock", timeout=20)
        try:
            connection.request("GET", "/v1/status")
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None
        except (OSError, ValueError):
            return None
        finally:
            connection.close()

    def until(self, what, found, patience=PATIENCE):
        """Waits until `found` makes something of a status."""
        deadline = time.monotonic() + patience
        while True:
            status = self.status()
            if status and (value := found(status)):
                return value
            if self.process.poll() is not None:
                raise Trouble(f"the agent ended ({self.process.returncode}): {self.said()[-300:]}")
            if time.monotonic() > deadline:
                raise Trouble(f"waited in vain for {what}: {self.said()[-300:]}")
            time.sleep(0.03)

    def order(self, on_reply=lambda signed, reply: None, **action):
        """Sends a signed command and follows it to its end; gives the last reply."""
        signed = self.world.sign(**action)
        self.until("the broker", connected)
        for reply in self.broker.ask(signed, lambda: self.process.poll() is not None):
            on_reply(signed, reply)
        if self.process.poll() is not None:
            raise Trouble(f"the agent ended ({self.process.returncode}): {self.said()[-300:]}")
        return reply


def slot(status):
    return status["slots"][0]


def connected(status):
    """Whether it hears the broker."""
    return status["health"]["mqtt"]["reached"]


def ended(status):
    """The slot's state once nothing is under way."""
    now = slot(status)
    under_way = now["deployment"] and now["deployment"]["stage"] not in ("committed", "refused", "rolled_back")
    return None if under_way else now


def serving(release):
    """Whether a model answers frames, and it is this one."""
    def look(status):
        pipeline = status["health"]["pipelines"][0]
        answered = sum(one["frames"]["answered"] for one in status["metrics"]["pipelines"])
        return status if pipeline["release"] == release and answered > 0 else None
    return look
