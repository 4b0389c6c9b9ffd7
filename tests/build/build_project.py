"""A small project on disk, and what building it tells."""

from pathlib import Path

from cfsbuild.build.memo import Request
from cfsbuild.build.pipeline import Options, build, load_plans, make_request
from cfsbuild.build.result import BuildResult
from cfsbuild.events import Event

RECIPE = """\
[image]
name = "demo"
version = "1"

[nodes.etc]
kind = "dir"
target = "/etc"

[nodes.hostname]
kind = "file"
target = "/etc/hostname"
content = "edge\\n"

[nodes.data]
kind = "file"
target = "/data"
source = "data.bin"

[nodes.users]
kind = "accounts"
needs = ["etc"]
users = [{ name = "app", uid = 990, home = "/home/app" }]
"""


def names(directory: Path) -> list[str]:
    """Return what is in a directory, sorted."""
    return sorted(path.name for path in directory.iterdir())


class Project:
    """A recipe, its sources and its store; `build` records every event."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recipe = root / "demo.toml"
        self.data = root / "data.bin"
        self.events: list[Event] = []
        self.environ: dict[str, str] = {}
        self.write(RECIPE)
        self.write_data(b"x" * 100)

    def write(self, text: str) -> None:
        self.recipe.write_text(text)

    def edit(self, old: str, new: str) -> None:
        text = self.recipe.read_text()
        assert old in text
        self.write(text.replace(old, new))

    def write_data(self, data: bytes) -> None:
        self.data.write_bytes(data)

    @property
    def request(self) -> Request:
        return make_request(self.recipe, store=self.root / "store", output=self.root / "out")

    def build(
        self, *, jobs: int = 2, force: tuple[str, ...] | None = (), keep_going: bool = False
    ) -> BuildResult:
        self.events = []
        options = Options(jobs=jobs, force=force, keep_going=keep_going)
        (result,) = build(self.request, options, environ=self.environ, listener=self.events.append)
        return result

    def plan(self):
        (planned,) = load_plans(self.request, environ=self.environ)
        return planned

    def outcomes(self, result: BuildResult) -> dict[str, str]:
        return {job.job: job.outcome for job in result.jobs}

    def staging(self) -> list[str]:
        return names(self.root / "store" / "cfsbuild" / "staging")
