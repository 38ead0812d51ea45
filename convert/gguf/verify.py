"""The check of a GGUF file before it gets its name: it opens, reads text as the checkpoint does,
and computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from erank_lite.convert.verify import warn_of_chance
from erank_lite.errors import ModelError
from erank_lite.families.erank.prompt import PromptBuilder
from erank_lite.models.gguf import GGUFFile
from erank_lite.text.tokenizer import Tokenizer
from erank_lite.util import worker

# What tokenizers differ about: case, digits, contractions, white space, composed and decomposed
# letters, scripts, emoji, code, and markers.
_TEXTS = (
    "The capital of France is Paris; it's home to 2,102,650 people (2023), isn't it?",
    "I've been THERE, you'RE sure? 'Twas we'll, she'd 'em 3 33 333 3333 33333.3..3...",
    "  two spaces, a\ttab,\r\na line\n\n\n and \u00a0 a trailing   ",
    "caf\u00e9 cafe\u0301 \u1e69 s\u0323\u0307 \uac00 \u1100\u1161 \ufb01 \u212b \u00c5 A\u030a",
    "我想在apple工作1314151天 日本語のテキスト 한국어 텍스트 ไทย हिन्दी کتاب العربية עברית",
    "Привет, мир! Ελληνικά, Türkçe ığüşöç, Việt Nam, ½ ² ٣ Ⅳ",
    "🚀 👩\u200d👩\u200d👧 🏳️\u200d🌈 \U0001f468\U0001f3fd e\u0301\u0302 \u200b\ufeff\x00\x07",
    "def f(x: int) -> str:\n    return f'{x!r:>10}'  # a comment\n\n\nclass A: pass\n",
    'SELECT * FROM t WHERE a<>"b" AND c>=1e-9; <html>&amp;</html> \\frac{a}{b} $$x^2$$',
    "<think>put your thinking here</think><answer>Only allows an integer here</answer>",
    "=====-----_____.....!!!!!?????  #@%^&*()[]{}|\\/~`",
)
_QUERY, _DOCUMENT = "What is the capital of France?", "Paris is the capital of France."
_READ = 64  # tokens of the prompt, the fixed words of its beginning


def check_tokenizer(path: Path, source: Tokenizer) -> None:
    """Check that a GGUF file, of which the header is enough, reads text as the checkpoint does.

    Args:
        path: of the file.
        source: the checkpoint's tokenizer.

    Raises:
        ModelError: it does not.
    """
    try:
        rebuilt = Tokenizer.from_gguf(GGUFFile.read(path).metadata, path)
    except ModelError as error:
        reason = " ".join(str(error.__context__ or error.message).split())
        raise ModelError(f"the checkpoint's tokenizer is damaged: {reason}") from None
    for text in (*_TEXTS, *(f"a {added} b" for added in source.added.values())):
        ours, theirs = rebuilt.encode_trusted(text), source.encode_trusted(text)
        if ours != theirs:
            raise ModelError(
                f"the tokenizer cannot be converted: {text!r} gives {list(theirs)[:20]} in the "
                f"checkpoint and {list(ours)[:20]} in the GGUF"
            )


def check_whole(path: Path, tensors: Sequence[str], check_perplexity: bool) -> None:
    """Check that the converted file `path` opens, has `tensors`, and computes.

    With `check_perplexity`, warn where it predicts ordinary text no better than chance.

    Raises:
        ModelError: it does not.
    """
    gguf = GGUFFile.read(path)
    gguf.check_generates_text()
    missing = set(tensors) - {t.name for t in gguf.tensors}
    if missing:
        raise ModelError(f"the converted file lacks {min(missing)}: nothing of it was kept")
    rebuilt = Tokenizer.from_gguf(gguf.metadata, path)
    prompt = PromptBuilder(rebuilt, gguf.chat_template).query(_QUERY).document(_DOCUMENT).ids
    arguments = {"path": str(path), "ids": prompt[:_READ]}
    mean_nll = worker.call(__name__, arguments)
    if check_perplexity:
        warn_of_chance(
            "the model predicts text",
            mean_nll,
            len(gguf.metadata["tokenizer.ggml.tokens"]),
            "it was never trained, or for answers alone, or the checkpoint is damaged",
        )


def _work(send: worker.Send, path: str, ids: list[int]) -> float:
    """Return the mean negative log-likelihood of `ids`, in nats a token."""
    import numpy as np

    from erank_lite.engines.llama_cpp.bindings import Batch, Context, Model
    from erank_lite.machine.hardware import usable_cores

    # Weights stay mapped from the file, so that a file larger than the memory is read once and no
    # more is needed.
    model = Model(Path(path), 0, None, None, repack=False)
    n = len(ids)
    context = Context(model, 1, n, n, n, usable_cores(), "f16", False, outputs=n)
    code = context.decode(Batch(ids, list(range(n)), [0] * n, [1] * n))
    if code:
        raise ModelError(f"llama.cpp cannot read a prompt with the converted file (code {code})")
    nll = 0.0
    for row, following in zip(context.logits(n), ids[1:], strict=False):
        top = row.max()
        nll += top + np.log(np.exp(row - top, dtype=np.float64).sum()) - row[following]
    if not np.isfinite(nll):
        raise ModelError(
            "the converted model computes infinite numbers, so the checkpoint or its config.json "
            "is damaged; nothing was kept"
        )
    return float(nll / (n - 1))


if __name__ == "__main__":
    worker.serve(_work)
