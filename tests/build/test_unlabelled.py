"""What a labelled image has without a label is told, and only that."""

import pytest

from cfsbuild.events import Note

LABELS = """
[nodes.labels]
kind = "attributes"
needs = {needs}
file_contexts = "fc"
"""


def notes(project, needs, more="", policy="/.* u:r:any\n/data <<none>>\n"):
    project.root.joinpath("fc").write_text(policy)
    project.write(project.recipe.read_text() + LABELS.format(needs=needs) + more)
    project.build()
    return [(event.job, event.text, event.origin) for event in project.events if isinstance(event, Note)]


def test_paths_of_nodes_that_no_labelling_node_needs_are_told_at_its_needs(project):
    line = project.recipe.read_text().count("\n") + 4
    text = "2 paths of hostname, data have no SELinux label: labels does not need them"
    assert notes(project, '["users"]') == [("labels", text, f"{project.recipe}:{line}")]


@pytest.mark.parametrize("policy", ["/.* u:r:any\n", "/.* u:r:any\n/data <<none>>\n"])
def test_nothing_is_told_when_all_was_given_to_a_labelling_node(project, policy):
    assert notes(project, '["hostname", "data", "users"]', policy=policy) == []


def test_several_labelling_nodes_count_together(project):
    more = LABELS.replace("labels", "others").format(needs='["data"]')
    text = "1 path of hostname has no SELinux label: no node that labels needs it"
    assert [found[1] for found in notes(project, '["users"]', more)] == [text]


def test_a_node_that_brings_its_own_label_is_not_told(project):
    more = '[nodes.late]\nkind = "file"\ntarget = "/late"\ncontent = ""\nneeds = ["labels"]\n{}'
    needs = '["hostname", "data", "users"]'
    labelled = more.format('xattrs = { "security.selinux" = "u:r:late" }\n')
    before = project.recipe.read_text()
    assert notes(project, needs, labelled) == []
    project.write(before)
    text = "1 path of late has no SELinux label: labels does not need it"
    assert [found[1] for found in notes(project, needs, more.format(""))] == [text]


def test_an_image_without_labels_is_built_without_a_word(project):
    project.build()
    assert not any(isinstance(event, Note) for event in project.events)
