"""What answering from a large recording costs: one pass for all idle times, beside reading it alone.

Of a record of 500 regions a snapshot, as `benchmarks reports` makes them, of 3 M rows unless asked otherwise; with
`--record` of that one. Times are of this process, the least of some runs.
"""

from __future__ import annotations

import argparse
import resource

from benchmarks.reports import add_record_options, least, record_of
from pydamon.analysis.whatif.part import COLUMNS
from pydamon.library.whatif import what_if
from pydamon.records.reader import RecordReader

AIM_S = 1.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks what-if", description=__doc__.splitlines()[0])
    add_record_options(parser)
    parser.set_defaults(snapshots=6_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with record_of(options) as path, RecordReader(path) as reader:
        print(f"\n== what-if from a record of {reader.rows / 1e6:.1f} M rows, {reader.file_bytes / 1e6:.0f} MB")

        def read() -> None:
            for _ in reader.batches(columns=COLUMNS):
                pass

        print("reading it alone    {:6.2f} s {:6.2f} s CPU".format(*least(read, options.repeat)))
        elapsed, cpu = least(lambda: what_if(reader), options.repeat)
        print(f"all idle times      {elapsed:6.2f} s {cpu:6.2f} s CPU  (aim {AIM_S} s at 3 M rows)")
        print(f"memory at most      {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:6.0f} MB")


if __name__ == "__main__":
    main()
