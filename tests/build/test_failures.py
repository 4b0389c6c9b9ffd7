"""What several failed jobs are together."""

from cfsbuild.build.context import BuildFailedError, StoreFailedError, failure
from cfsbuild.errors import BuildError, Origin, StoreError


def test_one_thing_that_met_several_jobs_is_told_once():
    first = StoreError("no space left", details="one")
    assert failure([first, StoreError("no space left", details="two")]) is first


def test_the_same_words_about_two_nodes_are_two_errors():
    errors = [BuildError("changed", origin=Origin("r.toml", line)) for line in (3, 7)]
    found = failure(errors)
    assert isinstance(found, BuildFailedError)
    assert (found.exit_code, found.errors) == (1, tuple(errors))


def test_several_errors_of_the_store_are_errors_of_the_store():
    found = failure([StoreError("no space left"), StoreError("too many open files")])
    assert isinstance(found, StoreFailedError)
    assert found.exit_code == 7
    assert failure([StoreError("no space left"), BuildError("changed")]).exit_code == 1
