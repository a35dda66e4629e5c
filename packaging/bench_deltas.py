#!/usr/bin/env python3
"""Packs pairs of files with every tool and prints the bytes over the wire as a share of the new file under zstd -19.

    bench_deltas.py PROGRAM FOLDER

PROGRAM: the benchmark `delta`. FOLDER: NAME/old.onnx and NAME/new.onnx for each pair. What a tool made is put together
again and compared, where the tool can; a tool that is missing is left out and named.
"""

import filecmp
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)


def size(path):
    return path.stat().st_size


def same(one, other):
    assert filecmp.cmp(one, other, shallow=False), f"{one} is not {other}"


def zstd_patch(old, new, work):
    out, back = work / "patch.zst", work / "back"
    run("zstd", "-q", "-f", "-19", "--long=27", f"--patch-from={old}", new, "-o", out)
    run("zstd", "-q", "-f", "-d", "--long=27", f"--patch-from={old}", out, "-o", back)
    same(back, new)
    return size(out)


def xdelta3(old, new, work):
    out, back = work / "patch.xdelta", work / "back"
    run("xdelta3", "-f", "-e", "-9", "-S", "lzma", "-B", 1 << 26, "-s", old, new, out)
    run("xdelta3", "-f", "-d", "-B", 1 << 26, "-s", old, out, back)
    same(back, new)
    return size(out)


def bsdiff(old, new, work):
    out, back = work / "patch.bsdiff", work / "back"
    run("bsdiff", old, new, out)
    run("bspatch", old, back, out)
    same(back, new)
    return size(out)


def casync(old, new, work):
    """The chunks of the new file that the old one's store does not have, and the index."""
    stores = []
    for name, path in (("old", old), ("new", new)):
        store, index = work / f"{name}.castr", work / f"{name}.caibx"
        run("casync", "make", f"--store={store}", index, path)
        stores.append({chunk.name: size(chunk) for chunk in store.rglob("*.cacnk")})
    return sum(bytes for name, bytes in stores[1].items() if name not in stores[0]) + size(work / "new.caibx")


def zchunk(old, new, work):
    outs = []
    for name, path in (("old", old), ("new", new)):
        out = work / f"{name}.zck"
        run("zck", "-o", out, path)
        outs.append(out)
    told = run("zck_delta_size", outs[0], outs[1]).stdout
    found = re.search(r"[Ww]ould download (\d+) of (\d+) bytes", told)
    assert found, told
    return int(found.group(1))


OTHERS = {"zstd --patch-from": ("zstd", zstd_patch), "xdelta3": ("xdelta3", xdelta3), "bsdiff": ("bsdiff", bsdiff),
          "casync": ("casync", casync), "zchunk": ("zck_delta_size", zchunk)}


def best(program, times, *command):
    runs = [json.loads(run(program, *command).stdout) for _ in range(times)]
    return min(one["ms"] for one in runs), max(one["peak_kib"] for one in runs)


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    missing = [name for name, (tool, _) in OTHERS.items() if not shutil.which(tool)]
    rows = []
    for pair in sorted(folder.iterdir()):
        old, new = pair / "old.onnx", pair / "new.onnx"
        if not new.exists():
            continue
        print(f"bench-deltas: {pair.name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            work = pathlib.Path(scratch)
            full = work / "full.zst"
            run("zstd", "-q", "-19", "--long=27", new, "-o", full)
            row = {"pair": pair.name, "file": size(new), "zstd19": size(full), "bytes": {}}
            alone, patch, out = work / "alone", work / "patch", work / "out"
            run(program, "pack", new, alone)
            made = json.loads(run(program, "pack", new, patch, old).stdout)
            row["method"], row["pack_ms"] = made["what"], made["ms"]
            row["bytes"]["whole, packed"] = size(alone)
            row["bytes"]["ours"] = size(patch)
            row["apply"] = best(program, 5, "apply", patch, size(new), out, old)
            same(out, new)
            row["apply_alone"] = best(program, 5, "apply", alone, size(new), out)
            same(out, new)
            row["plain"] = best(program, 5, "zstd", full, out)
            same(out, new)
            for name, (tool, pack) in OTHERS.items():
                if name not in missing:
                    row["bytes"][name] = pack(old, new, work)
        rows.append(row)
    names = ["ours", *[name for name in OTHERS if name not in missing], "whole, packed"]
    print("Bytes over the wire, as a share of the new file under zstd -19")
    print(f"{'pair':22}{'file':>10}{'zstd -19':>10}  " + "".join(f"{name:>19}" for name in names))
    for row in rows:
        shares = [100 * row["bytes"][name] / row["zstd19"] for name in names]
        cells = [f"{share:.3f} %" if share < 1 else f"{share:.1f} %" for share in shares]
        print(f"{row['pair']:22}{row['file']:10}{row['zstd19']:10}  " + "".join(f"{cell:>19}" for cell in cells))
    print("\nPutting together, in one process each: the least processor time of five, the most memory (VmHWM)")
    print(f"{'pair':22}{'method':>12}{'delta ms':>10}{'whole ms':>10}{'zstd -d ms':>12}{'ratio':>7}{'delta MiB':>11}"
          f"{'zstd MiB':>10}{'to make s':>11}")
    for row in rows:
        (ms, peak), (alone_ms, _), (plain_ms, plain_peak) = row["apply"], row["apply_alone"], row["plain"]
        print(f"{row['pair']:22}{row['method']:>12}{ms:10.1f}{alone_ms:10.1f}{plain_ms:12.1f}{ms / plain_ms:7.2f}"
              f"{peak / 1024:11.1f}{plain_peak / 1024:10.1f}{row['pack_ms'] / 1000:11.1f}")
    if missing:
        print(f"\nNot measured, not installed: {', '.join(missing)}")
    (folder / "results.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
