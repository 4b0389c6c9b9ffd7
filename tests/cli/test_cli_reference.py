"""docs/cli.md is current."""

from importlib.metadata import version
from pathlib import Path

import pytest

from cfsbuild.cli import reference
from cfsbuild.cli.verbs import FRONT_ENDS, VERBS


def click_version():
    return tuple(int(part) for part in version("click").split(".")[:2])


PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.mark.skipif(click_version() < (8, 2), reason="click 8.1 writes options in another way")
def test_the_page_has_the_reference_that_the_program_makes():
    text = PAGE.read_text()
    marker = text.index(reference.MARKER)
    assert text[marker:] == reference.reference(), "run: python -m cfsbuild.cli.reference docs/cli.md"


def test_the_reference_has_every_verb_option_and_exit_status():
    text = reference.reference()
    for name in VERBS:
        assert f"\n### cfsbuild {name}\n" in text
    for name in FRONT_ENDS:
        assert f"`cfsbuild {name}`" in text
    assert "| 143" in text or "143" in text
    assert "--keep-going" in text


def test_the_page_explains_every_global_setting():
    text = PAGE.read_text()
    for word in (
        "CFSBUILD_STORE",
        "CFSBUILD_JOBS",
        "trusted_uids",
        "shared_store",
        "NO_COLOR",
        "cfsbuild.local.toml",
    ):
        assert word in text
