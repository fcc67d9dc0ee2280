# SPDX-License-Identifier: BSD-2-Clause
"""figures.py - what the guest measured, as a table: with the unit and without, in one run.

Vocabulary.  "Figure": a line "# figure: NAME VALUE a second" of the guest (disk_bench.c).  "Round":
one boot of each way to run.  A ratio is formed within a round, against its first boot; what is
shown is the median over the rounds, so that what disturbs a round disturbs both.
"""

import statistics

ROWS = {
    "reads-one": "random reads of 4 KiB, one at a time",
    "reads-many": "random reads of 4 KiB, 32 at a time on each CPU",
    "map-unmap": "VFIO: a page mapped and unmapped",
    "requests": "the same in requests of the guest's queue, one at a time",
    "map-dma-unmap": "VFIO: a page mapped, 64 bytes of DMA, unmapped",
}


def cell(rounds, column, row):
    """A value, and its ratio to the first column's if that has one."""
    values = [r[column][row] for r in rounds if row in r[column]]
    ratios = [r[column][row] / r[0][row] for r in rounds if r[0].get(row) and row in r[column]]
    if not values:
        return "-"
    text = "%s" % format(round(statistics.median(values)), ",")
    return text + (" (%.2f)" % statistics.median(ratios) if ratios and column else "")


def table(titles, rounds):
    """Lines of a Markdown table.  rounds: a list of figures by name a column, for each round."""
    lines = ["| a second | " + " | ".join(titles) + " |",
             "|---|" + "---:|" * len(titles)]
    for row, meaning in ROWS.items():
        cells = [cell(rounds, column, row) for column in range(len(titles))]
        lines.append("| %s | %s |" % (meaning, " | ".join(cells)))
    return lines
