#!/usr/bin/env python3
"""The whole path of a running device: source process, shared memory, inference process, agent.

bench_path.py PROGRAM BUNDLE PICTURE LIBRARY [SECONDS [THREADS [FPS]]]: signs the bundle into a repository
of its own, starts the agent on a folder with that picture, faster than the model unless FPS says otherwise,
has it take the bundle, and prints one JSON object from the agent's own figures and from /proc: frames,
latencies, memory at its peak and processor time.

With `none` as the BUNDLE no model is installed, and only the processor time is of interest.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

program, bundle, picture, library = (pathlib.Path(arg).resolve() for arg in sys.argv[1:5])
seconds = float(sys.argv[5]) if len(sys.argv) > 5 else 10
threads = int(sys.argv[6]) if len(sys.argv) > 6 else 1
fps = float(sys.argv[7]) if len(sys.argv) > 7 else 240
no_model = sys.argv[2] == "none"


def call(*args):
    done = subprocess.run([program, *args], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench_path.py: {' '.join(map(str, args))}: {done.stderr.strip()}")
    return done.stdout


def status():
    done = subprocess.run([program, "status", "--json", "--config", config], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else None


def family(pid):
    """The agent and its children."""
    try:
        text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        text = ""
    children = {int(child) for child in text.split()}
    # Threads of the agent start children too.
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children |= {int(child) for child in task.read_text().split()}
        except OSError:
            pass
    return [pid, *sorted(children)]


def memory(pid):
    """Bytes with shared pages counted by share; 0 for a process that has ended."""
    try:
        for line in open(f"/proc/{pid}/smaps_rollup"):
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def processor_seconds(pids):
    total = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / os.sysconf("SC_CLK_TCK")


class Peak(threading.Thread):
    """Looks at the memory of the whole family, all at once, ten times a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self.steady, self.done = pid, 0, 0, threading.Event()

    def run(self):
        while not self.done.wait(0.1):
            now = sum(map(memory, family(self.pid)))
            self.most, self.steady = max(self.most, now), now


# A short path: that of the local socket may have about a hundred bytes.
with tempfile.TemporaryDirectory(prefix="edgewarden-bench-") as scratch:
    scratch = pathlib.Path(scratch)
    (scratch / "pictures").mkdir()
    for name in "ab":
        shutil.copy(picture, scratch / "pictures" / f"{name}{picture.suffix}")
    call("repo", "init", scratch / "repo", "--keys", scratch / "keys")
    if not no_model:
        sealed, manifest = scratch / "bundle", json.loads((bundle / "manifest.json").read_text())
        shutil.copytree(bundle, sealed)
        call("bundle", "seal", sealed)
        call("repo", "publish", scratch / "repo", sealed, "--keys", scratch / "keys")
    root = next(scratch.joinpath("repo").rglob("*root.json"))
    config = scratch / "agent.toml"
    config.write_text(f"""
[device]
id = "bench"
[paths]
state = "{scratch}/state"
runtime = "{scratch}/run"
[runtime]
library = "{library}"
intra_threads = {threads}
[repository]
url = "file://{scratch}/repo/"
root = "{root}"
[update]
probation_frames = 20
probation_min = "1s"
disk_reserve = "1MiB"
[[pipeline]]
name = "bench"
slot = "bench"
fps = {fps}
[pipeline.source]
kind = "folder"
path = "{scratch}/pictures"
""")
    with open(scratch / "agent.log", "w") as log:
        agent = subprocess.Popen([program, "run", "--config", config], stderr=log)
    try:
        deadline = time.monotonic() + 60
        while status() is None:
            if agent.poll() is not None or time.monotonic() > deadline:
                sys.exit("bench_path.py: the agent did not start: " + (scratch / "agent.log").read_text()[-2000:])
            time.sleep(0.2)
        if no_model:
            time.sleep(2)
            family_now = family(agent.pid)
            used, start = processor_seconds(family_now), time.monotonic()
            time.sleep(seconds)
            idle = (processor_seconds(family_now) - used) / (time.monotonic() - start)
            print(json.dumps({"idle": idle}))
            sys.exit()
        peak = Peak(agent.pid)
        peak.start()
        call("update", "--config", config, "bench", f"{manifest['name']}@{manifest['version']}")
        while (now := status())["health"]["pipelines"][0]["state"] != "running":
            if time.monotonic() > deadline:
                sys.exit(f"bench_path.py: no model came to run: {json.dumps(now['health'])}")
            time.sleep(0.2)
        # Over the probation of 20 frames and a second, after which the model that served before is let go.
        time.sleep(2.5)
        peak.done.set()
        peak.join()
        first, start = status(), time.monotonic()
        family_now = family(agent.pid)
        used = processor_seconds(family_now)
        time.sleep(seconds)
        used = processor_seconds(family_now) - used
        last, end = status(), time.monotonic()
        steady = sum(map(memory, family_now))
    finally:
        agent.send_signal(signal.SIGTERM)
        try:
            agent.wait(20)
        except subprocess.TimeoutExpired:
            agent.kill()
    (before,), (after,) = first["metrics"]["pipelines"], last["metrics"]["pipelines"]
    counted = {name: after["frames"][name] - before["frames"][name] for name in after["frames"]}
    stages = {stage: figures["p50"] for stage, figures in after["latency_ms"].items()}
    by_process = {process["role"].split(":")[0]: process.get("pss_bytes", process["rss_bytes"])
                  for process in last["metrics"]["processes"]}
    print(json.dumps({"fps": counted["answered"] / (end - start), "frames": counted, "stages": stages,
                      "memory": by_process, "peak_bytes": max(peak.most, steady), "steady_bytes": steady,
                      "cpu_ms": 1000 * used / max(counted["answered"], 1), "threads": threads}))
