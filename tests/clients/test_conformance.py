"""The frameworks' own tests of what plugs into them. Each is skipped where it is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.answering import answering

from erank_lite import Reranker

pytestmark = pytest.mark.clients

try:
    from langchain_tests.integration_tests import RetrieversIntegrationTests

    class TestLangChainRetriever(RetrieversIntegrationTests):
        """LangChain's suite for retrievers."""

        @pytest.fixture(autouse=True)
        def _folder(self, tmp_path: Path) -> None:
            for number in range(5):
                (tmp_path / f"{number}.txt").write_text(f"Note {number}: bread keeps in a box.")
            self.folder = tmp_path

        @property
        def retriever_constructor(self) -> Any:
            from erank_lite.integrations.langchain import ERankRetriever

            return ERankRetriever

        @property
        def retriever_constructor_params(self) -> dict[str, Any]:
            return {
                "folders": [str(self.folder)],
                "model": Reranker(answering({})),
                "index": str(self.folder.parent / "index.sqlite"),
            }

        @property
        def retriever_query_example(self) -> str:
            return "how does bread keep"

except ImportError:
    pass


def test_pyterriers_own_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    pt: Any = pytest.importorskip("pyterrier")
    import unittest

    from pyterrier import documentation

    from erank_lite.integrations.pyterrier import ERankReranker

    # The drawing links to documentation, which it looks up in the network.
    monkeypatch.setattr(documentation, "objects_inv", lambda *_, **__: {})
    with Reranker(answering({})) as reranker:
        case = pt.testing.transformer_test_class(lambda: ERankReranker(reranker))
        found = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(found)
    assert found.testsRun == 2 and found.wasSuccessful(), found.failures + found.errors


def test_mtebs_mock_run() -> None:
    mteb = pytest.importorskip("mteb")
    from erank_lite.integrations.mteb import ERankCrossEncoder

    tasks = mteb.mock_run(ERankCrossEncoder("erank-tiny", thinking="none")).task_results
    ran = {name: found for name, found in tasks.items() if found is not None}
    reranked = {name for name, found in ran.items() if hasattr(found, "scores")}
    assert reranked == {name for name in ran if "Reranking" in name} and len(reranked) >= 4
    # What is left are retrieval tasks, which want a first stage of every cross-encoder.
    assert all("top_ranked" in ran[name].exception for name in ran.keys() - reranked)
