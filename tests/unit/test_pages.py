"""The pages say what is true, as far as a test can hold it: names, files, commands, keys, links and widths."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fakes import TinyNetwork, counting_game
from lightning.pytorch import Trainer

import keisei_lightning
from keisei_lightning import errors
from keisei_lightning.commands.bench.options import BENCHES
from keisei_lightning.commands.main import COMMANDS
from keisei_lightning.config.schemas import SCHEMAS, CheckpointConfig, Config
from keisei_lightning.evaluation.ladder import Ladder
from keisei_lightning.evaluation.results import Tally
from keisei_lightning.models import ActorCritic
from keisei_lightning.parallel import OpponentOptions, SelfPlayCollector
from keisei_lightning.training import (
    CalibrationCallback,
    EvaluationCallback,
    LeagueCallback,
    PPOModule,
    SearchTargets,
    SelfPlayDataModule,
    SelfPlayMetrics,
    WeightSyncCallback,
    make_league,
)

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
README = ROOT / "README.md"
RESULTS = sorted((ROOT / "docs" / "results").glob("*.md"))
PAGES = [
    *(ROOT / name for name in ("README.md", "RESULTS.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")),
    ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PRESENT = [page for page in PAGES if page not in RESULTS]
"""Pages that say what is; in a page of results names and commands are those of the day when they were measured."""
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOW, HOOKS = ROOT / ".github" / "workflows" / "ci.yml", ROOT / ".pre-commit-config.yaml"
CITATION, SITE = ROOT / "CITATION.cff", ROOT / "mkdocs.yml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
MAX_WIDTH = 140
MAX_LINES_OF_README = 150

FOLDERS = (".github/", "conf/", "docs/", "examples/", "keisei_lightning/", "notebooks/", "tests/")
FILE = re.compile(r"[\w.-]+(/[\w.-]+)*\.(c|cff|ipynb|md|py|toml|txt|ya?ml)")
WRITTEN_BY_RUNS = {".hydra/config.yaml", "last_game.txt"}

KEYS = {section: {key.name for key in fields(schema)} for section, schema in SCHEMAS.items()}
KEYS["model"] = KEYS["resnet"] | KEYS["mlp"] | {"_target_"}
KEYS["checkpoint"] = {key.name for key in fields(CheckpointConfig)}


def spans(page: Path) -> Iterator[str]:
    """What a page sets as code, blanks and line ends made one."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", text):
        yield " ".join(span.split())


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """Words behind a program's name, in code spans and in blocks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    for line in [*spans(page), *(block.partition("  #")[0] for block in blocks)]:
        if line.startswith(f"{program} "):
            yield line.split()[1:]


def source() -> str:
    files = [ROOT / "Makefile", ROOT / "pyproject.toml", WORKFLOW, *(ROOT / "conf").rglob("*.yaml")]
    for folder in ("keisei_lightning", "tests"):
        files += (file for file in (ROOT / folder).rglob("*.py") if file != Path(__file__))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


# ---- the glossary has every word that metrics and errors use


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What a training logs that has everything: opponents, evaluations, an earlier policy, a ladder, searches."""
    torch.manual_seed(0)
    policy = ActorCritic(TinyNetwork())
    collector = SelfPlayCollector(
        counting_game(),
        policy,
        mode="serial",
        games_per_worker=4,
        plies_per_rollout=16,
        opponents=make_league(OpponentOptions(share=0.5), ["random"], policy),
    )
    ladder = Ladder(game="counting", matches=(("random", "somebody", Tally(wins=5, losses=5)),))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=4,
        gradient_clip_val=0.5,
        default_root_dir=tmp_path_factory.mktemp("logged"),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        callbacks=[
            WeightSyncCallback(),
            LeagueCallback(tmp_path_factory.mktemp("league"), 1),
            SelfPlayMetrics(),
            CalibrationCallback(tmp_path_factory.mktemp("calibration")),
            EvaluationCallback(
                counting_game(opening_plies=6), num_games=40, every_n_epochs=1, against_epochs_ago=1, ladder=ladder
            ),
        ],
    )
    targets = SearchTargets(counting_game(), games=4, simulations=4)
    data = SelfPlayDataModule(collector, minibatch_size=32, num_epochs=1, search_targets=targets)
    trainer.fit(PPOModule(policy), datamodule=data)
    return {name for name in trainer.callback_metrics if "/" in name}


def test_every_metric_that_a_training_logs_is_in_the_glossary(logged: set[str]) -> None:
    assert {"self_play/snapshot_score_min", "train/grad_norm", "train/explained_variance", "eval/rating_low"} <= logged
    assert any(name.startswith("self_play/outcome/") for name in logged)
    explained = set(spans(GLOSSARY))
    for name in sorted(logged):
        general = re.sub(r"_vs_(random|\d+_epochs_ago)", "_vs_<player>", name)
        general = re.sub(r"/outcome/\w+", "/outcome/<outcome>", general)
        assert general in explained, name


def test_every_metric_in_the_glossary_is_logged(logged: set[str]) -> None:
    for span in spans(GLOSSARY):
        if re.match(r"(self_play|train|eval|league)/\w", span):
            pattern = re.escape(span).replace("<player>", r"\w+").replace("<outcome>", r"\w+")
            assert any(re.fullmatch(pattern, name) for name in logged), span


def test_every_option_of_ours_is_in_the_glossary() -> None:
    """Not the trainer's and the logger's, which are Lightning's."""
    sections = [section for section in KEYS if section not in ("trainer", "logger", "resnet", "mlp")]
    options = {f"{section}.{key}" for section in sections for key in KEYS[section]}
    options |= {key.name for key in fields(Config)} - set(sections) - {"trainer"}
    assert options - {span.partition("=")[0] for span in spans(GLOSSARY)} == set()


def test_every_error_is_in_the_glossary() -> None:
    assert set(errors.__all__) <= set(spans(GLOSSARY))


# ---- what the pages name exists


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_and_folders_that_a_page_names_are_there(page: Path) -> None:
    names = {file.name for folder in FOLDERS for file in (ROOT / folder).rglob("*")}
    for span in set(spans(page)) - WRITTEN_BY_RUNS:
        if span.startswith(FOLDERS) or (FILE.fullmatch(span) and "/" in span):
            assert (ROOT / span).exists(), span
        elif FILE.fullmatch(span):
            assert (ROOT / span).exists() or span in names, span


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_targets_and_commands_that_a_page_names_exist(page: Path) -> None:
    for words in commands(page, "make"):
        assert {word for word in words if "=" not in word} <= TARGETS, words
    for command, *words in commands(page, "keisei"):
        assert command in {*COMMANDS, "--version", "..."}, command
        if command == "bench" and words and words[0] != "...":
            assert words[0] in BENCHES, words


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_configuration_keys_that_a_page_names_exist(page: Path) -> None:
    for span in spans(page):
        found = re.match(r"(\w+)\.(\w+)(=|$)", span)
        if found and found[1] in KEYS and not FILE.fullmatch(span):
            assert found[2] in KEYS[found[1]], span


def test_the_page_of_the_configuration_has_every_option_of_every_group() -> None:
    page = (ROOT / "docs" / "how-to" / "configure.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
    groups: dict[str, set[str]] = {}
    for file in (ROOT / "conf").glob("*/*.yaml"):
        groups.setdefault(file.parent.name, set()).add(file.stem)
    assert rows.keys() == groups.keys()
    for group, options in groups.items():
        named = re.findall(r"`([\w*]+)`", rows[group])
        assert all(fnmatch.filter(options, name) for name in named)
        assert options == {option for name in named for option in fnmatch.filter(options, name)}


def test_identifiers_that_the_pages_name_are_in_the_code() -> None:
    words = set(re.findall(r"\w+", source())) | {file.stem for file in (ROOT / "conf").rglob("*.yaml")}
    named = {span.removesuffix("()") for page in PRESENT for span in spans(page)}
    identifiers = {name for name in named if re.fullmatch(r"[A-Za-z_]\w*", name)}
    assert len(identifiers) > 30
    assert identifiers <= words, sorted(identifiers - words)


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_local_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES_OF_README
    links = set(re.findall(r"\]\(([^)\s#]+)", text))
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES if ".github" not in page.parts and page != README}
    assert pages | {CITATION.name, "CHANGELOG.md"} <= links


def test_the_site_has_every_page() -> None:
    navigation = set(re.findall(r"([\w/-]+\.md)$", SITE.read_text(encoding="utf-8"), re.MULTILINE))
    assert {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")} <= navigation


@pytest.mark.parametrize(
    "page",
    [*PAGES, *FORMS, WORKFLOW, HOOKS, CITATION, SITE, ROOT / "CHANGELOG.md"],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_no_line_is_wider_than_a_page(page: Path) -> None:
    wide = [line for line in page.read_text(encoding="utf-8").splitlines() if len(line) > MAX_WIDTH]
    assert wide == []


@pytest.mark.parametrize("page", RESULTS, ids=lambda page: page.stem)
def test_a_summary_of_results_names_no_figure_that_its_page_does_not_have(page: Path) -> None:
    title, summary, *sections = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert title.startswith("# Results: ")
    assert summary.startswith("Summary\n")
    figure = re.compile(r"\d[\d,.]*\d|\d")
    figures = set(figure.findall(re.sub(r"\]\([^)]*\)", "", summary)))
    assert len(figures) > 5
    assert figures - set(figure.findall("".join(sections))) == set()


# ---- files for other programs


def loaded(file: Path) -> dict[Any, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_the_citation_is_of_this_version() -> None:
    """Keys and kinds as in the schema of the Citation File Format 1.2.0."""
    citation = loaded(CITATION)
    assert {"authors", "cff-version", "message", "title"} <= citation.keys()
    assert citation.keys() <= {
        *("abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords"),
        *("license", "message", "references", "repository-code", "title", "type", "url", "version"),
    }
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    code_license = PROJECT["license"].partition(" AND ")[0]  # the rest is of files that are no code
    assert (citation["version"], citation["license"]) == (keisei_lightning.__version__, code_license)
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert set(citation["keywords"]) <= set(PROJECT["keywords"])
    heading = f"## {citation['version']} - {citation['date-released']}"
    assert heading in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()


def test_the_workflow_checks_every_python_on_both_systems_and_may_only_read() -> None:
    workflow = loaded(WORKFLOW)
    pythons = {name.split(" :: ")[-1] for name in PROJECT["classifiers"] if re.search(r":: \d+\.\d+$", name)}
    matrix = workflow["jobs"]["check"]["strategy"]["matrix"]
    assert set(matrix["python"]) == pythons
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos"}
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    targets = [step["run"].split()[1] for step in steps if step.get("run", "").startswith("make ")]
    assert targets == ["check", "test", "docs"]
    assert set(targets) <= TARGETS
    assert all("permissions" not in job and job["timeout-minutes"] > 0 for job in workflow["jobs"].values())


def test_the_hooks_are_the_projects_own_tools() -> None:
    tools = {re.match(r"[\w-]+", requirement)[0] for requirement in PROJECT["optional-dependencies"]["dev"]}  # type: ignore[index]
    (repo,) = loaded(HOOKS)["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        assert hook["language"] == "system"
        folder, _, tool = hook["entry"].split()[0].rpartition("/")
        assert (folder, tool in tools) == (".venv/bin", True)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_an_issue_form_is_one(form: Path) -> None:
    content = loaded(form)
    if form.name == "config.yml":
        assert content == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= content.keys()
    fields_of_form = [field for field in content["body"] if field["type"] != "markdown"]
    names = [field["id"] for field in fields_of_form]
    assert len(names) == len(set(names)) > 0
    assert all(field["type"] in ("textarea", "input", "dropdown") for field in fields_of_form)
    assert all(field["attributes"]["label"] for field in fields_of_form)
