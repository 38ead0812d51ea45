"""Jobs on a Ray cluster: a model in each of several workers, which are given queries to rank.

`run_on_ray` does what `erank_lite.jobs.run.run` does; what is finished is written by the caller
alone. For pipelines of one's own there is `RerankBatch`, for `ray.data.Dataset.map_batches`:

    documents.map_batches(
        RerankBatch, fn_constructor_kwargs={"model": "erank-tiny"}, batch_size=256,
        compute=ray.data.ActorPoolStrategy(size=2), num_cpus=1,
    )
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from erank_lite.effort import Effort
from erank_lite.errors import ErankLiteError, InputError, ModelError, missing_extra
from erank_lite.jobs.inputs import Entry, Queries
from erank_lite.jobs.outputs import Journal
from erank_lite.jobs.run import Settings, Summary, finished, in_order, skip, to_read, without_texts
from erank_lite.reranker import Reranker
from erank_lite.util.reporter import SILENT, Reporter

_DOCUMENTS = 128  # that a worker is given at once: enough to keep its batch full
_AHEAD = 2  # such parts for each worker, so that it never waits
_RETRIES = 3  # of a part whose worker dies
_Row = Mapping[str, Any]


class RerankBatch:
    """Scores pairs of query and document, a batch of rows at a time.

    Rows have the columns `query` and `text`, and perhaps `instruction`; `score`, `probability`,
    `rank_score` and `failure` are added. Rows of one query that follow each other share what their
    prompts have in common.

    Example:
        >>> import numpy as np
        >>> rerank = RerankBatch(model="erank-tiny", thinking="none")
        >>> rows = {"query": np.array(["sky", "sky"]), "text": np.array(["blue light", "dogs"])}
        >>> sorted(rerank(rows))
        ['failure', 'probability', 'query', 'rank_score', 'score', 'text']
    """

    def __init__(self, model: str = "erank-tiny", **options: Any) -> None:
        """Load the model.

        Args:
            model: as `Reranker` takes it.
            options: of `Reranker`.

        Raises:
            ErankLiteError: the model or an option cannot be used.
        """
        self._reranker = Reranker(model, **options)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with the columns that are added.

        Raises:
            InputError: a column is missing, or a query cannot be used.
        """
        import numpy as np

        for name in ("query", "text"):
            if name not in batch:
                raise InputError(f"the rows have no column {name!r}", "rename one")
        instructions = batch.get("instruction", [None] * len(batch["query"]))
        groups: dict[tuple[str, str | None], list[int]] = {}
        for row, (query, own) in enumerate(zip(batch["query"], instructions, strict=True)):
            groups.setdefault((str(query), None if own is None else str(own)), []).append(row)
        asked = [(query, [str(batch["text"][row]) for row in rows], own)
                 for (query, own), rows in groups.items()]  # fmt: skip
        found: list[Any] = [None] * len(batch["query"])
        rows_of = list(groups.values())
        for place, result in self._reranker.iter_rerank_many(asked):
            found[rows_of[place][result["index"]]] = result
        added = {
            name: np.array([result[name] for result in found], dtype=object)
            for name in ("score", "probability", "rank_score", "failure")
        }
        return {**batch, **added}


class _Worker:
    """Ranks whole queries, in a process of the cluster."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._reranker = Reranker(**options)

    def rank(
        self, part: list[tuple[str, list[dict[str, Any]], str | None]], settings: Settings
    ) -> list[list[dict[str, Any]] | str]:
        """Return each query's results, or what is wrong with it."""
        found: list[list[dict[str, Any]] | str] = []
        while len(found) < len(part):
            effort = Effort(settings.depth)
            ranked = self._reranker.rerank_many(
                part[len(found) :], settings.instruction, settings.truncate_length, effort=effort
            )
            try:
                for results in ranked:
                    found.append([without_texts(result) for result in results])
            except InputError as error:
                found.append(error.message)
        return found


def run_on_ray(
    options: dict[str, Any],
    queries: Queries,
    entries: Sequence[Entry],
    journal: Journal,
    settings: Settings,
    skip_mistakes: bool = False,
    reporter: Reporter = SILENT,
    *,
    address: str | None = None,
    workers: int | None = None,
) -> Summary:
    """Finish what a journal lacks, by the workers of a cluster.

    A worker that dies is started anew, and its queries are ranked again.

    Args:
        options: of `Reranker`, the model too: each worker makes one.
        queries: of the input.
        entries: those that are asked for.
        journal: where what is finished is kept; it is written here alone.
        settings: how documents are read.
        skip_mistakes: go on after a query that cannot be used; it is in the summary.
        reporter: shows how many documents are done.
        address: of the cluster; None means the one that is running here, or a new one.
        workers: how many load the model; None means one for each GPU, or one.

    Raises:
        InputError: a query cannot be used, or the journal cannot be written.
        ModelError: Ray is not installed, the cluster cannot be reached, or the model cannot be
            used there.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise missing_extra("a Ray cluster", "ray", "ray") from None
    began = time.monotonic()
    summary = Summary()
    left = [entry for entry in in_order(entries) if entry.number not in journal]
    summary.before = finished(journal, entries)
    total = sum(to_read(entry, settings) for entry in entries)
    done = total - sum(to_read(entry, settings) for entry in left)
    try:
        if not ray.is_initialized():
            ray.init(address, include_dashboard=False, log_to_driver=False)
    except Exception as error:  # of several classes, by version
        raise ModelError(
            f"the Ray cluster cannot be used: {error}", "check --ray-address"
        ) from None
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count = workers or max(1, gpus)
    kind = ray.remote(num_cpus=0 if gpus else 1, num_gpus=min(1.0, gpus / count),
                      max_restarts=-1, max_task_retries=_RETRIES)(_Worker)  # fmt: skip
    actors = [kind.remote(options) for _ in range(count)]
    parts = _parts(left)
    running: dict[Any, tuple[Any, list[Entry]]] = {}

    def send(actor: Any) -> None:
        part = next(parts, None)
        if part is not None:
            asked = [queries.read(entry) for entry in part]
            pairs = [(q.text, q.documents, q.instruction) for q in asked]
            running[actor.rank.remote(pairs, settings)] = (actor, part)

    try:
        for _ in range(_AHEAD):
            for actor in actors:
                send(actor)
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            actor, part = running.pop(ready)
            found = _got(ray, ready)
            send(actor)
            for entry, results in zip(part, found, strict=True):
                if isinstance(results, str):
                    if not skip_mistakes:
                        raise InputError(f"query {entry.id}: {results}")
                    skip(journal, entry, results)
                    continue
                summary.keep(journal, entry, results, settings)
                done += to_read(entry, settings)
            reporter.progress("documents", done, total, "documents")
    finally:
        for actor in actors:
            ray.kill(actor)
    summary.end(journal, entries, began)
    return summary


def _parts(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Yield queries in parts of some hundred documents."""
    left = iter(entries)
    while part := list(islice(left, 1)):
        while sum(entry.documents for entry in part) < _DOCUMENTS and (more := next(left, None)):
            part.append(more)
        yield part


def _got(ray: Any, ready: Any) -> list[list[dict[str, Any]] | str]:
    """Return what a worker made of a part.

    Raises:
        ModelError: it cannot load the model, or dies each time.
    """
    try:
        return list(ray.get(ready))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, ErankLiteError):
            raise ModelError(f"a worker says: {cause.message}", cause.hint) from None
        raise ModelError(f"a worker failed: {cause!r}") from None
    except ray.exceptions.RayActorError as error:
        text = " ".join(str(error).split())
        raise ModelError(
            f"a worker died, {_RETRIES} times in a row: {text[:300]}",
            "it may lack memory: give fewer --workers",
        ) from None
