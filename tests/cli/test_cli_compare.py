"""diff and explain: what differs, and why digests do."""

import msgspec
import pytest

from cfsbuild.erofs.writer import write_image
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.tree.dump import parse_dump_bytes


def edited(text):
    text = text.replace("edge\\n", "edgy\\n").replace(
        "1 0 0 0 1700000000.0 usr/bin", "1 0 0 0 1600000000.0 usr/bin"
    )
    return "".join(line for line in text.splitlines(keepends=True) if "sda" not in line)


def test_equal_images_differ_in_nothing(lab, run):
    lab.image()
    lab.image("b.cfs")
    assert run("diff", "a.cfs", "b.cfs") == (0, b"", "")
    explained = run("explain", "a.cfs", "b.cfs")
    assert explained.status == 0
    assert "The two are the same, byte for byte." in explained.lines


def test_diff_names_path_attribute_and_both_values(lab, run):
    lab.image()
    lab.image("b.cfs", edited)
    outcome = run("diff", "a.cfs", "b.cfs")
    assert outcome.status == 6
    assert outcome.lines == [
        "~ /bin",
        "    mtime  2023-11-14 22:13:20 -> 2020-09-13 12:26:40",
        "- /dev/sda (block device)",
        "~ /etc/hostname",
        '    content  "edge\\n" -> "edgy\\n"',
        "~ /usr/bin/hostlink",
        '    content  "edge\\n" -> "edgy\\n"',
    ]
    back = run("diff", "b.cfs", "a.cfs")
    assert "+ /dev/sda (block device)" in back.lines


def test_diff_counts_with_stat_and_is_quiet_when_told(lab, run):
    lab.image()
    lab.image("b.cfs", edited)
    outcome = run("diff", "--stat", "a.cfs", "b.cfs")
    assert outcome.status == 6
    assert outcome.lines == ["0 added, 1 removed, 3 changed", "  content  2", "  mtime    1"]
    assert run("diff", "-q", "a.cfs", "b.cfs") == (6, b"", "")


def test_diff_json_has_every_change(lab, run):
    lab.image()
    lab.image("b.cfs", edited)
    outcome = run("diff", "--json", "a.cfs", "b.cfs")
    assert outcome.status == 6
    assert {
        "path": "/bin",
        "attribute": "mtime",
        "before": 1700000000 * 10**9,
        "after": 1600000000 * 10**9,
    } in outcome.json["changes"]
    assert outcome.json["summary"] == {
        "added": 0,
        "removed": 1,
        "changed": 3,
        "attributes": {"content": 2, "mtime": 1},
    }
    assert outcome.json["a"]["digest"] != outcome.json["b"]["digest"]


def test_diff_colours_additions_and_removals(lab, run):
    lab.image()
    lab.image("b.cfs", edited)
    assert "\x1b[31m- /dev/sda (block device)\x1b[0m" in run("diff", "--color=always", "a.cfs", "b.cfs").text


def test_images_of_one_tree_in_two_formats_differ_and_say_how(lab, run):
    lab.image()
    lab.image("b.cfs", form=0)
    assert run("diff", "a.cfs", "b.cfs").lines == ["~ (image file)", "    format  1 -> 0"]
    explained = run("explain", "a.cfs", "b.cfs")
    assert explained.status == 6
    assert "The trees are equal; the images differ in format (1 and 0)." in explained.lines
    assert "The first byte that differs is at offset 12." in explained.lines


def test_explain_puts_the_difference_that_matters_first(lab, run):
    lab.image()
    lab.image("b.cfs", edited)
    outcome = run("explain", "a.cfs", "b.cfs")
    assert outcome.status == 6
    at = outcome.lines.index("The first difference that matters:")
    assert outcome.lines[at + 1] == "  - /dev/sda (block device)"
    assert any(line.startswith("The trees differ: 0 added, 1 removed") for line in outcome.lines)


def test_explain_shows_changes_of_one_path_only_once(lab, run):
    lab.image()
    lab.image("b.cfs", lambda text: text.replace("20666 1 0 0 259", "20600 1 0 0 260"))
    lines = run("explain", "--all", "a.cfs", "b.cfs").lines
    assert lines[3] == "The trees differ: 0 added, 0 removed, 1 changed."
    assert lines[5:7] == ["The difference:", "  ~ /dev/null"]
    assert sorted(line.split()[0] for line in lines[7:]) == ["mode", "rdev"]


def test_explain_recognises_another_epoch(lab, run):
    def clamp(epoch):
        return lambda text: (
            text.replace("1700000000.0", "0.0").replace(" -5.0", " 0.0").replace(" 0.0 ", f" {epoch}.0 ")
        )

    lab.image(edit=clamp(1600000000))
    lab.image("b.cfs", clamp(1700000000))
    verdict = run("explain", "a.cfs", "b.cfs").text
    assert "Only times differ" in verdict
    assert "so the epoch is another" in verdict


def test_explain_recognises_fractions_of_seconds(lab, run):
    lab.image()
    lab.image("b.cfs", lambda text: text.replace("1700000000.0", "1700000000.123"))
    assert (
        "one image has whole seconds (clamped to an epoch), the other has fractions"
        in run("explain", "a.cfs", "b.cfs").text
    )


def test_explain_recognises_inlining_by_content_not_by_name(lab, run):
    digest = digest_bytes(b"edge\n", Algorithm.SHA256).hex()
    stored = f"{digest[:2]}/{digest[2:]} - {digest}"
    lab.image()
    lab.image("b.cfs", lambda text: text.replace("- edge\\n -", stored, 1))
    outcome = run("explain", "a.cfs", "b.cfs")
    assert (
        "The trees are equal; small files are inline in one image and objects in the other." in outcome.lines
    )
    assert "  /etc/hostname  stored  inline -> an object" in outcome.lines
    other = digest_bytes(b"EDGE\n", Algorithm.SHA256).hex()
    lab.image("c.cfs", lambda text: text.replace("- edge\\n -", f"{other[:2]}/{other[2:]} - {other}", 1))
    assert "The trees differ: 0 added, 0 removed, 2 changed." in run("explain", "a.cfs", "c.cfs").lines


def test_explain_recognises_images_without_digests(lab, run):
    digest = lab.tool.parent.name + lab.tool.name
    lab.image()
    lab.image("b.cfs", lambda text: text.replace(f" - {digest}", " - -"))
    outcome = run("explain", "a.cfs", "b.cfs")
    assert "The trees are equal; only one image carries digests of the contents." in outcome.lines
    assert outcome.status == 6


def test_explain_recognises_other_backing_paths(lab, run):
    lab.image()
    lab.image("b.cfs", lambda text: text.replace(f"{lab.tool.parent.name}/{lab.tool.name}", "files/tool"))
    outcome = run("explain", "a.cfs", "b.cfs")
    assert "The trees are equal; objects are found under other paths (another flavour)." in outcome.lines


def test_a_dump_and_its_image_are_the_same_tree(lab, run):
    lab.image()
    (lab.directory / "a.dump").write_bytes(lab.dump())
    outcome = run("explain", "a.dump", "a.cfs")
    assert outcome.status == 0
    assert "The two describe the same tree." in outcome.lines


def test_explain_json_is_one_document(lab, run):
    lab.image()
    lab.image("b.cfs", edited)
    document = run("explain", "--json", "a.cfs", "b.cfs").json
    assert document["version"] == 1
    assert document["equal"] is False
    assert document["first"] == {
        "path": "/dev/sda",
        "attribute": "present",
        "before": "block device",
        "after": None,
    }
    assert len(document["changes"]) == 4


def test_explain_lists_a_part_unless_all_is_asked_for(lab, run):
    def many(text):
        return text + "".join(f"/usr/bin/x{n:03d} 0 100644 1 0 0 0 0.0 - - -\n" for n in range(50))

    lab.image()
    path = lab.directory / "b.cfs"
    path.write_bytes(bytes(write_image(parse_dump_bytes(lab.dump(many)), format=1)))
    short, full = run("explain", "a.cfs", "b.cfs"), run("explain", "--all", "a.cfs", "b.cfs")
    assert "  … and 30 more paths (--all)" in short.lines
    assert sum(line.startswith("  + /usr/bin/x") for line in full.lines) >= 50


@pytest.mark.parametrize("verb", ["diff", "explain"])
def test_comparing_with_something_that_is_not_there_fails_cleanly(lab, run, verb):
    lab.image()
    outcome = run(verb, "--json", "a.cfs", "none.cfs")
    assert outcome.status == 2
    error = msgspec.json.decode(outcome.err)["error"]
    assert error["reason"] == "no-image"
    assert error["exit_code"] == 2
