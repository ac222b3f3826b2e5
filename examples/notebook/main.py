"""Runs digits.ipynb without Jupyter: its code cells in order, as a notebook would, the last value of a cell shown.

python examples/notebook/main.py            runs the cells
python examples/notebook/main.py --keep     and keeps the picture, and no other output, in the notebook
"""

from __future__ import annotations

import argparse
import ast
import base64
import json
import os
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).with_name("digits.ipynb")


def run(notebook: dict[str, Any], settings: dict[str, Any]) -> None:
    """Run the code cells; ``settings`` replace what the cell tagged "parameters" sets. Pictures become cells' outputs."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        value = shown("".join(cell["source"]), cell["id"], names)
        if "parameters" in cell["metadata"].get("tags", ()):
            names.update(settings)
        cell["outputs"], cell["execution_count"] = [], None
        # What a notebook asks of an object that is a picture, as Pillow's images are.
        to_png = getattr(value, "_repr_png_", None)
        if to_png is not None:
            png = base64.b64encode(to_png()).decode()
            data = {"image/png": png, "text/plain": ["a picture"]}
            cell["outputs"] = [{"output_type": "execute_result", "execution_count": None, "data": data, "metadata": {}}]
        elif value is not None:
            print(value)


def shown(source: str, name: str, names: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last line if that is an expression."""
    tree = ast.parse(source, name)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, name, "exec"), names)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), name, "exec"), names)
    return eval(compile(ast.Expression(last.value), name, "eval"), names)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the notebook beside this file.")
    parser.add_argument("--short", action="store_true", help="some seconds: fewer digits and epochs")
    parser.add_argument("--out", type=Path, default=Path("runs/notebook"), help="folder of the picture")
    parser.add_argument("--keep", action="store_true", help="write the picture into the notebook")
    args = parser.parse_args()
    settings: dict[str, Any] = {"OUT": args.out.resolve()}
    if args.short:
        settings |= {"DIGITS": 640, "EPOCHS": 2}
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    os.chdir(NOTEBOOK.parent)  # where Jupyter runs it
    run(notebook, settings)
    if args.keep:
        NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
