"""What opening a device costs beside the driver: C types that are parsed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CODE = """
import json
import numpy as np
from cffi import cparser

parse, parsed = cparser.Parser.parse_type_and_quals, []
cparser.Parser.parse_type_and_quals = lambda self, text: parsed.append(text) or parse(self, text)
from wgpu_nn import Device, tensor

x = tensor(np.arange(5, dtype=np.float32), Device())
x.numpy_later().result(), (x + x.sum()).numpy()
print(json.dumps(parsed))
"""


@pytest.mark.unwatched("counts what is parsed, and a device that watches makes more calls")
def test_c_types_are_parsed_together_and_not_one_by_one() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    parsed = json.loads(done.stdout.splitlines()[-1])
    assert any("WGPUBindGroupEntry(*)[]" in text for text in parsed), "all at once"
    assert len(parsed) <= 3, "beside them what wgpu-py names while it is imported"
