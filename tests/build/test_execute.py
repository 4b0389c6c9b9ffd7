import os
import threading
import time
from pathlib import Path

import msgspec
import pytest
from build_project import names

from cfsbuild import events
from cfsbuild.build.context import BuildFailedError
from cfsbuild.build.execute import execute
from cfsbuild.build.plan import plan
from cfsbuild.errors import BuildError, CfsError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.nodes.kind import Fingerprint, NodeKind
from cfsbuild.nodes.registry import NODE_KINDS
from cfsbuild.recipe.load import load_recipes
from cfsbuild.store.store import Store
from cfsbuild.targets.registry import TARGET_KINDS
from cfsbuild.tree.layer import make_layer

DIR = NODE_KINDS["dir"]


def ran(project, result):
    return {name for name, outcome in project.outcomes(result).items() if outcome == "ran"}


def test_the_first_build_runs_everything_and_the_second_nothing(project):
    assert ran(project, project.build()) == {"etc", "hostname", "data", "users", "targets.image"}
    assert ran(project, project.build()) == set()


def test_the_image_is_in_the_store_under_its_name_and_in_the_output_directory(project):
    result = project.build()
    (image,) = result.images
    with Store.open(project.root / "store", read_only=True) as store:
        assert store.resolve("demo-1").hex() == image.digest
        data = store.read_object(bytes.fromhex(image.digest))
    assert [Path(path).name for path in image.files] == [
        "demo-1.cfs",
        "demo-1.dump",
        "demo-1.manifest.json",
    ]
    copy = project.root / "out" / "demo-1.cfs"
    assert copy.read_bytes() == data
    assert copy.stat().st_nlink == 1


def test_changing_a_parameter_runs_that_node_and_the_image_only(project):
    project.build()
    project.edit("edge", "gateway")
    assert ran(project, project.build()) == {"hostname", "targets.image"}


def test_changing_a_source_runs_the_node_that_reads_it(project):
    project.build()
    project.write_data(b"y" * 100)
    assert ran(project, project.build()) == {"data", "targets.image"}


def test_touching_a_source_runs_nothing(project):
    project.build()
    os.utime(project.data, (1, 1))
    assert ran(project, project.build()) == set()


def test_renaming_a_node_runs_no_node(project):
    project.build()
    project.edit("[nodes.hostname]", "[nodes.name]")
    result = project.build()
    assert result.jobs[[job.job for job in result.jobs].index("name")].outcome == "cached"


def test_going_back_to_an_earlier_recipe_finds_its_results(project):
    first = project.build()
    project.edit("edge", "gateway")
    project.build()
    project.edit("gateway", "edge")
    result = project.build()
    assert ran(project, result) == {"targets.image"}
    assert result.digest == first.digest


def test_a_reader_is_cut_off_when_what_it_reads_comes_out_as_before(project):
    project.build()
    # Declared in another way, the directory is the same: its layer, and so the input of `users`, do not change.
    project.edit('target = "/etc"\n', 'target = "/etc/"\n')
    outcomes = project.outcomes(project.build())
    assert outcomes["etc"] == "ran"
    assert outcomes["users"] == "cut-off"
    assert outcomes["targets.image"] == "cut-off"
    assert {type(event).__name__ for event in project.events if getattr(event, "job", "") == "users"} == {
        "JobCutOff"
    }


def test_a_reader_runs_when_what_it_reads_changes_and_the_event_says_why(project):
    project.build()
    project.edit('target = "/etc"\n', 'target = "/etc"\nmode = "0700"\n')
    assert project.outcomes(project.build())["users"] == "ran"
    (started,) = [e for e in project.events if isinstance(e, events.JobStarted) and e.job == "users"]
    assert started.reason == "etc gave another output"


def test_force_runs_every_job_and_gives_the_same_image(project):
    first = project.build()
    again = project.build(force=None)
    assert again.ran == len(again.jobs)
    assert again.digest == first.digest


def test_a_lost_layer_is_made_again(project):
    first = project.build()
    for layer in (project.root / "store" / "cfsbuild" / "layers").iterdir():
        layer.unlink()
    again = project.build(force=("targets.image",))
    assert again.digest == first.digest
    assert {"etc", "hostname", "data", "users"} <= ran(project, again)


def test_a_lost_object_is_taken_in_again(project):
    project.build()
    lost = digest_bytes(project.data.read_bytes(), Algorithm.SHA256)
    with Store.open(project.root / "store") as store:
        path = store.objects_path / lost.hex()[:2] / lost.hex()[2:]
    path.unlink()
    project.edit("edge", "gateway")
    project.build()
    assert path.exists()


@pytest.mark.parametrize("suffix", ["cfs", "dump", "manifest.json"])
def test_a_deleted_or_altered_output_file_is_written_again(project, suffix):
    project.build()
    file = project.root / "out" / f"demo-1.{suffix}"
    good = file.read_bytes()
    file.write_bytes(b"altered")
    assert ran(project, project.build()) == {"targets.image"}
    assert file.read_bytes() == good
    file.unlink()
    project.build()
    assert file.read_bytes() == good


def test_a_removed_reference_is_set_again(project):
    result = project.build()
    with Store.open(project.root / "store") as store:
        assert store.remove_ref("demo-1")
    project.build()
    with Store.open(project.root / "store") as store:
        assert store.resolve("demo-1").hex() == result.digest


def test_the_job_count_shapes_no_output(project, tmp_path):
    one = project.build(jobs=1, force=None)
    many = project.build(jobs=8, force=None)
    assert {job.job: job.output for job in one.jobs} == {job.job: job.output for job in many.jobs}


def test_events_come_in_order(project):
    project.build(jobs=4)
    kinds = [type(event).__name__ for event in project.events]
    assert kinds[0] == "BuildStarted"
    assert kinds[-1] == "BuildFinished"
    for job in ("etc", "users", "targets.image"):
        own = [type(event).__name__ for event in project.events if getattr(event, "job", "") == job]
        assert own == ["JobStarted", "JobFinished"]
    assert project.events[-1].ran == 5


def test_nothing_is_left_in_staging(project):
    project.build()
    assert project.staging() == []


class Params(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of a kind made up for a test."""


def kinds(**produce):
    made = {
        name: NodeKind(
            name=name, version=1, summary="", params=Params, produce=function, reads=name == "reader"
        )
        for name, function in produce.items()
    }
    return {"dir": DIR, **made}


def run(tmp_path, text, node_kinds, **options):
    path = tmp_path / "r.toml"
    path.write_text('[image]\nname = "r"\n' + text)
    (recipe,) = load_recipes(
        path, node_kinds=node_kinds, target_kinds=TARGET_KINDS, overrides={}, profiles=(), environ={}
    )
    planned = plan(recipe, node_kinds, TARGET_KINDS)
    with Store.init(tmp_path / "store") as store:
        return execute(
            planned,
            store,
            node_kinds=node_kinds,
            target_kinds=TARGET_KINDS,
            output=tmp_path / "out",
            **options,
        ).result


def fail(context, params, fingerprint):
    raise BuildError("it broke")


def empty(context, params, fingerprint):
    return make_layer({})


BROKEN = '[nodes.bad]\nkind = "bad"\n[nodes.after]\nkind = "reader"\nneeds = ["bad"]\n[nodes.good]\nkind = "good"\n'


def test_a_failure_is_raised_as_it_is_and_what_finished_before_is_kept(tmp_path):
    with pytest.raises(BuildError, match="it broke"):
        run(tmp_path, BROKEN, kinds(bad=fail, reader=empty, good=empty), jobs=1, keep_going=True)
    result_count = len(names(tmp_path / "store" / "cfsbuild" / "nodes"))
    assert result_count == 1


def test_keep_going_skips_only_what_needs_the_failed_job(tmp_path):
    seen = []
    with pytest.raises(BuildError):
        run(
            tmp_path, BROKEN, kinds(bad=fail, reader=empty, good=empty), keep_going=True, listener=seen.append
        )
    skipped = [(e.job, e.because) for e in seen if isinstance(e, events.JobSkipped)]
    assert skipped == [("after", "bad"), ("targets.image", "bad")] or set(skipped) == {
        ("after", "bad"), ("targets.image", "after"),
    }  # fmt: skip
    assert "good" in [e.job for e in seen if isinstance(e, events.JobFinished)]


def test_a_failure_is_tried_again_by_the_next_build(tmp_path):
    text = '[nodes.bad]\nkind = "bad"\n'
    with pytest.raises(BuildError):
        run(tmp_path, text, kinds(bad=fail))
    assert run(tmp_path, text, kinds(bad=empty)).ran == 2


def test_several_failures_are_reported_together(tmp_path):
    text = '[nodes.one]\nkind = "bad"\n[nodes.two]\nkind = "bad"\n'
    with pytest.raises(BuildFailedError) as caught:
        run(tmp_path, text, kinds(bad=fail), jobs=2, keep_going=True)
    assert [problem.brief for problem in caught.value.problems()] == ["it broke", "it broke"]
    assert caught.value.exit_code == 1


def test_without_keep_going_nothing_new_is_started_after_a_failure(tmp_path):
    seen = []
    text = '[nodes.bad]\nkind = "bad"\n[nodes.good]\nkind = "good"\n[nodes.late]\nkind = "reader"\nneeds = ["good"]\n'
    with pytest.raises(CfsError):
        run(tmp_path, text, kinds(bad=fail, reader=empty, good=empty), jobs=1, listener=seen.append)
    assert "late" not in [e.job for e in seen if isinstance(e, events.JobStarted)]


def test_independent_jobs_run_at_the_same_time(tmp_path):
    barrier = threading.Barrier(3, timeout=10)

    def meet(context, params, fingerprint):
        barrier.wait()
        return make_layer({})

    text = "".join(f'[nodes.n{number}]\nkind = "meet"\n' for number in range(3))
    assert run(tmp_path, text, kinds(meet=meet), jobs=3).ran == 4


def test_a_source_that_changes_while_it_is_read_fails_the_node(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"before")

    class WithSource(msgspec.Struct, frozen=True, kw_only=True):
        """A local file."""

        source: str

    def gather(context, params):
        return Fingerprint(digests={"source": source.read_text()})

    def produce(context, params, fingerprint):
        source.write_bytes(b"afterwards")
        return make_layer({})

    kind = NodeKind(
        name="odd",
        version=1,
        summary="",
        params=WithSource,
        produce=produce,
        gather=gather,
        path_keys=("source",),
    )
    with pytest.raises(BuildError, match="source changed while building: source"):
        run(tmp_path, '[nodes.n]\nkind = "odd"\nsource = "source"\n', {"odd": kind})
    assert names(tmp_path / "store" / "cfsbuild" / "nodes") == []


def test_an_interrupt_discards_what_is_staged_and_ends_soon(tmp_path):
    began = threading.Event()

    def work(context, params, fingerprint):
        context.sink.add_bytes(b"z" * 100_000)
        began.set()
        while True:  # until the sink refuses
            time.sleep(0.01)
            context.sink.add_bytes(b"more")

    def interrupt(event):
        if isinstance(event, events.JobFinished):
            raise KeyboardInterrupt

    def after_the_slow_one_began(context, params, fingerprint):
        assert began.wait(10)
        return make_layer({})

    text = '[nodes.quick]\nkind = "good"\n[nodes.slow]\nkind = "work"\n'
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, text, kinds(good=after_the_slow_one_began, work=work), jobs=2, listener=interrupt)
    assert time.monotonic() - started < 2
    assert names(tmp_path / "store" / "cfsbuild" / "staging") == []
    assert names(tmp_path / "store" / "objects") == []


def test_conflicts_of_static_nodes_are_errors_of_the_recipe(project):
    project.edit('target = "/data"\n', 'target = "/etc/hostname"\n')
    with pytest.raises(CfsError, match="/etc/hostname") as caught:
        project.build()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("failure", "kept"), [(KeyboardInterrupt(), False), (OSError(5, "I/O error"), True)])
def test_what_was_built_is_kept_when_its_files_cannot_be_written_but_not_when_one_stops_it(
    project, monkeypatch, failure, kept
):
    def fail(source, target):
        raise failure

    monkeypatch.setattr("cfsbuild.build.outputs.clone_or_copy", fail)
    with pytest.raises((KeyboardInterrupt, CfsError)):
        project.build()
    assert names(project.root / "out") == []
    with Store.open(project.root / "store", read_only=True) as store:
        assert (store.resolve("demo-1") is not None) is kept
