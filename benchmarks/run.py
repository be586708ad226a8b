#!/usr/bin/env python3
"""Measures scitq beside its peers: `python3 benchmarks/run.py [SCENARIO...] [--rounds N] [--record]`.

Sets up what it needs (see surroundings.py), runs the scenarios (default: all that take not long) in rounds that alternate the
systems, and prints the bars that must be cleared and every figure. `--record` keeps them in results/ and in README.md.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time

import surroundings


def main() -> None:
    options = _options()
    surroundings.provide()
    import peers
    import scenarios.pages
    import scenarios.presence
    import scenarios.side_by_side
    import scenarios.transfers
    import scenarios.volume
    import scenarios.workflows  # noqa: F401 (a scenario is known once its module is imported)
    from results import Results
    from scenarios import ALL, Bench, chosen

    try:
        names = chosen(options.scenario)
    except ValueError as error:
        sys.exit(str(error))
    about = surroundings.described()
    systems, missing = peers.load()
    if "scitq" in missing:
        sys.exit(f"scitq cannot be measured: {missing['scitq']}")
    results = Results(missing=missing)
    for name in names:
        _say(f"{name}: {' '.join((ALL[name].__doc__ or '').split())}")
        start = time.monotonic()
        ALL[name](Bench(name, systems, options.rounds, results, _say))
        _say(f"  {time.monotonic() - start:.0f} s")
    print(results.table())
    if options.record:
        results.record(datetime.date.today().isoformat(), about)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures scitq beside its peers.")
    which = "names or globs, as 'fetch_*' (default: all but those on Swift; README.md tells what they are)"
    parser.add_argument("scenario", nargs="*", help=which)
    parser.add_argument("--rounds", type=int, default=5, help="how often each system is measured (default: 5)")
    parser.add_argument("--record", action="store_true", help="keep the results in results/ and in README.md")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
