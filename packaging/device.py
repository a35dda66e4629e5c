"""A device set up by a script: a signed repository in a folder, the agent on a folder with one picture.

Used by the benchmarks, soak.py and the crash lab, with what else they share. It needs only the program, a bundle folder
(or None: no model), a picture and the ONNX Runtime library, and leaves nothing behind.
"""
import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time


class Unix(http.client.HTTPConnection):
    """HTTP over the agent's local socket."""

    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Device:
    """The running agent with one pipeline, `bench`, on slot `bench`; a context manager."""

    def __init__(self, program, bundle, picture, library, *, versions=1, fps=240, threads=1, extra="",
                 prefix=()):
        self.program, self.prefix = pathlib.Path(program).resolve(), list(prefix)
        self.bundle = bundle and pathlib.Path(bundle).resolve()
        self.picture = pathlib.Path(picture).resolve()
        self.library, self.versions, self.fps = pathlib.Path(library).resolve(), versions, fps
        self.threads, self.extra, self.agent = threads, extra, None
        self.web = None
        # More lines for [runtime], and the [mqtt] table.
        self.runtime, self.mqtt = "", ""
        self.probation = 20, "1s"
        # Whether the repository is served over HTTP; a folder else.
        self.http, self.url = False, None
        # A short path: that of the local socket may have about a hundred bytes.
        self.scratch = tempfile.TemporaryDirectory(prefix="edgewarden-bench-")
        self.folder = pathlib.Path(self.scratch.name)
        self.config = self.folder / "agent.toml"
        self.releases = []

    def call(self, *args):
        done = subprocess.run([self.program, *args], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, args))}: {done.stderr.strip()}")
        return done.stdout

    def publish(self):
        """Signs the bundle, under as many versions as asked for: the same model each time."""
        repo, keys = self.folder / "repo", self.folder / "keys"
        self.call("repo", "init", repo, "--keys", keys)
        for number in range(self.versions if self.bundle else 0):
            sealed = self.folder / f"bundle-{number}"
            shutil.copytree(self.bundle, sealed)
            path = sealed / "manifest.json"
            manifest = json.loads(path.read_text())
            major, rest = manifest["version"].split(".", 1)
            manifest["version"] = f"{int(major) + number}.{rest}"
            path.write_text(json.dumps(manifest))
            self.call("bundle", "seal", sealed)
            self.call("repo", "publish", repo, sealed, "--keys", keys)
            self.releases.append(f"{manifest['name']}@{manifest['version']}")
        return next(repo.rglob("*root.json"))

    def __enter__(self):
        try:
            self.start()
            self.install()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def start(self):
        """Starts the agent, without a model."""
        pictures = self.folder / "pictures"
        pictures.mkdir()
        for name in "ab":
            shutil.copy(self.picture, pictures / f"{name}{self.picture.suffix}")
        root = self.publish()
        if self.http:
            self.serve()
        self.config.write_text(f"""
[device]
id = "bench"
[paths]
state = "{self.folder}/state"
runtime = "{self.folder}/run"
[runtime]
library = "{self.library}"
intra_threads = {self.threads}
{self.runtime}
{self.mqtt}
[repository]
url = "{self.url or f'file://{self.folder}/repo/'}"
root = "{root}"
[update]
probation_frames = {self.probation[0]}
probation_min = "{self.probation[1]}"
# The same model each time: a busy machine must not roll it back.
slow_floor_ms = 60000
disk_reserve = "1MiB"
[[pipeline]]
name = "bench"
slot = "bench"
fps = {self.fps}
{self.extra}
[pipeline.source]
kind = "folder"
path = "{pictures}"
""")
        self.run()
        self.until("the agent to start", self.status)

    def run(self):
        """Starts the agent's process, as it is configured."""
        with open(self.folder / "agent.log", "a") as log:
            self.agent = subprocess.Popen([*self.prefix, self.program, "run", "--config", self.config],
                                          stderr=log, start_new_session=True)

    def serve(self):
        """Serves the repository over HTTP from a process of its own."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        command = [self.program, "repo", "serve", self.folder / "repo", "--listen", f"127.0.0.1:{port}"]
        self.web = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def install(self):
        """Updates to the first release, where there is one, and waits until it runs."""
        if self.releases:
            self.update(self.releases[0])
            self.until("the model to run", self.running)

    def __exit__(self, *_):
        if self.agent and self.agent.poll() is None:
            self.agent.send_signal(signal.SIGTERM)
            try:
                self.agent.wait(20)
            except subprocess.TimeoutExpired:
                self.agent.kill()
                self.agent.wait()
        if self.web:
            self.web.terminate()
            self.web.wait()
        self.scratch.cleanup()

    def log(self):
        path = self.folder / "agent.log"
        return path.read_text() if path.exists() else ""

    def ask(self, method, path, body=None):
        connection = Unix(self.folder / "run" / "agent.sock", timeout=600)
        try:
            connection.request(method, path, body=body and json.dumps(body),
                               headers={"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def status(self):
        """What the agent says of itself; None while it does not answer."""
        try:
            code, text = self.ask("GET", "/v1/status")
        except OSError:
            return None
        return json.loads(text) if code == 200 else None

    def running(self):
        now = self.status()
        return now if now and now["health"]["pipelines"][0]["state"] == "running" else None

    def update(self, release, **shadow):
        """Updates the slot and waits for the end; the last progress as an object."""
        _, text = self.ask("POST", "/v1/update", {"slot": "bench", "release": release, "shadow": shadow})
        last = json.loads(text.strip().splitlines()[-1])
        if last["status"] != "successful":
            sys.exit(f"update to {release}: {last}\n{self.log()[-3000:]}")
        return last

    def until(self, what, found, seconds=120):
        deadline = time.monotonic() + seconds
        while not (value := found()):
            if self.agent.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"waited in vain for {what}: {json.dumps(self.status())[:2000]}\n{self.log()[-3000:]}")
            time.sleep(0.1)
        return value


def free_port():
    """A TCP port of the loopback device at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def mosquitto(program):
    """A broker that keeps nothing, for as long as the context lasts; its port."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        config = pathlib.Path(folder, "mosquitto.conf")
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n"
                          "log_type error\n")
        broker = subprocess.Popen([program, "-c", config])
        try:
            yield port
        finally:
            broker.terminate()
            broker.wait()


def smaps_rollup(pid):
    """KiB of a process by the kernel's name for them: `Rss`, and `Pss`, where shared pages count by share."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}


def frames(status):
    """The pipeline's counts."""
    return status["metrics"]["pipelines"][0]["frames"]


def processes(status):
    """Pids by role, without the pipeline's name."""
    return {one["role"].split(":")[0]: one["pid"] for one in status["metrics"]["processes"]}


def memory(status):
    """Bytes by role, shared pages by share where the kernel tells it."""
    return {one["role"].split(":")[0]: one.get("pss_bytes", one["rss_bytes"])
            for one in status["metrics"]["processes"]}


def own_memory(status):
    """Bytes by role that are the process's alone and no file's: not changed by who else runs the program."""
    found = {}
    for role, pid in processes(status).items():
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        found[role] = next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))
    return found


def unaccounted(counts):
    """Captured frames whose fate is not counted (yet: those in flight)."""
    return counts["captured"] - sum(counts[name] for name in ("answered", "skipped", "unserved", "failed"))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def shared_memory(device):
    """Files in shared memory with the prefix that is made from the device's state folder."""
    prefix = "ew" + hashlib.sha256(f"{device.folder}/state".encode()).hexdigest()[:8]
    return sum(1 for name in os.listdir("/dev/shm") if name.startswith(prefix))


def quantile(values, share):
    values = sorted(values)
    return values[min(int(len(values) * share), len(values) - 1)] if values else float("nan")
