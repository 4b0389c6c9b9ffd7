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
