"""A page to draw on in the look of our reports, written as one PNG; what is drawn, the caller knows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wgpu_nn.errors import missing_extra
from wgpu_nn.files import write_atomic

INK, GREY = "#1f2430", "#6b7280"
COLOURS = ("#2563eb", "#dc2626", "#0b6e4f", "#b58900", "#7b4ea3", "#8a8f98")
STYLE: dict[str, Any] = {
    "font.size": 11,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#c9cdd4",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#eceef1",
    "legend.frameon": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "lines.linewidth": 2.2,
    "lines.markersize": 5,
}


@contextmanager
def canvas(path: str | Path, size: tuple[float, float] = (9.0, 4.0), title: str = "", dpi: int = 100) -> Iterator[Any]:
    """Yield a matplotlib Figure of ``size`` inches with ``title``, and write it to ``path`` as a PNG at the end::

        with canvas("runs/mine/picture.png", title="Loss") as page:
            page.subplots().plot(losses)

    It needs no screen and changes no setting of matplotlib beyond the block. Nothing is written when the block raises.
    Missing folders are made. The picture has 256 colours at most. Raises MissingExtraError without matplotlib, and
    RecordError for a place that cannot be written.
    """
    try:
        import matplotlib
        from cycler import cycler
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from PIL import Image
    except ImportError as error:
        raise missing_extra("canvas", "matplotlib", "train") from error

    style: Any = {**STYLE, "axes.prop_cycle": cycler(color=COLOURS)}
    with matplotlib.rc_context(style):
        figure: Any = Figure(figsize=size, dpi=dpi, layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
        if title:
            figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold")
        yield figure
        file = io.BytesIO()
        figure.savefig(file, format="png", pad_inches=0.25, bbox_inches="tight")
    # 256 colours are enough for curves and small images, in a third of the bytes.
    small = io.BytesIO()
    with Image.open(file) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, small.getvalue())
