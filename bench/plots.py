"""The plots of docs/: drained jobs a second, and the speed of a queue that grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from figures import OURS, Figure
from parts.growth import ADD, FETCH, SIZES, title

#: A grey that can be read on white and on black.
GREY, COLOURS = "#6e7781", ("#8fb4de", "#2f6fb7")


def _pyplot() -> Any:
    """Return the plotter: text stays text, and equal figures make the same file."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {
            "svg.fonttype": "none", "svg.hashsalt": "bench", "font.family": "sans-serif",
            "font.size": 11, "text.color": GREY, "axes.labelcolor": GREY,
            "xtick.color": GREY, "ytick.color": GREY, "axes.edgecolor": GREY,
        }
    )  # fmt: skip
    return pyplot


def _save(pyplot: Any, drawing: Any, path: Path) -> None:
    drawing.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    pyplot.close(drawing)


def growth(figures: list[Figure], path: Path) -> None:
    """Draw how long fetching and adding take as the queue grows."""
    medians = {figure.title: figure.median(OURS) for figure in figures}
    sizes = [size for size in SIZES if medians.get(title(FETCH, size))]
    if not sizes:
        return
    pyplot = _pyplot()
    drawing, axes = pyplot.subplots(figsize=(8, 3.5), layout="constrained")
    for name, colour in zip((FETCH, ADD), reversed(COLOURS), strict=True):
        axes.plot(
            sizes, [medians[title(name, size)] for size in sizes], "o-", color=colour, label=name
        )
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("waiting jobs")
    axes.set_ylabel("milliseconds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    _save(pyplot, drawing, path)


def drains(figures: list[Figure], path: Path) -> None:
    """Draw the drained jobs a second of each contestant, by 1 and by 2 processes."""
    drawn = [
        (label, figure)
        for label in ("1 process", "2 processes")
        for figure in figures
        if figure.part == "drain" and f" jobs, {label}" in figure.title
    ]
    if not drawn:
        return
    most = {
        name: max(figure.median(name) or 0 for _, figure in drawn) for name in drawn[0][1].values
    }
    names = sorted(most, key=lambda name: most[name])
    pyplot = _pyplot()
    drawing, axes = pyplot.subplots(figsize=(8, 0.45 * len(names) + 1), layout="constrained")
    height = 0.8 / len(drawn)
    for index, (label, figure) in enumerate(drawn):
        rates = [figure.median(name) or 0 for name in names]
        at = [row + (len(drawn) - 1 - 2 * index) * height / 2 for row in range(len(names))]
        bars = axes.barh(at, rates, height, label=label, color=COLOURS[index])
        axes.bar_label(bars, [f"{rate:,.0f}" if rate else "-" for rate in rates], padding=4, size=9)
    axes.set_yticks(range(len(names)), names)
    for tick in axes.get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text().startswith(OURS) else "normal")
    axes.set_xlabel("jobs drained a second")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.12)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(frameon=False, loc="lower right")
    _save(pyplot, drawing, path)
