"""What the ERank paper reports, to be shown next to a run made in the same way.

arXiv 2509.00520, Table 3 and Tables 10 to 12: BF16, BM25's first 100 by Pyserini (FollowIR's own
candidates), the original queries, no hybrid; nDCG@10, and p-MRR for FollowIR, both of 100. Of the
systems that ERank is compared with it gives BRIGHT's mean under these conditions, and of the other
collections only means that no single run can be held against.
"""

from __future__ import annotations

import re

_DL19, _DL20 = "msmarco-passage/trec-dl-2019", "msmarco-passage/trec-dl-2020"
_MODELS = {
    "ERank-4B": {
        _DL19: 71.1, _DL20: 66.7, "bright": 22.7,
        "followir/core17": 17.5, "followir/news21": 1.3, "followir/robust04": 14.2,
    },
    "ERank-14B": {
        _DL19: 68.9, _DL20: 65.4, "bright": 23.1,
        "followir/core17": 13.6, "followir/news21": 2.0, "followir/robust04": 15.4,
    },
    "ERank-32B": {
        _DL19: 70.8, _DL20: 65.5, "bright": 24.4,
        "followir/core17": 19.0, "followir/news21": 1.7, "followir/robust04": 15.5,
    },
}  # fmt: skip
_COMPARED = {
    "rank1": ("rank1-7b", {"bright": 18.2}),
    "rank-r1-v0.1": ("rank-r1-7b(?!-v0.2)", {"bright": 15.7}),
    "rearank": ("rearank-7b", {"bright": 17.4}),
}
_FIRST_STAGE = {_DL19: 50.6, _DL20: 48.0, "bright": 13.7}


def paper_figures(model: str, collection: str, family: str = "erank") -> dict[str, float] | None:
    """Return the paper's figures for a model and a collection, as fractions of 1, or None.

    Args:
        model: a name that holds that of a published model, such as "ERank-4B".
        collection: a collection's name, or "bright" for the mean over its 12 subsets.
        family: the family whose prompt the model was asked with.

    Example:
        >>> paper_figures("ERank-4B:Q4_K_M", "followir/core17")
        {'p-MRR': 0.175}
    """
    name = collection.removesuffix("/judged")
    found = _of_model(model, family).get(name)
    if found is None:
        return None
    measure = "p-MRR" if name.startswith("followir/") else "nDCG@10"
    figures = {measure: found / 100}
    if name in _FIRST_STAGE:
        figures[f"first stage {measure}"] = _FIRST_STAGE[name] / 100
    return figures


def _of_model(model: str, family: str) -> dict[str, float]:
    if family in _COMPARED:
        pattern, figures = _COMPARED[family]
        return figures if re.search(pattern, model, re.IGNORECASE) else {}
    found = re.search(r"ERank-(4|14|32)B", model, re.IGNORECASE)
    return _MODELS[f"ERank-{found[1]}B"] if found and family == "erank" else {}
