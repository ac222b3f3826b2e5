"""The wgpu-nn command."""

from wgpu_nn.cli.main import main

__all__ = ["main"]
