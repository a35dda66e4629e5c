"""Runs the parts of device-test.sh that it asks for, each on a fresh machine, and ends what they started."""
import argparse
import pathlib
import shutil
import signal
import sys
import tempfile
import time

from everyday import everyday, short
from machines import LIBC, PR_SET_PDEATHSIG, Container, Failed, Unable, Vm
from power import power

# Exit status: this machine cannot have such a machine in it.
UNABLE = 77


def main():
    words = argparse.ArgumentParser()
    words.add_argument("part", choices=["boot", "everyday", "power", "short"])
    words.add_argument("--container", type=pathlib.Path, help="the folder of image.sh")
    words.add_argument("--machine", type=pathlib.Path, help="the folder of image.sh")
    words.add_argument("--arch", default="amd64")
    words.add_argument("--cuts", type=int, default=10)
    words.add_argument("--native", action="append", default=[], type=pathlib.Path,
                       help="a package for this machine, whose answers are compared (short)")
    words.add_argument("--keep", action="store_true", help="wait at a failure, with the machine running")
    words.add_argument("debs", nargs="*", type=pathlib.Path)
    wish = words.parse_intermixed_args()

    def interrupted(*_):
        raise KeyboardInterrupt

    # Also where a shell in the background made it be ignored.
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    # Ended with the script that started it.
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    began = time.monotonic()
    # Beside the images: /tmp may be small. What a killed test left there goes.
    home = (wish.container or wish.machine).parent
    for left in home.glob("run-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=home) as scratch:
        place = pathlib.Path(scratch)
        machine = None
        try:
            machine = Container(wish.container, place) if wish.container else Vm(wish.machine, wish.arch, place)
            if wish.part == "boot":
                machine.boot()
            elif wish.part == "everyday":
                everyday(machine, wish.debs, place)
            elif wish.part == "power":
                power(machine, wish.debs, wish.cuts)
            else:
                short(machine, wish.debs, wish.native, place)
        except Unable as unable:
            print(f"   ✗ {unable}", flush=True)
            return UNABLE
        except Failed as failed:
            print(f"   ✗ {failed}", flush=True)
            if wish.keep and sys.stdin.isatty():
                print(f"the machine runs on; a shell in it: {' '.join(machine.words(['sh']))}", file=sys.stderr)
                input("Return ends it. ")
            return 1
        except KeyboardInterrupt:
            print("   interrupted", file=sys.stderr)
            return 130
        finally:
            # A second Ctrl-C would leave things behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if machine:
                machine.end()
    print(f"   all good after {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
