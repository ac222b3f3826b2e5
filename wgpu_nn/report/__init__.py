"""Reports of training runs: one self-contained HTML page, and a picture of the curves, from run folders alone."""

from wgpu_nn.report.canvas import canvas
from wgpu_nn.report.curves import Chart, Line, charts
from wgpu_nn.report.figure import draw
from wgpu_nn.report.page import page
from wgpu_nn.report.run import Run, Samples, read_run, read_runs

__all__ = ["Chart", "Line", "Run", "Samples", "canvas", "charts", "draw", "page", "read_run", "read_runs"]
