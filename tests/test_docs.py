"""The documentation: its site, the commands in its text, the format that it describes."""

import argparse
import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
from datetime import timedelta
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf
from pages import blocks, commands, fenced, mentioned, pages

from plugins import api, driver
from plugins.catalog import experiment_headers, with_words
from plugins.columns import BOOKKEEPING_SCHEMA
from plugins.experiment import BaseConfig, experiments, families
from plugins.identity import neutral_values
from plugins.load import load_sweep
from plugins.overrides import config_name_of, translate_argv

ROOT = Path(__file__).resolve().parent.parent
STANDS_FOR = {"N": "2", "FILE": "figure.png", "DIR": "dir", "STORE": "store", "PATH": "path"}
# Of what the reader has and this repository has not.
ABSENT = re.compile(r"<|^path\b|/|smollm2")
SHOWS = ("--cfg", "job", "hydra", "-p", "model", "hydra.launcher")
READERS = ("polars", "pyarrow", "duckdb")  # in the order of the page
HOW = ("--multirun", "hydra.sweep.dir", "hydra.sweeper.workers", "hydra.sweeper.dry_run")
BESIDES = {"device", "threads", "objective"}


class Links(HTMLParser):
    """What a page loads: sources of scripts, images, frames; targets of <link>, but for names."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "link" and attributes.get("rel") not in ("canonical", "edit", "prev", "next"):
            self.found.append(attributes["href"])
        elif tag != "a":
            self.found += [attributes[name] for name in ("src", "srcset") if name in attributes]


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=root,
        env={**os.environ, "DISABLE_MKDOCS_2_WARNING": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_and_has_every_page(root, site):
    built = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    for page in pages(root)[1:]:
        name = page.removeprefix("docs/").removesuffix(".md")
        assert (f"{name}/index.html" if name != "index" else "index.html") in built
    assert not any(name.startswith(("data/", "scripts/")) for name in built)


@pytest.mark.slow
def test_the_site_loads_nothing_from_a_network(site):
    loaded = {link for path in site.rglob("*.html") for link in Links(path.read_text()).found}
    assert any(link.endswith(".css") for link in loaded)
    assert [link for link in loaded if link.startswith(("http:", "https:", "//"))] == []
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", path.read_text()), path


def all_mentioned():
    """(page, command) of all that no test runs, each command once."""
    found = {}
    for page in pages(ROOT):
        followed = page == "docs/cluster.md"
        lines = [shlex.join(words) for words in commands(ROOT, page)] if followed else []
        for line in [*lines, *mentioned(ROOT, page)]:
            found.setdefault(line, page)
    return [(page, line) for line, page in found.items()]


def words_of(page, line):
    """A command's words, with something in the place of placeholders."""
    if page == "docs/qlora_probe.md":  # as its text defines
        line = line.replace(" S ", " data.n_examples=50 train.batch=2 train.accum=1 ")
    line = re.sub(r"\.\.\.(?=[\s\]]|$)", "", line)
    for name, value in STANDS_FOR.items():
        line = re.sub(rf"(?<![\w.]){name}(?![\w.])", value, line)
    return shlex.split(line, comments=True)


@cache
def settings_of(name, lines):
    """Hydra's own part of an experiment's config: launcher and sweeper."""
    with api._hydra(name):
        return compose(name, list(lines), return_hydra_config=True).hydra


def plan(translated, folder):
    """What `python sweep.py` does before it launches, in this process."""
    name = config_name_of(translated)
    lines = [word for word in translated if not word.startswith("-")]
    hydra = [line for line in lines if line.startswith(("hydra.", "hydra/"))]
    sweeper = settings_of(name, tuple(line for line in hydra if ".dir=" not in line)).sweeper
    if "hydra/sweeper=basic" in hydra:
        return
    settings = OmegaConf.to_container(sweeper)
    with api._hydra(name):
        request = driver.Request(
            overrides=[line for line in lines if line not in hydra],
            store=folder,
            command="",
            params=settings["params"],
            zip=settings["zip"] if any("sweeper.zip" in line for line in hydra) else (),
            file_zip=settings["zip"],
            units=1,
        )
        loader = GlobalHydra.instance().config_loader()
        driver.plan_sweep(
            request,
            lambda lines: compose(name, lines),
            lambda key: bool(loader.get_group_options(key, results_filter=ObjectType.CONFIG)),
            loader,
        )


def test_listings_in_the_text_of_pages_find_something():
    given = [words_of(page, line) for page, line in all_mentioned()]
    given = [words[3:] for words in given if words[2:3] == ["--list"]]
    assert given
    for words in given:
        with_words(experiment_headers(), words)  # raises where there is none


@pytest.mark.slow
def test_sweeps_in_the_text_of_pages_can_be_planned(tmp_path, monkeypatch):
    """Names, values and combinations are right, but for files that only the reader has."""
    monkeypatch.chdir(tmp_path)
    planned, wrong = set(), []
    for page, line in all_mentioned():
        words = words_of(page, line)
        name = next((word[4:] for word in words if word.startswith("-cn=")), None)
        own = {Path(block.file).stem for block in fenced(ROOT, page)}  # of the page's own files
        if words[:2] != ["python", "sweep.py"] or name in (None, "<name>", *own):
            continue
        words = [word for word in words[2:] if word not in SHOWS]
        try:
            translated = translate_argv(words, list(experiment_headers()))
            what = tuple(word for word in translated if not word.startswith(HOW))
            if len(what) > 1 and what not in planned:  # tests/test_conf.py has those of no keys
                planned.add(what)
                plan(translated, tmp_path / "store")
        except (ValueError, OSError) as error:
            given = [word.partition("=")[2] for word in words]
            absent = [value for value in given if ABSENT.search(value) and value in str(error)]
            if not absent:
                wrong.append(f"{page}: {line}\n    {error}")
    assert not wrong, "\n".join(wrong)
    assert len(planned) > 60


class Parsed(Exception):
    """The arguments of a command were understood."""


def test_other_commands_in_the_text_of_pages_have_arguments_that_exist(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, *given):
        parse(self, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    seen = set()
    for page, line in all_mentioned():
        words = words_of(page, line)
        if words[1] == "-m" and words[2] != "pytest":
            monkeypatch.setattr(sys, "argv", words[2:])
            is_package = importlib.util.find_spec(words[2]).submodule_search_locations
            module = importlib.import_module(words[2] + (".__main__" if is_package else ""))
            if len(words) > 3:
                with pytest.raises(Parsed):
                    module.main(words[3:])
        elif words[1].startswith("benchmarks/"):
            monkeypatch.setattr(sys, "argv", words[1:])
            monkeypatch.syspath_prepend(ROOT / "benchmarks")
            with pytest.raises(Parsed):
                runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        seen.add(words[1] if words[1] != "-m" else words[2])
    assert {"plugins.status", "plugins.merge", "analysis", "analysis.report"} <= seen


def written(part, rows, name):
    """A part beside `part` with these rows."""
    place = part.with_name(name)
    place.mkdir()
    table = rows.to_arrow().cast(pq.read_schema(part / "results.parquet"))
    pq.write_table(table, place / "results.parquet")


@pytest.fixture
def contested(tmp_path, monkeypatch):
    """The store of the page on the format, with rivals of its rows: wrong ones have a loss < 0."""
    monkeypatch.chdir(tmp_path)
    api.sweep("smoke", ["training.lr=0.01,0.02,0.03,0.04,0.05"], output="out/format")
    api.sweep("smoke", ["model.gamma=1.5,2"], output="out/format")
    [part] = Path("out/format/parts").iterdir()
    rows = pl.read_parquet(part / "results.parquet").filter(pl.col("training.lr").is_not_null())
    lost, second = pl.lit(-1.0).alias("final_test_loss"), timedelta(seconds=1)
    early, late = pl.col("finished") - second, pl.col("finished") + second
    row = [rows[i : i + 1] for i in range(len(rows))]
    flush = "0" * 12  # smaller than any that is drawn
    rivals = [
        row[0].with_columns(lost, finished=late, status=pl.lit("failed")),  # later, and failed
        row[1].with_columns(lost, finished=early, attempt=pl.lit("f" * 12 + "-0")),
        row[2].with_columns(lost, attempt=pl.lit(f"{flush}-9")),
        row[2].with_columns(lost, attempt=pl.lit(f"{flush}-10")),
        row[3].with_columns(lost, attempt=pl.lit("f" * 12 + "-9")),
        row[3].with_columns(
            attempt=pl.lit("f" * 12 + "-10"), final_test_loss=pl.lit(2.0)
        ),  # the winner: 10 > 9
        row[0].with_columns(run_id=pl.lit("0" * 16), status=pl.lit("failed")),  # never done
    ]
    written(part, pl.concat(rivals), "0000-20000101T000000000000-h-1-0-aaaaaaaa")
    # One attempt in two parts: the larger gen counts, whatever the name says after it.
    twice = row[4].with_columns(final_test_loss=pl.lit(3.0))
    written(part, twice, "0009-20000101T000000000000-h-1-1-aaaaaaaa")
    hidden = part.with_name(".tmp-0009-20000101T000000000000-h-1-2-aaaaaaaa")
    hidden.mkdir()
    (hidden / "results.parquet").write_bytes(b"PAR1 not yet")
    return Path("out/format")


@pytest.mark.parametrize("library", READERS)
def test_the_readers_of_the_page_find_the_winners(root, contested, library):
    readers = [text for text in blocks(root, "python", "docs/store.md") if "\nwinners = " in text]
    reader = dict(zip(READERS, readers, strict=True))[library]
    assert f"import {library}" in reader
    names = {}
    exec(compile(reader, "docs/store.md", "exec"), names)
    found = names["winners"]
    found = found if isinstance(found, pl.DataFrame) else pl.from_arrow(found)
    keys = ["training.lr", "model.gamma"]
    ours = load_sweep(contested, params=keys).select("run_id", *keys, "final_test_loss")
    losses = ours["final_test_loss"].to_list()
    assert {2.0, 3.0} <= set(losses)
    assert min(losses) > 0
    assert len(ours) == 7
    assert ours["training.lr"].null_count() == ours["model.gamma"].null_count() == 0
    found = found.select(ours.columns).sort("run_id").cast(dict(ours.schema))
    assert found.equals(ours.sort("run_id"))


def table_rows(page, heading):
    """The rows of the table below a line that begins with `heading`."""
    text = (ROOT / page).read_text()
    lines = text[text.index(f"\n{heading}") :].split("\n\n")
    table = next(part for part in lines if part.strip().startswith("|")).strip().splitlines()
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table[2:]]


def test_the_columns_of_the_page_are_those_of_the_store():
    types = {}
    for names, kind, *_ in table_rows("docs/store.md", "## Columns of `results.parquet`"):
        types |= dict.fromkeys(re.findall(r"`(\w+)`", names), kind.replace(", UTC", ", tz=UTC"))
    assert types == {field.name: str(field.type) for field in BOOKKEEPING_SCHEMA}


def test_what_the_page_leaves_out_of_a_run_id_is_what_is_left_out():
    text = (ROOT / "docs/store.md").read_text()
    start = text.index("| experiment | execution keys beside")
    table = text[start:].split("\n\n")[0].splitlines()[2:]
    listed = {}
    for line in table:
        name, keys, neutral = (re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:4])
        listed[name[0]] = (set(keys), set(neutral))
    ours = {
        experiment.name: (
            set(experiment.execution_keys) - BESIDES,
            set(neutral_values(experiment.schema)),
        )
        for family, found in families().items()
        if not found.entry
        for experiment in experiments(family)
    }
    assert listed == {name: what for name, what in ours.items() if any(what)}


def test_the_cheat_sheet_has_all_flags_statuses_and_common_keys():
    from dataclasses import fields

    from plugins.overrides import FLAGS_HELP

    sheet = (ROOT / "docs/cheat_sheet.md").read_text()
    for flag in re.findall(r"^  (--[\w-]+)", FLAGS_HELP, re.MULTILINE):
        assert f"`{flag}" in sheet or f" {flag}" in sheet, flag
    statuses = re.search(r"Exit status:(.*)", FLAGS_HELP, re.DOTALL)[1]
    rows = [cell for row in table_rows("docs/cheat_sheet.md", "| exit status") for cell in row[:1]]
    assert {s for row in rows for s in row.split(", ")} == set(re.findall(r"\b(\d+)\b", statuses))
    for field in fields(BaseConfig):
        assert field.name == "experiment" or f"| `{field.name}` |" in sheet


def test_the_navigation_names_every_page():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    names = set(re.findall(r"[\w/]+\.md", str(nav)))
    assert names - {"reference/index.md"} == {p.removeprefix("docs/") for p in pages(ROOT)[1:]}
