"""Start-up: what help, completion and front ends import, and what that costs."""

import os
import resource
import signal
import subprocess
import sys

import pytest

HEAVY = (
    "msgspec",
    "networkx",
    "jinja2",
    "cryptography",
    "tqdm",
    "blake3",
    "zstandard",
    "pathspec",
    "tomli",
    "cfsbuild.store",
    "cfsbuild.erofs",
    "cfsbuild.recipe",
    "cfsbuild.build",
    "cfsbuild.nodes",
    "cfsbuild.deploy",
    "cfsbuild.cli.ls",
    "cfsbuild.cli.build",
)

BUDGET_SECONDS = 0.080
"""CPU time of `cfsbuild --help` over that of `python -c pass`; the promise that the README makes."""

REFERENCE_SECONDS = 0.030
"""CPU time of `python -c pass` on the machine where the promise was measured."""


def imported(arguments, environment=()):
    script = (
        "import sys\n"
        f"sys.argv = {arguments!r}\n"
        "from cfsbuild.cli.main import main\n"
        "main()\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **dict(environment)},
    )
    return set(done.stderr.split()), done.stdout


def heavy(modules):
    return [name for name in HEAVY if any(m == name or m.startswith(f"{name}.") for m in modules)]


def test_help_imports_no_verb_and_nothing_heavy():
    modules, text = imported(["cfsbuild", "--help"])
    assert "Build the images of a recipe." in text
    assert heavy(modules) == []


def test_completing_a_verb_imports_no_verb_and_nothing_heavy():
    modules, text = imported(
        ["cfsbuild"],
        {"_CFSBUILD_COMPLETE": "bash_complete", "COMP_WORDS": "cfsbuild ex", "COMP_CWORD": "1"},
    )
    assert text.split() == ["plain,explain", "plain,export"]
    assert heavy(modules) == []


def test_help_of_one_verb_imports_that_verb_only():
    modules, _ = imported(["cfsbuild", "ls", "--help"])
    assert "cfsbuild.cli.ls" in modules
    assert not {"cfsbuild.cli.diff", "cfsbuild.cli.build", "networkx", "jinja2"} & modules
    assert not any(m.startswith(("cfsbuild.store.", "cfsbuild.erofs.")) for m in modules)


def test_front_ends_never_import_click():
    modules, _ = imported(["/usr/bin/mount.composefs", "-h"])
    assert "cfsbuild.cli.mount_composefs" in modules
    assert "click" not in modules


INTERRUPTED = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

from cfsbuild.__main__ import main
sys.meta_path.insert(0, Interrupt())
sys.argv = ["cfsbuild", "ls", "./x"]
sys.exit(main())
"""


@pytest.mark.parametrize(
    "module",
    [
        "cfsbuild.cli",
        "cfsbuild.cli.main",
        "cfsbuild.cli.signals",
        "threading",
        "cfsbuild.cli.streams",
        "cfsbuild.cli.verbs",
        "cfsbuild.cli.group",
        "click",
        "cfsbuild.cli.ls",
    ],
)
def test_ctrl_c_while_a_module_is_imported_ends_without_a_traceback(module):
    command = [sys.executable, "-S", "-c", INTERRUPTED.format(module=module)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode in {-signal.SIGINT, 130}
    assert (done.stdout, done.stderr) in {("", ""), ("", "interrupted\n")}


def test_an_ignored_ctrl_c_stays_ignored():
    script = f"trap '' INT; exec '{sys.executable}' -S -c \"$1\""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["sh", "-c", script, "sh", INTERRUPTED.format(module="cfsbuild.cli.main")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "there is no file ./x" in done.stderr


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "cfsbuild", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("cfsbuild ")


def processor_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_takes_less_than_80_ms_of_processor_time_over_an_empty_python():
    empty = [sys.executable, "-c", "pass"]
    helping = [
        sys.executable,
        "-c",
        "import sys; sys.argv = ['cfsbuild', '--help']; from cfsbuild.cli.main import main; main()",
    ]
    # The least of several runs: whatever else the machine does only adds. On a machine that is slower, or busier,
    # than the one where the promise was measured, an empty Python takes longer, and so may this.
    for _ in range(5):
        pairs = [(processor_seconds(empty), processor_seconds(helping)) for _ in range(4)]
        nothing, cost = (min(seconds) for seconds in zip(*pairs, strict=True))
        budget = BUDGET_SECONDS * max(1, nothing / REFERENCE_SECONDS)
        if cost - nothing < budget:
            return
    pytest.fail(f"{(cost - nothing) * 1000:.0f} ms, of {budget * 1000:.0f} ms")
