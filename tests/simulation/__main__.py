"""Live through seeds: `python -m tests.simulation FIRST [END]`; one that breaks can be repeated."""

import logging
import sys
import time

from tests.simulation.world import Broken, World, simulated


def main(first: int, end: int) -> int:
    """Run the seeds from `first` up to `end` and say what broke, and how fast it was."""
    logging.disable(logging.CRITICAL)  # the functions say much about what is planned here
    broken, calls, began = 0, 0, time.perf_counter()
    with simulated():
        for seed in range(first, end):
            world = World(seed)
            try:
                world.run()
            except Broken as problem:
                broken += 1
                print(f"seed {seed}: {problem}\n  {world.plan}", flush=True)
            calls += world.account.calls
            if (seed + 1 - first) % 1000 == 0:
                print(f"{seed + 1 - first:,} seeds", file=sys.stderr, flush=True)
    took_s = time.perf_counter() - began
    seeds = end - first
    print(
        f"{seeds:,} seeds, {broken} broken, {calls / seeds:.0f} calls to AWS a seed, "
        f"{seeds / took_s:.0f} seeds/s"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:3]]
    sys.exit(main(numbers[0], numbers[1] if len(numbers) > 1 else numbers[0] + 1))
