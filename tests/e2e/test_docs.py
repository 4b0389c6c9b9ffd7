"""Documents: what they show is run, what they link is there, and what follows from code is current."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import types
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from console_blocks import ROOT, Command, matches, run_page

sys.path.append(str(ROOT / "tests/nodes"))
import node_helpers

from cfsbuild.nodes import registry

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def assert_written(command: Command, actual: str) -> None:
    assert matches(command.expected, actual), (
        f"$ {command.text}\nthe page says\n{command.expected}\nit is\n{actual}"
    )


@pytest.mark.parametrize("page", ["docs/tutorial.md", "docs/trust.md"])
def test_the_page_writes_what_it_shows(tmp_path, page):
    run_page((ROOT / page).read_text(), tmp_path, assert_written)


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    titles = _HEADING.findall(_FENCED.sub("", page.read_text()))
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in titles]
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in plain}


def _broken(page: Path, root: Path = ROOT) -> list[str]:
    broken = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if (
            not target.is_relative_to(root)
            or not target.exists()
            or (anchor and anchor not in _anchors(target))
        ):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page):
    assert _broken(page) == []


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "x.md"
    page.write_text("[a](no.md) [b](#nowhere) [c](x.md#here-it-is) [d](../out.md)\n\n## Here it is\n")
    (tmp_path.parent / "out.md").touch()
    assert _broken(page, tmp_path) == ["no.md", "#nowhere", "../out.md"]


def test_the_index_lists_every_page():
    index = ROOT / "docs/index.md"
    listed = {(index.parent / link).resolve() for link in _LINK.findall(index.read_text())}
    missing = [name(page) for page in ROOT.glob("docs/**/*.md") if page not in listed and page != index]
    assert missing == [], "add them to docs/index.md"


def test_the_schema_beside_the_reference_is_what_the_program_prints():
    command = [sys.executable, "-m", "cfsbuild.cli.main", "schema"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == (ROOT / "docs/recipe.schema.json").read_text(), "run: python docs/generate.py"


def test_the_shipped_recipes_name_their_schema():
    recipes = sorted((ROOT / "recipes").glob("*.toml"))
    assert len(recipes) >= 2
    for recipe in recipes:
        first, _, _ = recipe.read_text().partition("\n")
        assert first == "#:schema ../docs/recipe.schema.json"


def test_the_picture_of_the_architecture_has_the_floors_of_the_import_contract():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    floors = [floor.replace("cfsbuild.", "").split(" | ") for floor in contract["layers"]]
    svg = ET.parse(ROOT / "docs/architecture.svg").getroot()  # noqa: S314 (our own)
    space = "{http://www.w3.org/2000/svg}"
    rows: dict[str, list[str]] = {}
    for group in svg.iter(f"{space}g"):
        if group.find(f"{space}rect[@class='room']") is not None:
            for text in group.iter(f"{space}text"):
                rows.setdefault(text.attrib["y"], []).extend(text.text.split(" · "))
    assert list(rows.values()) == floors


def test_the_picture_of_a_start_gives_reasons_that_there_are():
    svg = ET.parse(ROOT / "docs/boot-flow.svg").getroot()  # noqa: S314 (our own)
    texts = svg.iter("{http://www.w3.org/2000/svg}text")
    shown = [word for text in texts if text.get("class") == "why" for word in text.text.split()]
    page = (ROOT / "docs/formats/boot.md").read_text().partition("## Reasons")[2]
    assert len(shown) > 20
    assert [reason for reason in shown if f"`{reason}`" not in page] == []


def test_the_table_of_threats_names_tests_that_there_are():
    named = re.findall(r"`(tests/[^`]+\.py)`", (ROOT / "docs/trust.md").read_text())
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_the_table_of_rooms_names_every_package():
    text = (ROOT / "docs/architecture.md").read_text()
    packages = [path.parent.name for path in ROOT.glob("cfsbuild/*/__init__.py")]
    assert [package for package in packages if f"| `{package}/` |" not in text] == []


@pytest.mark.parametrize("room", ["deploy", "targets", "trust", "trust/tpm"])
def test_a_room_says_what_each_of_its_modules_is_for(room):
    modules = {path.stem for path in (ROOT / "cfsbuild" / room).glob("*.py")} - {"__init__"}
    text = (ROOT / "cfsbuild" / room / "__init__.py").read_text()
    assert [module for module in sorted(modules) if f"`{module}`" not in text] == []


@pytest.mark.parametrize("room", ["deploy", "trust"])
def test_the_joints_of_a_room_are_there(room):
    text = (ROOT / "docs/architecture.md").read_text()
    (section,) = re.findall(rf"^### {room}\n(.*?)^#", text, re.MULTILINE | re.DOTALL)
    joints = re.findall(r" {4}((?:tpm\.)?[a-z_]+)\.([A-Za-z]\w+)\(", section)
    assert len(joints) > 15
    absent = []
    for module, joint in joints:
        source = ROOT / "cfsbuild" / room / f"{module.replace('.', '/')}.py"
        if not re.search(rf"^(def|class) {joint}\b", source.read_text(), re.MULTILINE):
            absent.append(f"{module}.{joint}")
    assert absent == []


def test_the_example_of_a_new_node_kind_works(monkeypatch):
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (source,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    module = types.ModuleType("cfsbuild.nodes.fifo")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, "fifo.py", "exec"), module.__dict__)  # noqa: S102 (our own page)
    assert '"fifo": "cfsbuild.nodes.fifo"' in text
    monkeypatch.setitem(registry.MODULES, "fifo", "cfsbuild.nodes.fifo")
    ((path, inode),) = node_helpers.run("fifo", target="/run/pipe", mode="0600").entries.items()
    assert (path, inode.mode) == (b"/run/pipe", 0o010600)
    assert node_helpers.problems("fifo", target="/run/pipe") == []


def test_the_recipes_of_daily_work_exist():
    justfile = (ROOT / "Justfile").read_text()
    for recipe in re.findall(r"`just (\w+)`", (ROOT / "CONTRIBUTING.md").read_text()):
        assert re.search(rf"^{recipe}\b.*:", justfile, re.MULTILINE)
