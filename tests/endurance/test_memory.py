"""What a process really takes: next to the plan's memory, and after many models were dropped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.gguf_files import write_gguf
from support.tokenizers import ADDED
from tokenizers import pre_tokenizers

pytestmark = pytest.mark.slow

_CHILD = """
import json, sys, threading, time
from pathlib import Path
from erank_lite.load import load
from erank_lite.models.gguf import GGUFFile
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.types import Prompt, Request, Step

path, sequences = Path(sys.argv[1]), int(sys.argv[2])

def anonymous():
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) * 1024

peak, stop = 0, False
def watch():
    global peak
    while not stop:
        peak = max(peak, anonymous())
        time.sleep(0.002)

class Guide:
    def __init__(self): self.count = 0
    def begin(self): return Step(logprobs_for=())
    def feed(self, token, logprobs):
        self.count += 1
        return Step(logprobs_for=(), done=self.count == 3)

gguf = GGUFFile.read(path)
text = Tokenizer.from_gguf(gguf.metadata, path)  # what is in memory whichever engine runs
before = anonymous()
thread = threading.Thread(target=watch, daemon=True)
thread.start()
engine = load(path, "llama.cpp", {"sequences": sequences, "threads": 2})
cells = min(1024 + 4096, engine.context_length)
length = 900
requests = [
    Request(i, Prompt((7,) * (length - 1) + (8 + i,), 0), Guide, cells - length)
    for i in range(2 * sequences)
]
assert not any(c.failure for c in engine.run(requests))
stop = True
thread.join()
weights = sum(t.size for t in gguf.tensors)
assert engine.plan.documents == sequences
print(json.dumps({"expected": engine.plan.memory - weights, "measured": peak - before}))
"""


_DROPPED = """
import ctypes, gc, json, psutil, threading, time
from erank_lite import Reranker
me, sizes, libc = psutil.Process(), [], ctypes.CDLL(None)
for _ in range(20):
    reranker = Reranker("erank-tiny", thinking="none")
    assert len(reranker.rerank("bread", [f"A loaf, number {i}." for i in range(12)])) == 12
    del reranker
    until = time.monotonic() + 10
    while threading.active_count() > 1 and time.monotonic() < until:
        time.sleep(0.05)
    gc.collect()
    libc.malloc_trim(0)  # what was freed, and the allocator keeps for the next
    sizes.append(me.memory_info().rss)
print(json.dumps(sizes))
"""


def test_a_reranker_that_is_dropped_leaves_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", _DROPPED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    sizes = json.loads(done.stdout)
    # One may still be on its way out when its memory is measured; what stays, stays in all.
    assert min(sizes[-5:]) <= 1.05 * sizes[2], [size >> 20 for size in sizes]


@pytest.mark.parametrize(
    ("layers", "words", "context", "width", "sequences"),
    [(8, 150_000, 8_192, 256, 16), (28, 48_000, 2_048, 512, 16), (48, 300, 16_384, 128, 12)],
    ids=["many words", "middling", "many layers"],
)
def test_the_estimate_is_near_the_peak(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layers: int,
    words: int,
    context: int,
    width: int,
    sequences: int,
) -> None:
    """Mapped pages of the file apart, which the estimate counts as weights."""
    monkeypatch.setenv("ERANK_LITE_CACHE", str(tmp_path))  # nothing is known of its answers
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    texts = [*alphabet, "ab", *(f"word{i}" for i in range(words)), *ADDED]
    token_types = [1] * (257 + words) + [3] * len(ADDED)
    file = write_gguf(
        tmp_path / "model.gguf", texts, token_types, layers=layers, context=context, width=width
    )
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(file), str(sequences)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["measured"] == pytest.approx(found["expected"], rel=0.10), found
