#!/usr/bin/env python3
"""The whole path of a running device: source process, shared memory, inference process, agent.

bench_path.py PROGRAM BUNDLE PICTURE LIBRARY [SECONDS [THREADS]]: signs the bundle into a repository of its
own, starts the agent on a folder with that picture, faster than the model, has it take the bundle, and
prints one JSON object from the agent's own figures.
"""
import json
import sys
import time

from device import Device, frames, memory

seconds = float(sys.argv[5]) if len(sys.argv) > 5 else 10
threads = int(sys.argv[6]) if len(sys.argv) > 6 else 1

with Device(*sys.argv[1:5], threads=threads) as device:
    time.sleep(3)
    first, start = device.status(), time.monotonic()
    time.sleep(seconds)
    last, end = device.status(), time.monotonic()
before, after = frames(first), frames(last)
counted = {name: after[name] - before[name] for name in after}
latency = last["metrics"]["pipelines"][0]["latency_ms"]
stages = {stage: figures["p50"] for stage, figures in latency.items()}
print(json.dumps({"fps": counted["answered"] / (end - start), "frames": counted, "stages": stages,
                  "memory": memory(last), "threads": threads}))
