"""Words of a command line whose values are texts: paths, names, games and players, which Hydra would take apart.

Hydra has a meaning for ``=``, commas, brackets and braces in a value, and reads ``1e3`` as a number. What is typed for
a path is a path, such as Lightning's own ``epoch=3-step=9.ckpt``, and ``~`` is a home folder there as in a shell.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException

from keisei_lightning.published import is_checkpoint

__all__ = ["PATH_KEYS", "override_word", "quote_texts", "resume_command", "resumed_words"]

PATH_KEYS = frozenset(
    {
        *("checkpoint", "ckpt_path", "folder", "hydra.run.dir", "hydra.sweep.dir", "initial_policy", "load"),
        *("opponents.folder", "output_dir", "results_dir", "save", "to", "write"),
    },
)
"""Keys whose values are paths."""

_LIST_KEYS = frozenset({"evaluation.opponents", "opponents", "opponents.members"})
"""Keys whose values may be lists of players, ``[random,alpha_beta(depth=5)]``, and of checkpoint files."""

_WHOLE_KEYS = PATH_KEYS | {"name", "position"}
"""Keys of texts in which a comma is a part of the text."""

_TEXT_KEYS = _WHOLE_KEYS | _LIST_KEYS | {"env.game", "game", "opponent"}

_PLAIN = re.compile(r"(?!(?:true|false|null|inf|nan)$)[A-Za-z_./][\w./@%+-]*", re.ASCII | re.IGNORECASE)
"""What Hydra takes as it stands, whatever else it is shown to."""

_COMMAND = ("keisei", "train")

_OF_SWEEPS = re.compile(r"\+*(hparams_search|callbacks\.pruning\b[^=]*)=")
"""Words that make a command a sweep, or say how its trials are pruned: one of its runs is resumed alone."""

_OPENING, _CLOSING = "([{", ")]}"

_TOKEN = re.compile(r"""(?<!\w)(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|[,()[\]{}]""", re.DOTALL)
"""Commas, brackets, and texts in quotation marks; a mark within a word is an apostrophe."""


def quote_texts(words: Sequence[str]) -> list[str]:
    """Put quotation marks around what Hydra would not take as it stands, and a home folder in the place of its ``~``.

    Args:
        words: of a command line, such as ``env.game=hex(board_size=5)``, ``opponents=[random,alpha_beta(depth=5)]`` or
            ``ckpt_path=~/runs/epoch=3-step=9.ckpt`` (the shell takes the user's own quotation marks away).

    Returns:
        The same words, with ``env.game="hex(board_size=5)"``. Other keys' values, Hydra's own functions, what has
        quotation marks already, and the commas of a sweep (``-m``) stay as they are.
    """
    is_sweep = any(word in ("-m", "--multirun") for word in words)
    return [_quote(word, is_sweep=is_sweep) for word in words]


def override_word(key: str, value: str) -> str:
    """``KEY=VALUE`` that Hydra reads as exactly this text.

    Args:
        key: of the configuration.
        value: any text, such as a path.
    """
    # OmegaConf's own escape; only where an interpolation would begin has a backslash a meaning for it.
    text = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)
    return f"{key}={text if _PLAIN.fullmatch(text) else _quoted(text)}"


def resume_command(checkpoint: str, max_epochs: int, section: str = "") -> str:
    """A command that can be pasted into a shell, and resumes the run that is being run.

    Args:
        checkpoint: to resume from.
        max_epochs: of the run that resumes.
        section: of a larger configuration where the run's own one lies, such as ``self_play.``.

    Returns:
        The present command with these two; outside of Hydra's applications only the two words.
    """
    words = [override_word(f"{section}ckpt_path", checkpoint), f"{section}trainer.max_epochs={max_epochs}"]
    if HydraConfig.initialized():
        task = [str(word) for word in HydraConfig.get().overrides.task]
        program = sys.argv[0]
        command = ["python", program] if program.endswith(".py") and Path(program).name != "__main__.py" else _COMMAND
        words = [*command, *resumed_words(task, words)]
    return shlex.join(words)


def resumed_words(task: Sequence[str], words: Sequence[str]) -> list[str]:
    """The words of a run that resumes another one.

    Args:
        task: words of the run that is resumed.
        words: that are added, or take the place of those with the same keys.
    """
    keys = {word.partition("=")[0] for word in words}
    kept = (word for word in task if not _OF_SWEEPS.match(word))
    return [*(word for word in kept if word.partition("=")[0].lstrip("+") not in keys), *words]


def _quote(word: str, *, is_sweep: bool) -> str:
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if name not in _TEXT_KEYS or not value:
        return word
    # A comma is a part of a path; between games or players it is a sweep's, or a mistake.
    choices = list(_split(value)) if is_sweep or name not in _WHOLE_KEYS else [value]
    return key + equals + ",".join(_quote_choice(name, choice) for choice in choices)


def _quote_choice(key: str, value: str) -> str:
    text = value.strip()
    if key in _LIST_KEYS and text.startswith("[") and text.endswith("]"):
        return f"[{','.join(_quote_text(key, item.strip()) for item in _split(text[1:-1]))}]"
    return _quote_text(key, value)


def _quote_text(key: str, text: str) -> str:
    """One value: a path, a name, a game or a player."""
    if key in PATH_KEYS or (key in _LIST_KEYS and is_checkpoint(text)):
        text = os.path.expanduser(text)
    if not text or text[0] in "'\"" or _PLAIN.fullmatch(text):
        return text
    try:
        (override,) = OverridesParser.create().parse_overrides([f"key={text}"])
    except HydraException:
        return _quoted(text)
    return text if _means_itself(override, text) else _quoted(text)


def _means_itself(override: Override, text: str) -> bool:
    """Whether Hydra reads a text as that text, or as something that only its own notation says."""
    if override.is_sweep_override():
        return override.value_type is not ValueType.SIMPLE_CHOICE_SWEEP  # a function, such as choice(a,b)
    value = override.value()
    # With a backslash it is in Hydra's notation already: epoch\=3.
    return value is None or (isinstance(value, str) and (value == text.strip() or "\\" in text))


def _split(text: str) -> Iterator[str]:
    """Pieces between the commas that stand in no brackets and no quotation marks."""
    depth, begin = 0, 0
    for found in _TOKEN.finditer(text):
        depth += (found[0] in _OPENING) - (found[0] in _CLOSING)
        if found[0] == "," and depth <= 0:
            yield text[begin : found.start()]
            begin = found.end()
    yield text[begin:]


def _quoted(text: str) -> str:
    mark = Quote.single if '"' in text and "'" not in text else Quote.double
    return QuotedString(text=text, quote=mark).with_quotes()
