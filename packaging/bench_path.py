#!/usr/bin/env python3
"""The whole path of a running device: source process, shared memory, inference process, agent.

bench_path.py PROGRAM BUNDLE PICTURE LIBRARY [SECONDS [THREADS]]: signs the bundle into a repository of its
own, starts the agent on a folder with that picture, faster than the model, has it take the bundle, and
prints one JSON object from the agent's own figures.
"""
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

program, bundle, picture, library = (pathlib.Path(arg).resolve() for arg in sys.argv[1:5])
seconds = float(sys.argv[5]) if len(sys.argv) > 5 else 10
threads = int(sys.argv[6]) if len(sys.argv) > 6 else 1


def call(*args):
    done = subprocess.run([program, *args], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench_path.py: {' '.join(map(str, args))}: {done.stderr.strip()}")
    return done.stdout


def status():
    done = subprocess.run([program, "status", "--json", "--config", config], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else None


# A short path: that of the local socket may have about a hundred bytes.
with tempfile.TemporaryDirectory(prefix="edgewarden-bench-") as scratch:
    scratch = pathlib.Path(scratch)
    (scratch / "pictures").mkdir()
    for name in "ab":
        shutil.copy(picture, scratch / "pictures" / f"{name}{picture.suffix}")
    sealed, manifest = scratch / "bundle", json.loads((bundle / "manifest.json").read_text())
    shutil.copytree(bundle, sealed)
    call("bundle", "seal", sealed)
    call("repo", "init", scratch / "repo", "--keys", scratch / "keys")
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
fps = 240
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
        call("update", "--config", config, "bench", f"{manifest['name']}@{manifest['version']}")
        while (now := status())["health"]["pipelines"][0]["state"] != "running":
            if time.monotonic() > deadline:
                sys.exit(f"bench_path.py: no model came to run: {json.dumps(now['health'])}")
            time.sleep(0.2)
        time.sleep(3)
        first, start = status(), time.monotonic()
        time.sleep(seconds)
        last, end = status(), time.monotonic()
    finally:
        agent.send_signal(signal.SIGTERM)
        try:
            agent.wait(20)
        except subprocess.TimeoutExpired:
            agent.kill()
    (before,), (after,) = first["metrics"]["pipelines"], last["metrics"]["pipelines"]
    counted = {name: after["frames"][name] - before["frames"][name] for name in after["frames"]}
    stages = {stage: figures["p50"] for stage, figures in after["latency_ms"].items()}
    memory = {process["role"].split(":")[0]: process.get("pss_bytes", process["rss_bytes"])
              for process in last["metrics"]["processes"]}
    print(json.dumps({"fps": counted["answered"] / (end - start), "frames": counted, "stages": stages,
                      "memory": memory, "threads": threads}))
