import os
import signal
import subprocess
import sys
import time

from test_build_verb import RECIPE


def wait_for(path, text, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if text in path.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{text!r} did not appear in: {path.read_text()}")


def test_it_builds_again_after_a_change_and_ends_with_130_on_ctrl_c(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    out, err = tmp_path / "out.txt", tmp_path / "err.txt"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "cfsbuild.cli.main", "watch", "-v", "--store", str(tmp_path / "store")],
            cwd=tmp_path, stdout=stdout, stderr=stderr, env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
    try:
        wait_for(err, "watching for changes")
        recipe.write_text(RECIPE.replace('"edge"', '"core"'))
        wait_for(err, "recipe.toml changed")
        wait_for(err, '"edge\\n" → "core\\n"')
        deadline = time.monotonic() + 30
        while out.read_text().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert time.monotonic() - began < 2
    finally:
        process.kill()
        process.wait()
    first, second = out.read_text().splitlines()
    assert first.endswith("  out/demo-1.cfs")
    assert first != second
