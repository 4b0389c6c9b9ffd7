"""What is generated from the code is up to date, and says something about everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cfsbuild.nodes.registry import NODE_KINDS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_generated_files_are_up_to_date() -> None:
    command = [sys.executable, str(DOCS / "generate.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert result.returncode == 0


def test_the_recipe_reference_has_every_kind_and_every_parameter() -> None:
    text = (DOCS / "recipe-reference.md").read_text()
    for name, kind in NODE_KINDS.items():
        section = text.partition(f'### `kind = "{name}"`\n')[2].partition("\n### ")[0]
        for key in kind.params.__struct_encode_fields__:
            assert f"| `{key}` |" in section


def test_no_row_of_the_reference_lacks_a_description() -> None:
    rows = [
        line for line in (DOCS / "recipe-reference.md").read_text().splitlines() if line.startswith("| `")
    ]
    assert [row for row in rows if row.endswith("|  |")] == []
