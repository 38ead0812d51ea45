"""A Reranker where Python puts it: dropped, pickled, forked, spawned, and at the program's end."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap

import pytest

from erank_lite import Reranker

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

DOCS = ["Bread keeps in a box.", "The bakery opens at six.", "Freeze sliced bread."]
BEGIN = f"""
import multiprocessing, os, sys, threading, time
from erank_lite import ErankLiteError, Reranker
DOCS = {DOCS!r}

def scores(reranker):
    return [(r["index"], r["score"]) for r in reranker.rerank("bread", DOCS)]

def own():
    with Reranker("erank-tiny", thinking="none", strict=True) as reranker:
        return scores(reranker)

if __name__ == "__main__":
    reranker = Reranker("erank-tiny", thinking="none", strict=True)
"""


def run_script(code: str, seconds: float = 60) -> str:
    """Run a program and return what it printed; it must end well, and say nothing else."""
    # From 3.12 on, Python itself warns of a fork below threads.
    quiet = "ignore:This process:DeprecationWarning"
    done = subprocess.run(
        [sys.executable, "-W", quiet, "-c",
         BEGIN + textwrap.indent(textwrap.dedent(code), "    ")],
        capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_it_is_neither_pickled_nor_copied() -> None:
    with Reranker("erank-tiny", thinking="none") as reranker:
        for used in (False, True):
            for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError, match="make one in each process"):
                    attempt(reranker)
            if not used:
                assert len(reranker.rerank("bread", DOCS)) == 3


@pytest.mark.parametrize("used", [False, True])
def test_a_fork_of_it_is_refused_and_one_of_its_own_works(used: bool) -> None:
    out = run_script(f"""
        if {used}:
            scores(reranker)
        here = own()
        child = os.fork()
        if not child:
            try:
                scores(reranker)
            except ErankLiteError as error:
                print("refused:", error.message, error.hint, flush=True)
            reranker.close()
            print(own() == here, flush=True)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(scores(reranker) == here)
    """)
    refused, *rest = out.splitlines()
    assert refused.startswith("refused: the model was loaded in another process")
    assert "load it in the process that uses it" in refused
    assert rest == ["True", "True"]


def test_a_fork_while_it_computes_is_refused_too() -> None:
    out = run_script("""
        computing = threading.Thread(target=lambda: list(reranker.iter_rerank("bread", DOCS * 40)))
        computing.start()
        results = reranker.iter_rerank("bread", DOCS * 9)
        next(results)
        child = os.fork()
        if not child:
            try:
                list(results)
            except ErankLiteError:
                print("refused", flush=True)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(len(list(results)))
        computing.join()
    """)
    assert out.splitlines() == ["refused", "26"]


def test_pools_of_fresh_processes_work(tmp_path: object) -> None:
    """What a pool is given must be importable: so the script is a file."""
    script = os.path.join(str(tmp_path), "script.py")
    with open(script, "w") as file:
        file.write(BEGIN + textwrap.indent(textwrap.dedent("""
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.apply(own) == scores(reranker))
                try:
                    pool.apply(scores, (reranker,))
                except TypeError as error:
                    print("refused")
        """), "    "))  # fmt: skip
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\nrefused\n", "")


@pytest.mark.parametrize(
    "work",
    [
        "results = reranker.iter_rerank('bread', DOCS * 99); next(results)",
        "threading.Thread(target=lambda: scores(reranker), daemon=True).start(); time.sleep(0.3)",
        "threading.Thread(target=lambda: scores(reranker)).start()",
        "del reranker",
        "next(iter(reranker.iter_rerank('bread', DOCS * 99))); reranker.close()",
        "scores(reranker); reranker.close(); sys.kept = reranker",
        "scores(reranker); sys.kept = reranker",
    ],
)
def test_a_program_that_ends_without_closing_ends(work: str) -> None:
    assert run_script(f"{work}\nprint('the end')") == "the end\n"


def test_dropped_it_is_freed() -> None:
    """Its memory is given back: the model's, the context's and the thread."""
    out = run_script("""
        import gc
        import psutil
        me, sizes = psutil.Process(), []
        for _ in range(5):
            reranker = Reranker("erank-tiny:F32", thinking="none", sequences=8)
            scores(reranker)
            del reranker
            for _ in range(100):
                if threading.active_count() == 1:
                    break
                time.sleep(0.05)
            sizes.append(me.memory_info().rss)
        print(threading.active_count(), (sizes[-1] - sizes[1]) >> 20)
    """)
    threads, grown = map(int, out.split())
    assert threads == 1 and grown < 40  # MB; the weights alone are more
