import time
from concurrent.futures import ThreadPoolExecutor

from cfsbuild.build.trees import Trees
from cfsbuild.nodes.registry import NODE_KINDS
from cfsbuild.tree.layer import make_layer


def test_layers_are_merged_once_even_if_two_jobs_ask_at_the_same_time(project):
    def load(name):
        time.sleep(0.05)
        return make_layer({})

    trees = Trees(project.plan(), NODE_KINDS, load, {})
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: trees.merged(("etc",), {"etc": "layer"}), range(2))
    assert one is two


def test_a_merge_is_kept_while_a_job_to_come_needs_it_and_then_dropped(project):
    trees = Trees(project.plan(), NODE_KINDS, lambda _: make_layer({}), {})
    merged = trees.merged(("etc",), {"etc": "layer"})

    assert trees.keep({("etc",), ("etc", "other")}) == {"etc", "other"}
    assert trees.merged(("etc",), {"etc": "layer"}) is merged

    assert trees.keep({("etc",)}) == set()
    assert trees.keep(()) == set()
    assert trees.merged(("etc",), {"etc": "layer"}) is not merged
