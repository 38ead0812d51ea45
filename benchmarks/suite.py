"""Everything at once: fidelity, quality and speed of a model's types, and the report of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from erank_lite.benchmarks.fidelity.compare import compare
from erank_lite.benchmarks.files import write_json
from erank_lite.benchmarks.quality.collection import Collection
from erank_lite.benchmarks.quality.evaluate import FirstStage, evaluate
from erank_lite.benchmarks.record import RECORDS
from erank_lite.benchmarks.report import read_records, write_report
from erank_lite.benchmarks.runner import Job, Settings
from erank_lite.benchmarks.spec import ModelSpec
from erank_lite.errors import InputError, ModelError, missing_extra
from erank_lite.load import engine_for_calibration
from erank_lite.models.prepare import checkpoint_folder
from erank_lite.models.ref import ModelRef
from erank_lite.util.reporter import SILENT, Reporter

MATRIX = "+imatrix"
"""Behind a type: quantized with an importance matrix, over the model's own calibration text."""

_ALPHA = 0.2


@dataclass(frozen=True)
class Suite:
    """What is measured.

    Attributes:
        model: a checkpoint: a folder, a name on the Hub, or erank-tiny.
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
        reporter: Reporter = SILENT,
    ) -> Path:
        """Measure, and return the page of the report.

        Args:
            collections: what quality and fidelity are measured on.
            out: gets the records as JSON, the runs, the files made, and `report/`; what is finished
                there is not done again.
            command: what was typed.
            whole: the collections have all their queries.
            reporter: shows how far it is.

        Raises:
            InputError: something that was given cannot be used.
            ModelError: a model cannot, or an extra is missing.
        """
        before, colon, _ = self.model.rpartition(":")
        if colon or "," in self.model:
            raise InputError(
                f"`{self.model}` names more than a checkpoint",
                f"give {before or 'its name'} alone; types go to --types",
            )
        if not self.types and not self.others:
            raise InputError("there is nothing to compare", "name types, or another model")
        _check_installed()
        reference = self.reference()
        reporter.message(f"the reference is {reference.label}")
        reference.resolve(reporter)
        specs = [self._spec(quant_type, out, reporter) for quant_type in self.types]
        specs += self.others
        for spec in specs:
            spec.resolve(reporter)  # a name that is wrong is reported before hours of work
        for collection in collections:
            candidates, found_by = self.first_stage.retrieve(collection, out, reporter)
            job = Job.from_candidates(collection, candidates, self.settings)
            compare(reference, specs, job, out, command=command, reporter=reporter)
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
                    reporter=reporter,
                )
        if self.speed:
            self._measure_speed(out / RECORDS, command, reporter)
        return write_report(read_records([out / RECORDS]), out / "report")

    def reference(self) -> ModelSpec:
        """Return the checkpoint in BF16: by Transformers, as published, where that is installed."""
        if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
            spec = ModelSpec.parse(f"{self.model},engine=transformers")
        else:
            spec = ModelSpec.parse(f"{self.model}:BF16,engine=llama.cpp")
        return replace(spec, label=f"{self.model}, BF16 as published")

    def _spec(self, quant_type: str, out: Path, reporter: Reporter) -> ModelSpec:
        """Return what runs a type, quantized first where it has an importance matrix."""
        plain, plus, rest = quant_type.partition("+")
        if plus and plus + rest != MATRIX:
            raise InputError(f"`{quant_type}` is not a type", f"give TYPE or TYPE{MATRIX}")
        if not plus:
            spec = ModelSpec.parse(f"{self.model}:{plain},engine=llama.cpp")
            return replace(spec, label=f"{self.model}:{plain}")
        file = out / "files" / f"{Path(self.model).name}-{plain}{MATRIX}.gguf"
        if not file.is_file():
            from erank_lite.convert.gguf.convert import convert_gguf

            file.parent.mkdir(parents=True, exist_ok=True)
            convert_gguf(
                checkpoint_folder(ModelRef.parse(self.model)),
                file,
                plain,
                imatrix="auto",
                open_engine=engine_for_calibration,
                reporter=reporter,
            )
        return replace(ModelSpec.parse(str(file)), label=f"{self.model}:{quant_type}")

    def _measure_speed(self, records: Path, command: str, reporter: Reporter) -> None:
        from erank_lite.benchmarks.speed import SpeedOptions, measure_small
        from erank_lite.benchmarks.speed.summary import file_name

        plain = next((each for each in self.types if "+" not in each), "Q8_0")
        file = records / "speed.json"
        if file.is_file():
            reporter.message(f"speed was measured before: remove {file} to measure it anew")
            return
        model = f"{self.model}:{plain}"
        reporter.message(f"speed of {model}, and of its peers that are here")
        try:
            options = SpeedOptions(repeat=1, command=command)
            for found in measure_small(model, options=options, reporter=reporter):
                write_json(records / file_name(found), found)
        except ModelError as error:
            reporter.message(f"speed was not measured: {error}")


def _check_installed() -> None:
    """Refuse at once what would be missing after minutes of work."""
    for package in ("bm25s", "Stemmer", "ir_measures", "matplotlib", "textalloc"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra("the benchmark", package, "eval")
