"""Every table and figure of the five papers: ours beside theirs.

    python -m analysis.papers [PAPER [ITEM]] [--train] [--record] [--preset P] [--set FIELD=VALUE]
        [--only PATTERN] [--scenes N] [--seed S]

Without an item the command lists all items with their state. Rows and pictures are written to ``--out``.
A shipped run stands for a training with the preset ``quick``, seed 0 and no ``--set``, and for no other.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pyro

from analysis.command import positive
from analysis.papers import item as it
from inference.command import command_line, told
from inference.settings import choose

MODULE = "analysis.papers"
OF_AN_ITEM = ("train", "record", "only", "scenes", "out")
"""Options that the list of items does not have."""


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = command_line(MODULE, __doc__)
    a.add_argument("paper", nargs="?", metavar="PAPER", help=f"one of {', '.join(it.PAPERS)}")
    a.add_argument("item", nargs="?", metavar="ITEM", help="such as table3 or figure6")
    a.add_argument("--train", action="store_true", help="train the missing runs")
    a.add_argument("--record", action="store_true", help="keep the result in the paper's folder")
    a.add_argument("--preset", default="quick", metavar="P", help="preset of the trainings")
    a.add_argument("--runs", type=Path, default=it.Request.runs, metavar="DIR", help="of trainings")
    a.add_argument("--scenes", type=positive, metavar="N", help="scenes to measure on")
    a.add_argument("--seed", type=int, default=0, metavar="S")
    a.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE",
                   help="setting of all trainings, such as train.steps=300")  # fmt: skip
    a.add_argument(
        "--only", default="*", metavar="PATTERN", help="rows or columns, such as 'unique*'"
    )
    a.add_argument("--out", type=Path, metavar="DIR", help="runs/papers/PAPER/ITEM by default")
    o = a.parse_args(arguments)
    request = it.Request(o.runs, o.preset, o.seed, o.scenes, tuple(o.set), o.only)
    if o.item is None:
        for option in OF_AN_ITEM:
            if getattr(o, option) != a.get_default(option):
                raise ValueError(
                    f"--{option} is of one item: give PAPER and ITEM, such as gsgn table3"
                )
        papers = it.PAPERS if o.paper is None else [_paper(o.paper)]
        print("\n\n".join(listing(paper, request) for paper in papers))
        print(f"\npython -m {MODULE} PAPER ITEM makes one; --train first trains what it lacks")
        return
    chosen = choose(it.items(_paper(o.paper)), o.item, f"item of {o.paper}")
    if o.train:
        it.train_missing(chosen, request)
    pyro.enable_validation(False)
    pyro.set_rng_seed(o.seed)
    made, runs = it.make(chosen, request)
    print("\n\n".join(part for part in (chosen.title, made.text, it.show(made.rows)) if part))
    if lacking := [name for name in it.chosen(chosen, request) if name not in runs]:
        print(f"not trained: {', '.join(lacking)}; --train trains them")
    for file in it.write(made, o.out or request.runs / o.paper / o.item):
        print(f"  {file}")
    if o.record:
        it.record(o.paper, o.item, made, runs, request, words(o, request))


def _paper(name: str) -> str:
    return choose({paper: paper for paper in it.PAPERS}, name, "paper")


def listing(paper: str, request: it.Request) -> str:
    """One line per item: its name, title and state."""
    lines = [paper]
    for name, item in it.items(paper).items():
        lines.append(f"  {name:<9} {item.title}\n            {it.state(paper, name, request)}")
    return "\n".join(lines)


def words(options: object, request: it.Request) -> str:
    """The command that makes an item again."""
    line = ["python", "-m", MODULE, options.paper, options.item, *request.words]
    if request.scenes is not None:
        line += ["--scenes", str(request.scenes)]
    if request.only != "*":
        line += ["--only", request.only]
    return shlex.join(line)


if __name__ == "__main__":
    sys.exit(main())
