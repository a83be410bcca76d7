"""Mutation fuzzing of the packager's readers.

    python tests/fuzz/run.py [--seconds 60] [--seed 1] [--keep FOLDER] [TARGET …]

For each target: first the kept seeds (tests/fuzz/seeds), then sound inputs with random changes, for so many seconds. An
input may be read or refused, in 512 MiB of memory (RLIMIT_AS) and 20 s; anything else is a failure, and the input is
written to FOLDER. Exits with 1 if there was a failure.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MEMORY, SECONDS = 512 << 20, 20.0  # that one input may take
_NOT_OURS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)  # of a file name that the system does not take


class _TooSlowError(BaseException):
    """An input took too long. Not an Exception, so that no reader takes it for damage."""


def _work(name: str, *, seconds: float, seed: int, place: Path) -> None:
    """Fuzz one target, and print each failure and the number of inputs as lines of JSON."""
    from fuzz import targets
    from fuzz.mutate import mutated

    target, sound = targets.TARGETS[name], targets.sound(name)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _stop)
    case, random, count, known = place / "case", Random(f"{name} {seed}"), 0, set[str]()

    def attempt(data: bytes) -> None:
        case.write_bytes(data)
        why = _failure(name, case)
        if why and why.splitlines()[-1] not in known:
            known.add(why.splitlines()[-1])
            _report(name, data, why)

    for data in targets.kept(name):
        attempt(data)
    for one in sound:
        attempt(one.data)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        one = random.choice(sound)
        attempt(mutated(one.data, random=random, spans=one.spans, words=target.words))
        count += 1
    print(json.dumps({"inputs": count}), flush=True)


def _failure(name: str, case: Path) -> str:
    """What went wrong with the input, or nothing. The last line names the kind and the place."""
    from fuzz import targets

    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        targets.TARGETS[name].read(case)
    except targets.EXPECTED:
        return ""
    except OSError as error:
        return "" if error.errno in _NOT_OURS else _described(error)
    except (Exception, _TooSlowError) as error:
        return _described(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


def _described(error: BaseException) -> str:
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "pxe_" in one.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    return "".join(traceback.format_exception(error)[-12:])[-4000:] + f"{type(error).__name__} at {where}"


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise _TooSlowError(f"it took more than {SECONDS} s")


def _report(name: str, data: bytes, why: str) -> None:
    kept = Path(os.environ["FUZZ_KEEP"]) / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    kept.write_bytes(data)
    print(json.dumps({"failure": why, "input": str(kept)}), flush=True)


def _run(name: str, *, seconds: float, seed: int, keep: Path) -> bool:
    """Fuzz one target in a process of its own. True if all went well."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        command = [sys.executable, __file__, "--worker", place, "--seconds", str(seconds), "--seed", str(seed), name]
        # one malloc arena a thread would reserve 64 MiB of address space each
        environment = {**os.environ, "FUZZ_KEEP": str(keep), "MALLOC_ARENA_MAX": "2", "TMPDIR": place}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            try:
                output, errors = process.communicate(timeout=seconds + 20 * SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                output, errors = process.communicate()
                errors += "\nit hung, in code that no signal interrupts"
        lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        failures = [line for line in lines if "failure" in line]
        if process.returncode:
            case = Path(place, "case")
            lost = keep / f"{name}-lost"
            lost.write_bytes(case.read_bytes() if case.exists() else b"")
            failures.append({"failure": f"exit code {process.returncode}: {errors[-3000:]}", "input": str(lost)})
    count = sum(line.get("inputs", 0) for line in lines)
    print(f"{name:22} {count:7,} inputs, {len(failures)} failures", flush=True)
    for one in failures:
        print(f"  {one['input']}\n    " + "\n    ".join(one["failure"].splitlines()), flush=True)
    return not failures


def main() -> int:
    from fuzz import targets

    parser = argparse.ArgumentParser(description="Fuzz the packager's readers.")
    parser.add_argument("--seconds", type=float, default=60, help="for each target (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the random changes (default: 1)")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that fail (default: a new temporary one)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("target", nargs="*", choices=[*targets.TARGETS, []], help="default: all")
    arguments = parser.parse_args()
    if arguments.worker:
        _work(arguments.target[0], seconds=arguments.seconds, seed=arguments.seed, place=arguments.worker)
        return 0
    keep = arguments.keep or Path(tempfile.mkdtemp(prefix="fuzz-kept-"))
    keep.mkdir(parents=True, exist_ok=True)
    names = arguments.target or list(targets.TARGETS)
    well = [_run(name, seconds=arguments.seconds, seed=arguments.seed, keep=keep) for name in names]
    if all(well) and arguments.keep is None:
        keep.rmdir()
    return 0 if all(well) else 1


if __name__ == "__main__":
    raise SystemExit(main())
