"""Train for a while and watch the resident memory: python benchmarks/soak.py [--minutes 30] [train options...].

A training process plays Breakout with a replay memory that is soon full, and writes checkpoints all the while. Its
resident memory is sampled every few seconds. The growth is that of the median over a minute, from minute 10 (in short
runs: from a third of the time) to the end. The last line of output is one JSON document; the exit status is 1 if memory
grew by 1% or more, or the run failed. Options that are not this script's go to `pixelq train`.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLE_SECONDS = 2.0
SETTLED_MINUTE = 10.0
MOST_GROWTH = 0.01
OPTIONS = (
    "--replay.capacity 10000 --replay.learn-start 1000 --checkpoint-every-steps 5000 "
    "--checkpoint-min-seconds 0 --log-every-steps 1000 --target-period-steps 2000 "
    "--exploration.decay-steps 10000 --exploration.random-steps 1000 "
    "--total-steps 1000000000 --video-every-episodes 0"
)


def resident_bytes(process: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{process}/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sample(process: subprocess.Popen[bytes], minutes: float) -> list[tuple[float, int]]:
    """Minutes since the start and resident bytes, until the time is over or the process is."""
    samples: list[tuple[float, int]] = []
    started = time.monotonic()
    while (now := (time.monotonic() - started) / 60) < minutes and process.poll() is None:
        samples.append((now, resident_bytes(process.pid)))
        if int(now) > int((samples[-2:][0])[0]):
            print(f"minute {int(now):3}: {samples[-1][1] / 1e6:,.1f} MB", flush=True)
        time.sleep(SAMPLE_SECONDS)
    return samples


def median_of_minute(samples: list[tuple[float, int]], begin: float) -> float:
    """Median resident bytes of the minute that begins there."""
    return statistics.median(resident for minute, resident in samples if begin <= minute < begin + 1)


def steps_done(run: Path) -> int:
    """Steps of the last line of metrics."""
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    return int(json.loads(lines[-1])["step"]) if lines else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    options, more = parser.parse_known_args()
    settled = SETTLED_MINUTE if options.minutes > SETTLED_MINUTE + 2 else options.minutes / 3
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "pixelq", "train", "keras-example", "--run", str(run), *OPTIONS.split(), *more]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        samples = sample(process, options.minutes)
        failed = process.poll() is not None
        process.send_signal(signal.SIGTERM)
        failed |= process.wait() != 130  # interrupted, after saving
        steps = steps_done(run) if (run / "metrics.jsonl").exists() else 0
    last = samples[-1][0]
    begin, end = median_of_minute(samples, settled), median_of_minute(samples, max(last - 1, settled))
    result = {
        "minutes": round(last, 1),
        "steps": steps,
        "settled_minute": round(settled, 1),
        "settled_bytes": int(begin),
        "end_bytes": int(end),
        "peak_bytes": max(resident for _, resident in samples),
        "growth_percent": round(100 * (end / begin - 1), 3),
    }
    print(json.dumps(result))
    return 1 if failed or end / begin - 1 >= MOST_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
