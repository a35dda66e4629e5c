#!/usr/bin/env python3
"""Compares two files of lines from `edgewarden predict`: `compare.py ONE OTHER`.

Prints the found objects beside each other and fails where they differ by more than rounding does: the same
objects in the same pictures, corners within a pixel, scores within a thousandth.
"""

import json
import pathlib
import sys

PIXELS = 1.0
SCORE = 0.001
# So many objects of a picture are printed; all are compared.
SHOWN = 3


def lines(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def overlap(one, other):
    def area(box):
        return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)

    both = area([max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])])
    either = area(one) + area(other) - both
    return both / either if either > 0 else 0


def told(found):
    corners = " ".join(f"{corner:7.2f}" for corner in found["box"])
    return f"{found['label'][:12]:12} {found['score']:.5f} [{corners}]"


def compare(one, other):
    """Pairs what was found; yields each pair with its distances."""
    left = list(other)
    for found in one:
        # Scores may be equal but for rounding, so the order may differ.
        same = [far for far in left if far["class"] == found["class"]]
        best = max(same, key=lambda far: overlap(far["box"], found["box"]), default=None)
        if best is None:
            yield found, None, 0, 0
            continue
        left.remove(best)
        pixels = max(abs(a - b) for a, b in zip(found["box"], best["box"]))
        yield found, best, pixels, abs(found["score"] - best["score"])
    for found in left:
        yield None, found, 0, 0


def main(one, other):
    one, other = lines(one), lines(other)
    if not one or [line["image"] for line in one] != [line["image"] for line in other]:
        sys.exit("the answers are for different pictures, or there are none")
    objects, worst_pixels, worst_score, faults = 0, 0.0, 0.0, 0
    for a, b in zip(one, other):
        print(pathlib.Path(a["image"]).name)
        for at, (mine, its, pixels, score) in enumerate(compare(a["detections"], b["detections"])):
            objects += 1
            worst_pixels, worst_score = max(worst_pixels, pixels), max(worst_score, score)
            bad = mine is None or its is None or pixels > PIXELS or score > SCORE
            faults += bad
            if bad or at < SHOWN:
                sides = " | ".join(told(side) if side else "nothing" for side in (mine, its))
                print("  " + sides + ("   DIFFERS" if bad else ""))
    print(f"{len(one)} pictures, {objects} objects, {faults} differ; at most {worst_pixels:.4f} pixels and {worst_score:.6f} of score apart")
    if objects == 0:
        sys.exit("nothing was found in any picture, so nothing was compared")
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
