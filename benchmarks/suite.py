"""Everything at once: fidelity, quality and speed of a model's types, and the report of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from erank_lite.benchmarks.fidelity.compare import compare
from erank_lite.benchmarks.quality.collection import Collection
from erank_lite.benchmarks.quality.evaluate import FirstStage, evaluate
from erank_lite.benchmarks.record import RECORDS, Record
from erank_lite.benchmarks.report import read_records, write_report
from erank_lite.benchmarks.runner import Job, Settings
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.errors import InputError, ModelError
from erank_lite.models.prepare import BUNDLED_MODEL, checkpoint_folder
from erank_lite.types import Progress

MATRIX = "+imatrix"
"""Behind a type: quantized with an importance matrix, over the model's own calibration text."""

_ALPHA = 0.2


@dataclass(frozen=True)
class Suite:
    """What is measured.

    Attributes:
        model: a checkpoint: a folder, a name on the hub, or erank-tiny.
        types: GGUF types, each alone or with `MATRIX`.
        others: further models that are compared, such as a GPTQ checkpoint.
        first_stage: where the candidates come from.
        settings: how documents are read.
        speed: measure speed too.
    """

    model: str
    types: Sequence[str]
    others: Sequence[ModelSpec]
    first_stage: FirstStage
    settings: Settings
    speed: bool = True

    def run(
        self,
        collections: Sequence[Collection],
        out: Path,
        *,
        command: str,
        whole: bool,
        say: Callable[[str], None],
        progress: Callable[[str], Progress],
    ) -> Path:
        """Measure, and return the page of the report.

        Args:
            collections: what quality and fidelity are measured on.
            out: gets the records as JSON, the runs, the files made, and `report/`; what is finished
                there is not done again.
            command: what was typed.
            whole: the collections have all their queries.
            say: told what is worth a line.
            progress: from the name of a job to what is told how far it is.

        Raises:
            InputError: something that was given cannot be used.
            ModelError: a model cannot, or an extra is missing.
        """
        before, colon, _ = self.model.rpartition(":")
        if colon or "," in self.model:
            raise InputError(
                f"{self.model!r} names more than a checkpoint: give {before or 'its name'} alone; "
                "types go to --types"
            )
        if not self.types and not self.others:
            raise InputError("there is nothing to compare: name types, or another model")
        reference = self.reference()
        say(f"the reference is {reference.label}")
        reference.bring(progress(reference.label))
        specs = [self._spec(kind, out, progress) for kind in self.types] + list(self.others)
        for spec in specs:
            spec.bring(progress(spec.label))  # a name that is wrong is told before hours of work
        for collection in collections:
            candidates, found_by = self.first_stage.of(collection, out, say)
            job = Job.of(collection, candidates, self.settings)
            compare(
                reference,
                specs,
                job,
                out,
                command=command,
                floor=True,
                say=say,
                progress=progress,
            )
            for spec in (reference, *specs):
                evaluate(
                    spec,
                    job,
                    found_by,
                    self.first_stage.depth,
                    out,
                    command=command,
                    alpha=_ALPHA,
                    whole=whole,
                    say=say,
                    progress=progress(spec.label),
                )
        if self.speed:
            self._speed(out / RECORDS, command, say)
        return write_report(read_records([out / RECORDS]), out / "report")

    def reference(self) -> ModelSpec:
        """Return the checkpoint in BF16: by Transformers, as published, where that is installed."""
        if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
            spec = ModelSpec.parse(f"{self.model},engine=transformers")
        else:
            spec = ModelSpec.parse(f"{self.model}:BF16,engine=llama.cpp")
        return replace(spec, label=f"{self.model}, BF16 as published")

    def _spec(self, kind: str, out: Path, progress: Callable[[str], Progress]) -> ModelSpec:
        plain, plus, rest = kind.partition("+")
        if plus and plus + rest != MATRIX:
            raise InputError(f"{kind!r} is no type: TYPE or TYPE{MATRIX} is what is taken")
        if not plus:
            spec = ModelSpec.parse(f"{self.model}:{plain},engine=llama.cpp")
            return replace(spec, label=f"{self.model}:{plain}")
        file = out / "files" / f"{Path(self.model).name}-{plain}{MATRIX}.gguf"
        if not file.is_file():
            from erank_lite.convert.gguf.convert import convert_gguf

            file.parent.mkdir(parents=True, exist_ok=True)
            convert_gguf(
                checkpoint_folder(self.model),
                file,
                plain,
                imatrix="auto",
                check_perplexity=self.model != BUNDLED_MODEL,
                progress=progress(f"{plain} with an importance matrix"),
            )
        return replace(ModelSpec.parse(str(file)), label=f"{self.model}:{kind}")

    def _speed(self, records: Path, command: str, say: Callable[[str], None]) -> None:
        from erank_lite.benchmarks.speed import Settings as SpeedSettings
        from erank_lite.benchmarks.speed import small

        plain = next((kind for kind in self.types if "+" not in kind), "Q8_0")
        file = records / "speed.json"
        if file.is_file():
            say(f"speed was measured before: remove {file} to measure it anew")
            return
        say(f"speed of {self.model}:{plain}, and of its peers that are here")
        try:
            found: list[Record] = small(
                f"{self.model}:{plain}",
                records,
                settings=SpeedSettings(repeat=1, say=say, command=command),
            )
        except ModelError as error:
            say(f"speed was not measured: {error}")
            return
        for missing, why in found[0].get("skipped", {}).items():
            say(f"{missing} was not measured: {why}")
