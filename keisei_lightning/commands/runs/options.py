"""What can be typed after ``keisei runs``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from keisei_lightning.system.devices import device_option
from keisei_lightning.system.options import Options, option

__all__ = [
    "VERBS",
    "CompareOptions",
    "DeleteOptions",
    "DiskOptions",
    "ListOptions",
    "Picture",
    "PlotOptions",
    "ResumeOptions",
    "RunsOptions",
    "ShowOptions",
    "Verb",
]

Picture = Literal["curves", "payoff", "calibration", "openings", "errors"]


@dataclass(frozen=True, kw_only=True)
class RunsOptions(Options):
    """Of all of them.

    Attributes:
        runs: the words that name runs.
    """

    runs: tuple[str, ...] = field(default=())
    folder: str = option("results", "The folder of all runs.", form="a folder")

    @property
    def root(self) -> Path:
        """The folder of all runs."""
        return Path(self.folder).expanduser()


@dataclass(frozen=True, kw_only=True)
class ListOptions(RunsOptions):
    """Of ``list``."""

    json: bool = option(False, "Print JSON instead of a table.")


@dataclass(frozen=True, kw_only=True)
class ShowOptions(RunsOptions):
    """Of ``show``."""

    json: bool = option(False, "Print JSON instead of a table.")


@dataclass(frozen=True, kw_only=True)
class CompareOptions(RunsOptions):
    """Of ``compare``."""

    json: bool = option(False, "Print JSON instead of a table.")


@dataclass(frozen=True, kw_only=True)
class PlotOptions(RunsOptions):
    """Of ``plot``."""

    what: list[Picture] = option(
        sentence="Pictures: curves of all runs in one; payoff of a league; of each run's newest policy calibration of "
        "its value, its openings, and its errors where an exact solver can tell them.",
        factory=lambda: ["curves"],
    )
    to: str | None = option(
        None,
        "The file, .svg or .png; with several pictures each has its name added; null: PICTURE.svg in the run's folder, "
        "or here for several runs.",
        pattern=r"(?s).+\.(svg|png)",
        form="a file that ends with .svg or .png",
    )
    x: Literal["plies", "minutes", "epochs"] = option("plies", "What curves are drawn over.")
    games: int = option(
        200, "Games that a policy plays against itself, for calibration and errors.", low=1, high=100_000
    )
    seed: int = option(0, "Root seed of these games.", low=0, high=2**32 - 1)
    device: str = device_option()


@dataclass(frozen=True, kw_only=True)
class ResumeOptions(RunsOptions):
    """Of ``resume``."""

    epochs: int | None = option(
        None, "trainer.max_epochs of the resumed run; null: twice as many if it is finished, else as before.", low=1
    )


@dataclass(frozen=True, kw_only=True)
class DeleteOptions(RunsOptions):
    """Of ``delete``."""

    yes: bool = option(False, "Delete without asking.")


@dataclass(frozen=True, kw_only=True)
class DiskOptions(RunsOptions):
    """Of ``disk``."""

    json: bool = option(False, "Print JSON instead of a table.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """What can be done with runs.

    Attributes:
        options: its keys.
        help: in a line.
        module: beside this one, which does it by its function of the verb's name.
        least: runs that it needs.
        most: runs that it takes; None: any number.
    """

    options: type[RunsOptions]
    help: str
    module: str
    least: int = 0
    most: int | None = None

    @property
    def arguments(self) -> str:
        """How its runs are written in its usage."""
        if self.most == 0:
            return ""
        return "RUN" if self.most == 1 else " ".join(["RUN"] * self.least + ["..."])


_VERBS = (
    ("list", "listing", ListOptions, 0, 0, "all runs: state, epochs, plies, newest score and rating, minutes, disk"),
    ("show", "showing", ShowOptions, 1, 1, "all that a run's folder tells of it"),
    ("compare", "comparing", CompareOptions, 2, None, "runs beside each other: options that differ, scores, speed"),
    ("plot", "plotting", PlotOptions, 1, None, "pictures: curves, payoff, calibration, openings, errors"),
    ("resume", "resuming", ResumeOptions, 1, 1, "print the command that resumes a run"),
    ("delete", "deleting", DeleteOptions, 1, None, "delete runs, after asking"),
    ("disk", "listing", DiskOptions, 0, 0, "what each run takes of the disk"),
)

VERBS: dict[str, Verb] = {
    name: Verb(module=module, options=options, least=least, most=most, help=text)
    for name, module, options, least, most, text in _VERBS
}
