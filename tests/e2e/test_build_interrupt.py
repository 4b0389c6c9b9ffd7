import signal
import subprocess
import sys
import time

from cfsbuild.store.store import Store

FILES = 3000


def test_ctrl_c_while_files_are_taken_in_ends_within_two_seconds_and_leaves_nothing(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(FILES):
        (source / str(number)).write_bytes(number.to_bytes(4, "big") * 8000)
    recipe = tmp_path / "r.toml"
    recipe.write_text('[image]\nname = "r"\n[nodes.tree]\nkind = "tree"\nsource = "source"\n')
    store = tmp_path / "store"
    command = [sys.executable, "-m", "cfsbuild.cli.main", "build", "--progress", "json", str(recipe)]
    process = subprocess.Popen(
        [*command, "--store", str(store)], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        line = b""
        while b'"job-started"' not in line and b'"progress"' not in line:
            line = process.stderr.readline()
            assert line, "it was over before it could be interrupted"
        time.sleep(0.01)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(30) == 130
        assert time.monotonic() - began < 2
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert list((store / "cfsbuild" / "staging").iterdir()) == []
    assert not (tmp_path / "out").exists()
    with Store.open(store) as opened:
        assert opened.refs() == {}
    done = subprocess.run([*command, "--store", str(store)], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
