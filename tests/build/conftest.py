import pytest
from build_project import Project


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    root.mkdir()
    return Project(root)


@pytest.fixture
def settled(monkeypatch):
    """Take sources at their signature however young they are: these tests leave no time between write and build."""
    monkeypatch.setattr("cfsbuild.build.sources.RACY_NS", -(10**12))
    monkeypatch.setattr("cfsbuild.build.memo.TICK_NS", -(10**12))
