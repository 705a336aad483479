"""The options of a run, from ``.hydra/config.yaml``: plain data. No interpolation is resolved and nothing is made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

__all__ = [
    "OPTIONS_FILE",
    "OVERRIDES_FILE",
    "different_options",
    "flattened",
    "read_options",
    "read_overrides",
    "read_sections",
    "working_folder",
]

OPTIONS_FILE: Final = ".hydra/config.yaml"
OVERRIDES_FILE: Final = ".hydra/overrides.yaml"
HYDRA_FILE: Final = ".hydra/hydra.yaml"

_MAX_BYTES: Final = 1_048_576
_MAX_KEYS: Final = 20_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast


def read_options(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The options of a run, nested by section.

    Args:
        folder: of the run.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no configuration.
    """
    content = _load(Path(folder, OPTIONS_FILE))
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{OPTIONS_FILE} is no configuration")
    return content


def read_sections(folder: str | os.PathLike[str], names: Sequence[str]) -> dict[str, Any]:
    """Some sections of a run's options: several times as fast as :func:`read_options`, for a list of many runs.

    Args:
        folder: of the run.
        names: of the sections; without all of them in the file, the whole of it is read.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no configuration.
    """
    text = _read(Path(folder, OPTIONS_FILE)).decode("utf-8", "replace")
    # A section ends where the next line begins with another key; its own lines are indented, or items of a list.
    found = {match[1]: match[0] for match in re.finditer(r"^(\w+):.*\n(?:[ \t#-].*\n|\n)*", text, re.MULTILINE)}
    if not all(name in found for name in names):
        return read_options(folder)
    return dict(_parsed("".join(found[name] for name in names), Path(OPTIONS_FILE).name))


def read_overrides(folder: str | os.PathLike[str]) -> list[str]:
    """The words of the command that began a run, such as ``experiment=shogi``.

    Args:
        folder: of the run.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is no list of words.
    """
    content = _load(Path(folder, OVERRIDES_FILE))
    if not isinstance(content, list) or not all(isinstance(word, str) for word in content):
        raise ValueError(f"{OVERRIDES_FILE} is no list of words")
    return content


def working_folder(folder: str | os.PathLike[str]) -> Path | None:
    """Where the command of a run was typed, which its relative paths are seen from; None: it is not known.

    Args:
        folder: of the run.
    """
    try:
        content = _load(Path(folder, HYDRA_FILE))
        cwd = content["hydra"]["runtime"]["cwd"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(cwd) if isinstance(cwd, str) and cwd.isprintable() and os.path.isabs(cwd) else None


def _load(file: Path) -> Any:
    return _parsed(_read(file), file.name)


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        text = stream.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise ValueError(f"{file.name} is larger than a configuration")
    return text


def _parsed(text: str | bytes, name: str) -> Any:
    try:
        return yaml.load(text, Loader=_LOADER)  # a safe loader: plain data only
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is no YAML ({' '.join(str(error).split())[:200]})") from error


def flattened(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their whole names, such as ``parallel.num_workers``.

    Args:
        options: nested by section.

    Raises:
        ValueError: there are more than any configuration has (a file may repeat a section without end).
    """
    found: dict[str, Any] = {}
    for name, value in _leaves(options, "", 0):
        found[name] = value
        if len(found) > _MAX_KEYS:
            raise ValueError(f"{OPTIONS_FILE} has more than {_MAX_KEYS} options")
    return found


def _leaves(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value and depth < 50:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key), depth + 1)
    else:
        yield name, value


def different_options(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The options in which runs differ.

    Args:
        runs: options of each (:func:`read_options`).

    Returns:
        By name a value for each run; None stands where a run does not have the option too.
    """
    flat = [flattened(options) for options in runs]
    names = sorted(set().union(*flat))
    values = {name: [options.get(name) for options in flat] for name in names}
    return {name: each for name, each in values.items() if any(value != each[0] for value in each)}
