#!/usr/bin/env python3
"""Two runs of a bench beside each other: benches/compare.py OLD.json NEW.json [--from 1.03]

The files are those of `cargo bench -p fused-dropout-benches --bench NAME -- --json FILE`. Shown are the rows
of both whose ratio to the baseline changed by the factor or more, most changed first. Ratios are compared, not
seconds: the baseline was measured in the same run, so that a slow day of the machine does not show.
"""

import argparse
import json


def rows(path):
    with open(path, encoding="utf-8") as file:
        return {(r["bench"], r["name"], r["level"], r["threads"]): r for r in json.load(file)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--from", dest="least", type=float, default=1.03, help="least factor that is shown")
    args = parser.parse_args()
    old, new = rows(args.old), rows(args.new)
    both = [(new[key]["ratio"] / old[key]["ratio"], key) for key in old if key in new]
    both.sort(key=lambda row: -max(row[0], 1 / row[0]))
    print(f"{'new/old':>7}  {'old':>8}  {'new':>8}  what")
    for change, key in both:
        if max(change, 1 / change) >= args.least:
            bench, name, level, threads = key
            what = f"{bench}: {name}, {level or 'any level'}, {threads} thread(s)"
            print(f"{change:7.3f}  {old[key]['ratio']:8.3f}  {new[key]['ratio']:8.3f}  {what}")
    for missing, where in ((old.keys() - new.keys(), args.old), (new.keys() - old.keys(), args.new)):
        if missing:
            print(f"{len(missing)} row(s) only in {where}")
    print(f"{len(both)} row(s) in both")


if __name__ == "__main__":
    main()
