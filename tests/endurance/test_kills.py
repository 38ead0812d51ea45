"""Commands that are killed many times: what they leave, and how they go on."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from support.checkpoints import write_checkpoint
from support.command import COMMAND
from support.evaluation import a_strict_run_survives_kills, nothing_is_lost_or_done_twice

pytestmark = pytest.mark.slow


def test_an_evaluation_killed_at_random_moments_is_the_same_where_strict(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    a_strict_run_survives_kills(tiny_gguf, tmp_path, kills=20)


def test_an_evaluation_killed_at_random_moments_loses_nothing_and_does_nothing_twice(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    nothing_is_lost_or_done_twice(tiny_gguf, tmp_path, kills=20)


@pytest.mark.parametrize("quant_type", ["BF16", "Q4_K_M"])
def test_a_conversion_killed_at_any_moment_leaves_no_result(
    tmp_path: Path, quant_type: str
) -> None:
    source = write_checkpoint(tmp_path / "m", width=256, ffn=2048)
    out = tmp_path / "out.gguf"
    command = [*COMMAND, "convert", "gguf", str(source), str(out), "--type", quant_type, "--force"]
    begun = time.monotonic()
    assert subprocess.run(command, capture_output=True, timeout=100).returncode == 0
    took = time.monotonic() - begun
    expected = out.read_bytes()
    out.unlink()
    killed = 0
    for moment in range(20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait((moment + 1) / 22 * took)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        # Either nothing under the name, or all of it; what was begun is called otherwise.
        assert not out.exists() or out.read_bytes() == expected
        out.unlink(missing_ok=True)
    assert killed >= 10
    assert subprocess.run(command, capture_output=True, timeout=100).returncode == 0
    assert out.read_bytes() == expected
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out.gguf"]
