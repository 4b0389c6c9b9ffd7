"""What a build gives back."""

from __future__ import annotations

import msgspec

from cfsbuild.build.reasons import Reason
from cfsbuild.events import BuildFinished

RESULT_VERSION = 1

RAN = "ran"
CACHED = "cached"
CUT_OFF = "cut-off"


class JobReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one job. `outcome` is `ran`, `cached` or `cut-off`; `output` names what it gave."""

    job: str
    kind: str
    outcome: str
    key: str
    output: str
    seconds: float = 0.0
    reasons: tuple[Reason, ...] = ()


class ImageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a target gave. `digest` is lower-case hex; `files` are paths of output files, the main one first.

    Only an image has a `reference`.
    """

    target: str
    digest: str
    reference: str
    files: tuple[str, ...]


class BuildResult(msgspec.Struct, frozen=True, kw_only=True):
    """An image and how it came about. `unchanged` says that a remembered build was still right."""

    version: int = RESULT_VERSION
    image: str
    images: tuple[ImageReport, ...]
    jobs: tuple[JobReport, ...] = ()
    seconds: float = 0.0
    unchanged: bool = False

    @property
    def digest(self) -> str:
        """Return the first image's digest; what has no reference is no image."""
        return next((image.digest for image in self.images if image.reference), "")

    @property
    def ran(self) -> int:
        """Return how many jobs ran."""
        return 0 if self.unchanged else sum(job.outcome == RAN for job in self.jobs)

    @property
    def cached(self) -> int:
        """Return how many jobs did not have to run."""
        return len(self.jobs) - self.ran

    def finished(self, seconds: float) -> BuildFinished:
        """Return the event that ends a build of `seconds`."""
        return BuildFinished(
            image=self.image, digest=self.digest, seconds=seconds, ran=self.ran, cached=self.cached
        )
