"""The speed benchmark: its records, its arithmetic, and what it does where a peer is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoints import write_checkpoint
from support.gguf_files import write_gguf
from support.tokenizers import ADDED
from tokenizers import pre_tokenizers

from erank_lite.benchmarks.speed import (
    Peers,
    SpeedOptions,
    Workload,
    measure_scaling,
    measure_speed,
)
from erank_lite.benchmarks.speed import batched_bench as bench
from erank_lite.benchmarks.speed.alone import run_alone
from erank_lite.benchmarks.speed.batch_invariance import measure_batch_invariance
from erank_lite.benchmarks.speed.forecasts import Job, measure_forecasts
from erank_lite.benchmarks.speed.memory import peak_memory
from erank_lite.benchmarks.speed.peaks import bandwidth, matmul
from erank_lite.benchmarks.speed.random_model import write_random
from erank_lite.benchmarks.speed.roofline import Costs, roofline
from erank_lite.benchmarks.speed.subject import find_subject
from erank_lite.benchmarks.speed.summary import summarize
from erank_lite.benchmarks.speed.systems import OURS, select_systems
from erank_lite.benchmarks.speed.systems.loop import _complete
from erank_lite.benchmarks.speed.trial import Trial
from erank_lite.benchmarks.speed.workload import ordinary_ids
from erank_lite.errors import InputError, ModelError
from erank_lite.models.gguf import GGUFFile
from erank_lite.testing.tiny_models import Shape

WORK = Workload(documents=5, shared=20, own=12, tokens=4, sequences=2)
ONCE = SpeedOptions(repeat=1, threads=1, timeout=120)


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither llama-server nor llama-batched-bench is on this machine."""
    monkeypatch.delenv("LLAMA_SERVER", raising=False)
    monkeypatch.delenv("LLAMA_BATCHED_BENCH", raising=False)
    monkeypatch.setenv("PATH", "")


@pytest.fixture(scope="module")
def record(tiny_gguf: Path) -> dict[str, Any]:
    """A speed record of a tiny model, with a peer that is there and two that are not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LLAMA_SERVER", raising=False)
        patch.setenv("LLAMA_BATCHED_BENCH", "no-such-program")
        patch.setenv("PATH", "")
        systems = ["erank-lite", "loop", "llama-server", "published method"]
        (found,) = measure_speed(tiny_gguf, [WORK], systems=systems, options=ONCE)
        return found


def test_a_speed_record_has_its_schema(record: dict[str, Any]) -> None:
    common = {"kind", "metrics_version", "command", "commit", "date", "machine", "versions"}
    assert common <= record.keys()
    assert record["kind"] == "speed"
    assert record["model"] == "tiny.gguf"
    assert record["work"] == {
        "documents": 5, "shared": 20, "own": 12, "tokens": 4, "sequences": 2,
    }  # fmt: skip
    assert [way["name"] for way in record["ways"]] == ["erank-lite", "loop"]
    for way in record["ways"]:
        assert way["what"]
        assert way["documents_per_second"] == pytest.approx(5 / way["last_result"])
        assert 0 < way["first_result"] < way["last_result"]
        assert way["peak_memory"] > 10 << 20
    assert json.loads(json.dumps(record)) == record
    assert "/" not in json.dumps([record["ways"], record["ceiling"]]).replace("GB/s", "")


def test_exactly_the_tokens_asked_for_are_written(record: dict[str, Any]) -> None:
    for way in record["ways"]:
        assert way["tokens_per_second"] * way["last_result"] == pytest.approx(5 * 4)


def test_a_missing_peer_is_skipped_and_named(record: dict[str, Any]) -> None:
    assert record["skipped"] == {
        "llama-server": "there is no program llama-server: LLAMA_SERVER names none",
        "llama-batched-bench": "there is no program llama-batched-bench: "
        "LLAMA_BATCHED_BENCH names none that runs",
        "published method": record["skipped"]["published method"],
    }
    assert record["practical_ceiling"] is None


def test_the_ceiling_is_measured_with_the_ways(record: dict[str, Any]) -> None:
    rates, ceiling = record["machine_rates"], record["ceiling"]
    assert rates["gflops"] == max(rates["matmul_gflops"], rates["model_gflops"]) > 0
    assert rates["gigabytes_per_second"] > 0
    ours = record["ways"][0]["documents_per_second"]
    assert ceiling["reached"] == pytest.approx(ours / ceiling["documents_per_second"])
    assert any("roofline" in note for note in record["notes"])


def test_scaling_has_a_point_for_each_value(tiny_gguf: Path) -> None:
    (found,) = measure_scaling(tiny_gguf, "document tokens", [8, 40], WORK, options=ONCE)
    assert (found["kind"], found["axis"]) == ("growth", "document tokens")
    assert [point["x"] for point in found["points"]] == [8, 40]
    assert all(p["documents_per_second"] > 0 and p["peak_memory"] > 0 for p in found["points"])


def test_a_grid_has_a_record_for_each_workload(tiny_gguf: Path) -> None:
    found = measure_speed(
        tiny_gguf,
        replace(WORK, tokens=2).vary("sequences", [1, 2]),
        systems=["erank-lite"],
        ceilings=False,
        options=ONCE,
    )
    assert [(r["work"]["sequences"], r["work"]["tokens"]) for r in found] == [(1, 2), (2, 2)]
    assert all(r["ceiling"] is None and r["machine_rates"] is None for r in found)


# The ceiling's arithmetic


def test_costs_of_a_file(tiny_gguf: Path) -> None:
    """Two layers, width 64, inner width 128, 4 heads and 2 for keys and values, of 32; F32."""
    costs = Costs.from_gguf(GGUFFile.read(tiny_gguf))
    layer = 64 * 128 + 2 * 64 * 64 + 128 * 64 + 3 * 64 * 128
    norms = 2 * 64 + 2 * 32
    assert costs.token == 2 * 2 * layer
    assert costs.output == 2 * 262 * 64
    assert costs.pair == 2 * 2 * 2 * 4 * 32  # layers × (keys, values) × (times, plus) × numbers
    assert costs.weights == 4 * (2 * (layer + norms) + 262 * 64)
    assert costs.cell == 2 * 2 * 2 * 64  # layers × (keys, values) × bytes × numbers


def test_a_roofline_worked_by_hand() -> None:
    costs = Costs(token=1_000, output=100, pair=10, weights=5_000, cell=20)
    work = Workload(documents=4, shared=2, own=3, tokens=5, sequences=2)
    # 2 + 4·3 tokens; pairs: 1 + 2 of the shared part, 3 + 4 + 5 of each document; 4 outputs.
    assert costs.reading(work) == 14 * 1_000 + (3 + 4 * 12) * 10 + 4 * 100 == 14_910
    # Decoded tokens have 5, 6, 7 and 8 before them, 7 with the first and last halved: 5 + 4 / 2.
    assert costs.row(7) == 1_000 + 100 + 80
    # 8 steps of two rows. Memory: 5,000 + 2 · 7 · 20 bytes; compute: 2 · 1,180.
    slow_memory = roofline(costs, work, gflops=1e-6, gigabytes_per_second=1e-6)
    assert slow_memory.reading == pytest.approx(14.91)
    assert slow_memory.decoding == pytest.approx(8 * 5.28)
    assert slow_memory.rate(work) == pytest.approx(4 / (14.91 + 8 * 5.28))
    slow_compute = roofline(costs, work, gflops=1e-6, gigabytes_per_second=1)
    assert slow_compute.decoding == pytest.approx(8 * 2.36)


def test_one_token_takes_no_step() -> None:
    costs = Costs(1_000, 100, 10, 5_000, 20)
    assert roofline(costs, Workload(tokens=1), 1, 1).decoding == 0


def test_the_table_of_batched_bench_is_read() -> None:
    table = (
        "main: n_kv_max = 4096\n\n"
        "|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |\n"
        "|-------|--------|------|--------|----------|----------|----------|----------|\n"
        "|   161 |     16 |   16 |   2832 |   12.888 |   200.00 |   13.744 |    50.00 |\n"
    )
    found = bench.parse(table)
    assert found == bench.Bench(200, 50)
    # 100 + 50 / 2 tokens read at 200 a second, 25 written at 50.
    assert found.rate(Workload(documents=2, shared=50, own=100, tokens=25)) == pytest.approx(
        1 / (0.625 + 0.5)
    )
    with pytest.raises(ModelError, match="no table"):
        bench.parse("error: failed")


def test_rates_are_positive() -> None:
    assert matmul(64) > 0
    assert bandwidth(2, 1 << 20) > 0


# Systems


def test_prompts_share_their_beginning_and_no_other() -> None:
    prompts = WORK.prompts((10, 500))
    assert len({ids[:20] for ids in prompts}) == 1 and len(set(prompts)) == 5
    assert all(len(ids) == 32 and min(ids) >= 10 and max(ids) < 500 for ids in prompts)
    assert WORK.prompts((10, 500)) == prompts
    warm = Trial("", WORK, (10, 500), 1, "").warm_up(2)
    assert len(warm) == 2 and warm[0][:4] != prompts[0][:4]


def test_ordinary_ids_leave_special_tokens_out(tmp_path: Path, tiny_gguf: Path) -> None:
    texts = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"w{i}" for i in range(2000)), *ADDED]
    file = write_gguf(tmp_path / "m.gguf", texts, [1] * 2256 + [3] * len(ADDED), width=32)
    assert ordinary_ids(GGUFFile.read(file)) == (1000, 2256)
    assert ordinary_ids(GGUFFile.read(tiny_gguf)) == (0, 257)


class _EndsEarly:
    """A `Llama` whose every text ends after three tokens."""

    def __init__(self) -> None:
        self.input_ids = np.zeros(100, np.int32)
        self.n_tokens = self.tokens_generated = 0

    def create_completion(self, prompt: list[int], max_tokens: int, **_: object) -> Any:
        count = min(3, max_tokens)
        self.n_tokens = len(prompt) + count
        self.input_ids[: self.n_tokens] = [*prompt, *[9] * count]
        self.tokens_generated += count
        return {"usage": {"completion_tokens": count}}


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 8, 11])
def test_a_text_that_ends_early_goes_on(tokens: int) -> None:
    llama = _EndsEarly()
    assert _complete(llama, (1, 2), tokens, Trial("loop", WORK, (5, 9), 1, "")) == tokens
    # Every fourth token is an ordinary one in the place of an end.
    assert llama.tokens_generated == tokens - tokens // 4
    kept = llama.input_ids[: llama.n_tokens].tolist()
    assert kept[2:] == [5 if i % 4 == 3 else 9 for i in range(tokens - (tokens % 4 == 0))]


def test_where_it_is_not_first_it_says_so_and_why() -> None:
    rates = {
        OURS: 10.0, "erank-lite, flash attention": 13.0, "loop": 2.0, "llama-server": 12.0,
        "bi-encoder": 50.0,
    }  # fmt: skip
    ways = [{"name": name, "documents_per_second": rate} for name, rate in rates.items()]
    flash, loop, server, scale, roof = summarize(ways, {"reached": 0.5}, None)
    assert flash == "with flash attention, erank-lite is 1.30 times as fast"
    assert loop == "erank-lite is 5.00 times as fast as loop"
    assert server.startswith("erank-lite is not first: llama-server is 1.20 times as fast")
    assert "flash attention" in server and server.endswith("1.08 times as fast")
    assert scale.startswith("for scale: bi-encoder ranks 5.0 times as many documents")
    assert roof == "erank-lite reaches 50% of the roofline"


def test_the_peak_of_memory_is_this_process_s_own() -> None:
    code = (
        "from erank_lite.benchmarks.speed.memory import peak_memory\n"
        "a = peak_memory(); b = bytearray(64 << 20); print(peak_memory() - a)"
    )
    large = bytearray(os.urandom(1) * (300 << 20))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 60 << 20 < int(done.stdout) < 80 << 20
    mine = peak_memory()
    assert mine is not None and mine > len(large)


# Mistakes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"systems": ["loops"]}, "there is no system `loops`\nhint: did you mean `loop`?"),
        (
            {"workloads": [Workload(own=5000)]},
            "has a context of 2048 tokens, and a document would need 5122",
        ),
        (
            {"options": replace(ONCE, peers=Peers(server="no-such-server"))},
            "`no-such-server`: there is no such program",
        ),
        ({"options": replace(ONCE, peers=Peers(checkpoint="no-such-folder"))}, "no-such-folder"),
        ({"model": "no-such-file.gguf"}, "there is no file or folder `no-such-file.gguf`"),
        ({"model": "http://127.0.0.1:1"}, "measured on files here"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    tiny_gguf: Path, change: dict[str, Any], said: str, no_programs: None
) -> None:
    options = {"model": tiny_gguf, "workloads": [WORK], "options": ONCE} | change
    with pytest.raises((InputError, ModelError)) as error:
        measure_speed(**options)
    assert said in str(error.value) and "\n" not in error.value.message


def test_more_mistakes(tiny_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="documents must lie between 1"):
        Workload(documents=0)
    with pytest.raises(InputError, match="repeat must be"):
        SpeedOptions(repeat=0)
    with pytest.raises(InputError, match="no axis `length`"):
        measure_scaling(tiny_gguf, "length", [1])
    with pytest.raises(InputError, match="no system `vllm`"):
        measure_scaling(tiny_gguf, "documents", [1], systems=["vllm"])
    with pytest.raises(ModelError, match=r"no config\.json"):
        find_subject(tiny_gguf, tmp_path)
    assert select_systems(["loop"]) == [OURS, "loop"]


def test_a_failure_in_the_other_process_is_told(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        run_alone(Trial(OURS, WORK, (0, 100), 1, str(file)))
    with pytest.raises(ModelError, match=r"nothing ended .*: KeyError"):
        run_alone(Trial("nothing", WORK, (0, 100), 1, str(file)))
    with pytest.raises(ModelError, match="did not finish within 0 seconds"):
        run_alone(Trial(OURS, WORK, (0, 100), 1, str(file)), timeout=0.01)


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    module = [sys.executable, "-m", "erank_lite.benchmarks.speed"]
    return subprocess.run([*module, *words], capture_output=True, text=True)


def test_the_command_tells_a_mistake_and_its_code(tiny_gguf: Path) -> None:
    done = command(tiny_gguf, "--small")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: --small writes several files\nhint: name a folder with --json\n"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (
            ["--sequences", "1", "2", "--tokens", "2", "3", "--no-ceiling", "--ways", "erank-lite"],
            {f"speed-tiny.gguf-{s}-sequences-{t}-tokens.json" for s in (1, 2) for t in (2, 3)},
        ),
        (
            ["--document-tokens", "8", "40", "--tokens", "2", "--systems", "erank-lite", "loop"],
            {f"growth-document-tokens-tiny.gguf-{s}.json" for s in ("erank-lite", "loop")},
        ),
        (
            ["--sweep", "--engines", "llama.cpp", "--sequences", "2", "--tokens", "3"],
            {"speed-tiny.gguf-2-sequences-3-tokens.json"},
        ),
    ],
    ids=["two axes", "one axis", "as it was called before"],
)
def test_the_command_measures_a_grid(
    tiny_gguf: Path, tmp_path: Path, options: list[str], names: set[str]
) -> None:
    common = ["--documents", "3", "--repeat", "1", "--threads", "1", "--json", tmp_path / "out"]
    done = command(tiny_gguf, *options, *common)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == names
    assert done.stdout.count("tiny.gguf") == len(names) and "documents/s" in done.stdout


# The tools


def test_batch_invariance_of_a_model(tiny_gguf: Path) -> None:
    found = measure_batch_invariance(tiny_gguf, tokens=3, sequences=4)
    assert found["kind"] == "noise" and found["documents"] == 32
    assert 0 <= found["mean_difference_of_log_probability"] < 0.1


def test_a_random_model_of_a_shape_runs(tmp_path: Path) -> None:
    shape = Shape(8, 256, 256, 2, 1, 128, 2048)
    file = write_random(tmp_path / "random.gguf", 600, shape, "Q4_K_M")
    found = run_alone(Trial(OURS, WORK, (0, 200), 1, str(file)))
    assert found.tokens == WORK.total_tokens
    types = {t.name: t.type for t in GGUFFile.read(file).tensors}
    assert types["blk.0.ffn_down.weight"] == types["token_embd.weight"] == "Q6_K"
    assert types["blk.1.ffn_down.weight"] == types["blk.0.ffn_up.weight"] == "Q4_K"
    for mistake in ({"shape": "5B"}, {"quant_type": "Q3_K"}, {"vocabulary": 3}):
        with pytest.raises(InputError):
            write_random(tmp_path / "other.gguf", **mistake)


@pytest.mark.reference
def test_the_systems_of_a_checkpoint(tmp_path: Path, no_programs: None) -> None:
    """The published method and our own engine write the same number of tokens as the others."""
    folder = write_checkpoint(tmp_path / "checkpoint")
    systems = ["erank-lite", "erank-lite, transformers", "published method"]
    (found,) = measure_speed(
        f"{folder}:BF16", [WORK], systems=systems, options=ONCE, ceilings=False
    )
    assert found["model"] == "checkpoint:BF16" and not found["skipped"]
    assert [way["name"] for way in found["ways"]] == systems
    assert "reimplementation" in found["ways"][2]["what"]
    for way in found["ways"]:
        assert way["tokens_per_second"] * way["last_result"] == pytest.approx(20)


@pytest.mark.reference
def test_llama_server_writes_as_many(tiny_gguf: Path) -> None:
    if not os.environ.get("LLAMA_SERVER"):
        pytest.skip("LLAMA_SERVER names no llama-server")
    (found,) = measure_speed(
        tiny_gguf, [WORK], systems=["erank-lite", "llama-server"], options=ONCE, ceilings=False
    )
    assert [way["name"] for way in found["ways"]] == ["erank-lite", "llama-server"]
    assert not found["skipped"]


@pytest.mark.parametrize("text", ["", "8", "8x", "x8", "0x8", "8x8:", "8x8:a b"])
def test_jobs_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no job"):
        Job.parse(text)


def test_forecasts_stand_beside_what_jobs_took() -> None:
    jobs = [Job.parse("2x20:none"), Job.parse("3x30:none")]
    found = measure_forecasts("erank-tiny", jobs)
    assert [row["documents"] for row in found["jobs"]] == [2, 3]
    assert all(row["forecast"] > 0 and row["took"] > 0 for row in found["jobs"])
