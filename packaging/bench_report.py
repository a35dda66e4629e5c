#!/usr/bin/env python3
"""Prints what packaging/bench.sh measured, beside the goals: bench_report.py RESULTS FRAMES ROUNDS."""
import json
import os
import platform
import statistics
import sys

rows = [json.loads(line) for line in open(sys.argv[1])]
# Frame period over the bare run of the same round; one ONNX Runtime thread.
BARE_GOALS = {"ultraface": 1.10, "ultraface-clean": 1.25, "classifier": 1.10}
FASTER_GOAL, MEMORY_GOAL, POST_GOAL, IDLE_GOAL, PACED_GOAL = 1.4, 0.75, 0.05, 0.5, 1.3

models = list(dict.fromkeys(row["model"] for row in rows if row["model"] != "none"))
goals = []


def results(model, threads, who):
    return [row["result"] for row in rows if (row["model"], row["threads"], row["who"]) == (model, threads, who)]


def median(values):
    return statistics.median(values)


def goal(what, value, limit, at_most=True, form="{:.2f}"):
    met = value <= limit if at_most else value >= limit
    goals.append(f"  {'met   ' if met else 'MISSED'}  {what}: {form.format(value)} "
                 f"(goal {'≤' if at_most else '≥'} {form.format(limit)})")


processor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
                 platform.machine())
print(f"{processor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of {sys.argv[3]} rounds in turn, "
      f"each of {sys.argv[2]} frames; milliseconds per frame")
line = "{:34}" + "{:>12}" * 4
for model in models:
    for threads in (1, 2):
        ours, python, ahead, path, after = (
            results(model, threads, who) for who in ("ours", "python", "python_ahead", "path", "after"))
        print(f"\n{model}, ONNX Runtime with {threads} thread{'s' * (threads > 1)}")
        print(line.format("", "one thread", "whole path", "Python", "Py. + thread"))
        of = lambda results, what: median([result[what] for result in results])
        for stage in ("decode", "preprocess", "infer", "postprocess"):
            print(line.format(stage, *(f"{value:.3f}" for value in (
                of(ours, stage), median([result["stages"][stage] for result in path]), of(python, stage),
                of(ahead, stage) if stage in ahead[0] else float("nan")))))
        periods = [[result["total"] for result in ours], [1000 / result["fps"] for result in path],
                   [result["total"] for result in python], [result["total"] for result in ahead]]
        print(line.format("frame period", *(f"{median(values):.3f}" for values in periods)))
        bare = [[r["bare_run"] for r in who] for who in (ours, ours, python, ahead)]
        # The path has a process of its own: held against the bare runs right before and right after it.
        bare[1] = [(before["bare_run"] + later["bare_run"]) / 2 for before, later in zip(ours, after)]
        print(line.format("bare session.run", *(f"{median(values):.3f}" for values in bare)))
        # Within a round, so that a machine that slows down does not count.
        ratios = [[a / b for a, b in zip(*pair)] for pair in zip(periods, bare)]
        print(line.format("period / bare run", *(f"{median(values):.2f}" for values in ratios)))
        print(line.format("frames/s", *(f"{1000 / median(values):.1f}" for values in periods)))
        peaks = [[r["peak_bytes"] for r in who] for who in (ours, path, python, ahead)]
        print(line.format("peak MiB", *(f"{median(values) / 2**20:.0f}" for values in peaks)))
        print(f"  whole path: capture to answer, median {median([r['stages']['end_to_end'] for r in path]):.1f} ms; "
              + ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in path[-1]["memory"].items()))
        where = f"{model}, {threads}T"
        if threads == 1 and model in BARE_GOALS:
            goal(f"{where}: period of the whole path / bare run", median(ratios[1]), BARE_GOALS[model])
        best = [min(pair) for pair in zip(periods[2], periods[3])]
        goal(f"{where}: frames/s of the whole path / best Python's in turn", median(
            [b / a for a, b in zip(periods[1], periods[2])]), FASTER_GOAL, at_most=False)
        goals.append(f"          (against Python with a decoding thread, the better of both: "
                     f"{median([b / a for a, b in zip(periods[1], best)]):.2f})")
        goal(f"{where}: peak memory of all processes / Python's", median(
            [a / b for a, b in zip(peaks[1], peaks[2])]), MEMORY_GOAL)
        goal(f"{where}: post-processing, ms", median([r["postprocess"] for r in ours]), POST_GOAL, form="{:.3f}")

print("\nProcessor time at ten frames a second, ms per frame")
print(line.format("", "all of ours", "the model's", "one loop", "bare run"))
for model in models:
    (paced,), bare = results(model, 1, "paced"), results(model, 1, "ours") + results(model, 1, "after")
    whole, thread = paced["cpu_ms"], paced["cpu_ms_by_thread"].get("infer/model", float("nan"))
    alone, loop = (median([r[what] for r in bare]) for what in ("paced_cpu_ms", "paced_frame_cpu_ms"))
    print(line.format(model, *(f"{value:.1f}" for value in (whole, thread, loop, alone))))
    # A bare run decodes no picture, which costs the same with any program: hence the two.
    goal(f"{model}: processor time of the model's thread / bare run, paced", thread / alone, PACED_GOAL)
    goal(f"{model}: of all processes / a loop in one process that does the same work, paced", whole / loop, PACED_GOAL)
    goals.append(f"          (of all processes / bare run: {whole / alone:.2f})")
(idle,) = (row["result"]["idle"] for row in rows if row["who"] == "idle")
goal("processor time with no model installed, % of one core", 100 * idle, IDLE_GOAL)
print("\nGoals\n" + "\n".join(goals))
versions = {row["result"]["runtime"] for row in rows if "runtime" in row["result"]}
print(f"ONNX Runtime {', '.join(sorted(versions))}")
