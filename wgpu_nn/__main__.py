"""``python -m wgpu_nn`` is the wgpu-nn command."""

import sys

from wgpu_nn.cli import main

sys.exit(main())
