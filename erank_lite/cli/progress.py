"""How far long work is: a bar for each stage on a terminal, elsewhere a line a minute."""

from __future__ import annotations

from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from erank_lite.cli.output import printable, say
from erank_lite.util.reporter import Computing, Reporter
from erank_lite.util.time_left import TimeLeft
from erank_lite.util.units import duration, file_size

_INTERVAL = 60.0  # seconds between two lines of a stage where there is no terminal


class TerminalReporter(Reporter):
    """Shows on standard error how far each stage is.

    A bar vanishes when its stage is done, and all do at the end of the `with` block, so that what
    is printed after it stands alone.
    """

    def __init__(self) -> None:
        self._engine: Computing | None = None
        self._console = Console(stderr=True)
        self._stages: dict[str, _Stage] = {}
        self._bars: Progress | None = None

    def __enter__(self) -> TerminalReporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in list(self._stages):
            self._end(name)

    def watch(self, engine: Computing) -> None:
        """Take the pace in tokens of this engine, and count what it has under way."""
        self._engine = engine

    def progress(self, stage: str, done: int, total: int, unit: str = "B") -> None:
        """Show that `done` of `total` units of a stage are finished."""
        if done >= total:
            self._end(stage)
            return
        known = self._stages.get(stage)
        if known is None:
            known = self._stages[stage] = _Stage(stage, done, total, unit, self._engine)
            if self._console.is_terminal:
                known.task = self._show(known)
        known.update(done, total)
        if self._bars is None:
            known.print_if_due()
        elif known.task is not None and total > 1:
            self._bars.update(known.task, completed=done, total=total)

    def message(self, text: str) -> None:
        """Print a line; bars stay below it."""
        if self._bars is None:
            say(text)
        else:
            self._bars.console.print(Text(printable(text)), soft_wrap=True)

    def _show(self, stage: _Stage) -> TaskID:
        if self._bars is None:
            figures = _Figures(Column(no_wrap=True))  # on a narrow terminal the bar gives way
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), figures)
            self._bars = Progress(*columns, console=self._console, transient=True)
            self._bars.start()
        # What is one step, such as a check, has no measure: its bar only moves.
        total = stage.total if stage.total > 1 else None
        return self._bars.add_task(
            printable(stage.name), total=total, completed=stage.done, stage=stage
        )

    def _end(self, name: str) -> None:
        stage = self._stages.pop(name, None)
        if stage is None or self._bars is None:
            return
        if stage.task is not None:
            self._bars.remove_task(stage.task)
        if not self._stages:
            self._bars.stop()
            self._bars = None


class _Stage:
    """What is known of a stage: how far it is, how fast it went, and when it will be done."""

    def __init__(
        self, name: str, done: int, total: int, unit: str, engine: Computing | None
    ) -> None:
        self.name, self.done, self.total, self.unit = name, done, total, unit
        self.task: TaskID | None = None
        self._begun = self._printed = monotonic()
        self._first = done  # what was kept of an earlier run says nothing of the pace
        self._engine = engine if unit == "documents" else None
        self._first_tokens = engine.tokens_generated if engine else 0
        self._time_left = TimeLeft(done, monotonic)

    def update(self, done: int, total: int) -> None:
        if done > self.done or total != self.total:
            self.done, self.total = done, total
            self._foresee()

    def _foresee(self) -> None:
        """Take into account what is done, documents under way counted."""
        under_way = self._engine.under_way if self._engine else 0.0
        self._time_left.update(self.done + under_way, self.total)

    def left(self) -> str:
        """Return the time left, counted down until more is finished."""
        if self._engine is not None:
            self._foresee()
        end = self._time_left.end
        return "" if end is None else f"{duration(max(0.0, end - monotonic()))} left"

    def pace(self) -> str:
        took = max(monotonic() - self._begun, 1e-3)
        if self._engine is not None:
            return f"{(self._engine.tokens_generated - self._first_tokens) / took:.0f} tokens/s"
        if self.unit == "B" and self.done > self._first:
            return f"{file_size((self.done - self._first) / took)}/s"
        return ""

    def print_if_due(self) -> None:
        now = monotonic()
        if now - self._printed >= _INTERVAL and self._time_left.end is not None:
            self._printed = now
            done, total = str(self.done), f"{self.total} {self.unit}"
            if self.unit == "B":
                done, total = file_size(self.done), file_size(self.total)
            say(f"{self.name}: {done} of {total}, about {self.left()}")


class _Figures(ProgressColumn):
    """Amount, pace and time left of a stage, as far as they are known."""

    def render(self, task: Task) -> Text:
        stage: _Stage = task.fields["stage"]
        if task.total is None:
            return Text()
        amount = f"{stage.done}/{stage.total}"
        if stage.unit == "B":
            amount = f"{file_size(stage.done)}/{file_size(stage.total)}"
        return Text("  ".join(filter(None, (amount, stage.pace(), stage.left()))), style="cyan")
