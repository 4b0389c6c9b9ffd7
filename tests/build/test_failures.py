"""What several failed jobs are together."""

from cfsbuild.build.context import BuildFailedError, failure
from cfsbuild.errors import BuildError, Origin, StoreError


def test_one_thing_that_met_several_jobs_is_told_once():
    first = StoreError("no space left", details="one")
    assert failure([first, StoreError("no space left", details="two")]) is first


def test_the_same_words_about_two_nodes_are_two_errors():
    errors = [BuildError("changed", origin=Origin("r.toml", line)) for line in (3, 7)]
    found = failure(errors)
    assert isinstance(found, BuildFailedError)
    assert (found.exit_code, found.errors) == (1, tuple(errors))


def test_what_follows_from_the_first_error_of_the_store_is_not_told():
    first = StoreError("no space left")
    assert failure([first, StoreError("no such file")]) is first
    assert failure([first, BuildError("changed")]).exit_code == 1
