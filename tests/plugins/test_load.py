"""Reading stores: columns and their order, keys filled from config files, errors naming files."""

import itertools
import os

import numpy as np
import polars as pl
import pytest
from store_rows import CONFIG, PROVENANCE, append, result, run_id, write_runs

from plugins.columns import ColumnConflict
from plugins.config_files import ConfigFile, write_config
from plugins.load import load_sweep, load_sweep_config, load_table, scan_sweep
from plugins.merge import compact, merge
from plugins.parts import CorruptPart, list_parts
from plugins.registry import UnknownName
from plugins.result import BOOKKEEPING, RunResult
from plugins.store import SweepWriter
from plugins.winners import stored_runs


def config_file(config, *varying, version=1, encoded=()):
    return ConfigFile({"experiment": "toy/run", **config}, varying, version, encoded)


def write_rows(store, file, rows, plan="p", first=0, outcome=None):
    """One part: a run per mapping of varying keys."""
    write_config(store, file)
    with SweepWriter(store, plan, PROVENANCE, flush_seconds=1e9) as writer:
        for i, values in enumerate(rows, first):
            append(writer, i, outcome or result(i), config=file, **values)


def test_columns_are_keys_step_curves_scalars_bookkeeping_and_rows_in_plan_order(tmp_path):
    file = config_file({"a": {"depth": 2}}, "z.late", "b")
    outcome = RunResult(scalars={"n": 1, "m": 2.0}, curves={"y": [1.0], "step": [0], "x": [1.0]})
    rows = [{"z.late": i, "b": -i} for i in range(4)]
    write_rows(tmp_path, file, rows[:2], plan="2026-02", first=0, outcome=outcome)
    write_rows(tmp_path, file, rows[2:], plan="2026-01", first=2, outcome=outcome)
    frame = load_sweep(tmp_path)
    assert frame.columns == ["z.late", "b", "step", "y", "x", "n", "m", *BOOKKEEPING]
    assert frame["plan"].to_list() == ["2026-01"] * 2 + ["2026-02"] * 2
    assert frame["index"].to_list() == [2, 3, 0, 1]
    assert scan_sweep(tmp_path).collect_schema() == frame.schema


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_parts_with_different_columns_load_together_and_fold(tmp_path, order):
    scalars = [{"a": 0.0}, {"a": 1.0, "b": "one"}, {"a": 2.0, "c": 2}]
    for i in order:
        write_runs(tmp_path, [i], outcome=RunResult(scalars=scalars[i]))

    def cells():
        return load_sweep(tmp_path).sort("seed").select("a", "b", "c").rows()

    assert cells() == [(0.0, None, None), (1.0, "one", None), (2.0, None, 2)]
    compact(tmp_path)
    assert len(list_parts(tmp_path)) == 1
    assert cells() == [(0.0, None, None), (1.0, "one", None), (2.0, None, 2)]


def test_integers_in_one_part_and_floats_in_another_are_floats(tmp_path):
    file = config_file({}, "seed", "lr")
    for i, value in enumerate([1, 0.5]):
        curves = {"step": [0], "x": np.array([value], np.float32 if i else np.int16)}
        outcome = RunResult(scalars={"s": value}, curves=curves)
        write_rows(tmp_path, file, [{"seed": i, "lr": value}], first=i, outcome=outcome)
    for _ in range(2):
        frame = load_sweep(tmp_path)
        assert frame["lr"].to_list() == frame["s"].to_list() == [1.0, 0.5]
        assert frame.schema["x"] == pl.List(pl.Float32)
        compact(tmp_path)


def test_text_and_numbers_in_one_column_name_it_and_the_files(tmp_path):
    write_runs(tmp_path, [0], outcome=RunResult(scalars={"x": 1}))
    write_runs(tmp_path, [1], outcome=RunResult(scalars={"x": "one"}))
    with pytest.raises(
        ColumnConflict, match=r"column 'x' holds numbers in .* and text in "
    ) as error:
        load_sweep(tmp_path)
    for part in list_parts(tmp_path):
        assert str(part / "results.parquet") in str(error.value)


def test_key_fixed_in_one_plan_and_varied_in_another_is_filled(tmp_path):
    """null as a value and a key that was not varied are told apart by the config file."""
    write_rows(tmp_path, config_file({"lr": 0.1}, "seed"), [{"seed": 0}], plan="1")
    write_rows(tmp_path, config_file({"seed": 5}, "lr"), [{"lr": 0.2}, {"lr": None}], "2", first=1)
    write_rows(tmp_path, config_file({"lr": None}, "seed"), [{"seed": 7}], plan="3", first=3)
    for _ in range(2):
        frame = load_sweep(tmp_path)
        assert frame.columns[:3] == ["seed", "lr", "step"]
        assert frame["seed"].to_list() == [0, 5, 5, 7]
        assert frame["lr"].to_list() == [0.1, 0.2, None, None]
        compact(tmp_path)
    stored = pl.read_parquet(list_parts(tmp_path)[0] / "results.parquet")
    assert stored["lr"].to_list() == [None, 0.2, None, None]  # never filled on disk


def test_key_that_is_null_wherever_it_varies_is_filled_elsewhere(tmp_path):
    write_rows(tmp_path, config_file({}, "lr"), [{"lr": None}], plan="1")
    write_rows(tmp_path, config_file({"lr": 2}), [{}], plan="2", first=1)
    assert load_sweep(tmp_path)["lr"].to_list() == [None, 2]


def test_keys_fixed_at_different_values_become_columns(tmp_path):
    """Over several stores; equal ones do not; a key that one config lacks is null there."""
    a, b = tmp_path / "a", tmp_path / "b"
    write_rows(a, config_file({"data": {"n": 5, "d": 3}}, "seed"), [{"seed": 0}], plan="1")
    write_rows(
        b, config_file({"data": {"n": 9, "d": 3}, "new": "x"}, "seed"), [{"seed": 0}], "2", first=1
    )
    assert "data.n" not in load_sweep(a).columns
    frame = load_sweep(a, b)
    assert frame.columns[:3] == ["seed", "data.n", "new"]
    assert frame.select("seed", "data.n", "new").rows() == [(0, 5, None), (0, 9, "x")]
    assert load_sweep(b, a).equals(frame)


def test_experiments_of_two_versions_are_told_apart(tmp_path):
    write_rows(tmp_path, config_file({}, "seed", version=1), [{"seed": 0}], plan="1")
    assert "version" not in load_sweep(tmp_path).columns
    write_rows(tmp_path, config_file({}, "seed", version=2), [{"seed": 0}], plan="2", first=1)
    assert load_sweep(tmp_path)["version"].to_list() == [1, 2]


def test_params_all_and_by_name(tmp_path):
    write_rows(
        tmp_path, config_file({"a": {"b": 1, "c": [1, 2]}, "d": None}, "seed"), [{"seed": 3}]
    )
    frame = load_sweep(tmp_path, params="all")
    assert frame.columns[:6] == ["seed", "a.b", "a.c", "d", "version", "step"]
    assert frame.select("seed", "a.b", "a.c", "d").rows() == [(3, 1, "[1, 2]", None)]
    assert load_sweep(tmp_path, params=["a.c"]).columns[:2] == ["a.c", "step"]
    assert "seed" not in load_sweep(tmp_path, params=[]).columns
    with pytest.raises(UnknownName, match=r"no config in .* has a key 'a.bb'; did you mean 'a.b'"):
        load_sweep(tmp_path, params=["a.bb"])


def test_mapping_varied_whole_in_one_plan_and_fixed_in_another(tmp_path):
    varied = config_file({}, "opt", encoded=("opt",))
    write_rows(tmp_path, varied, [{"opt": '{"name": "sgd", "lr": 1}'}], plan="1")
    fixed = config_file({"opt": {"name": "adam", "lr": 2}}, "seed")
    write_rows(tmp_path, fixed, [{"seed": 1}], plan="2", first=1)
    frame = load_sweep(tmp_path)
    assert frame["opt"].to_list() == ['{"name": "sgd", "lr": 1}', '{"name": "adam", "lr": 2}']
    assert load_sweep_config(tmp_path, run_id(0))["opt"] == {"name": "sgd", "lr": 1}


def test_config_key_and_result_of_one_name_are_an_error(tmp_path):
    write_rows(tmp_path, config_file({"final": 1}), [{}], plan="1")
    assert load_sweep(tmp_path)["final"].to_list() == [0.0]
    with pytest.raises(ValueError, match=r"config keys and results have the same names: \['final'"):
        load_sweep(tmp_path, params="all")


def test_status_selects_rows(tmp_path):
    write_runs(tmp_path, [0])
    write_runs(tmp_path, [1], outcome=RunResult(status="diverged"))
    write_runs(tmp_path, [2], outcome=RuntimeError("why"))
    assert load_sweep(tmp_path)["seed"].to_list() == [0, 1]
    assert load_sweep(tmp_path, status=["ok"])["seed"].to_list() == [0]
    assert load_sweep(tmp_path, status=["failed"])["error"].str.contains("why").all()
    with pytest.raises(ValueError, match=r"status .'okay'. is none of ok, diverged, failed"):
        load_sweep(tmp_path, status=["okay"])


def test_run_in_two_stores_counts_once(tmp_path):
    write_runs(tmp_path / "a", [0, 1])
    write_runs(tmp_path / "b", [1, 2], minute=1)
    frame = load_sweep(tmp_path / "a", tmp_path / "b")
    assert frame["seed"].to_list() == [0, 1, 2]
    assert frame.row(by_predicate=pl.col("seed") == 1, named=True)["finished"].minute == 1
    assert len(load_table(tmp_path / "a", tmp_path / "b", name="notes")) == 6
    assert load_sweep(tmp_path / "a", tmp_path / "a")["seed"].to_list() == [0, 1]


def test_of_equal_rows_in_one_flush_the_last_counts(tmp_path):
    """Their attempts end in -0, ..., -11: the number counts, not the text."""
    write_config(tmp_path, CONFIG)
    with SweepWriter(tmp_path, "p", PROVENANCE, flush_seconds=1e9) as writer:
        for value in range(12):
            append(writer, 0, result(0, value=value))
    for _ in range(2):
        assert load_sweep(tmp_path)["final"].to_list() == [11.0]
        assert load_table(tmp_path, name="notes")["note"].to_list() == ["11 a", "11 b"]
        compact(tmp_path)
    assert len(stored_runs(tmp_path)) == 1


def test_tables_follow_the_winner_in_plan_order(tmp_path):
    write_runs(tmp_path, [1, 0], plan="2")
    write_runs(tmp_path, [2], plan="1")
    repeated = result(0, value=9.5)
    repeated.tables["notes"] = {"number": [4], "note": ["again"]}
    write_runs(tmp_path, [0], plan="3", outcome=repeated, minute=1)
    expected = [
        (run_id(2), 0, "2 a"),
        (run_id(2), 1, "2 b"),
        (run_id(1), 0, "1 a"),
        (run_id(1), 1, "1 b"),
        (run_id(0), 4, "again"),
    ]
    for _ in range(2):
        table = load_table(tmp_path, name="notes")
        assert table.columns == ["run_id", "number", "note"]
        assert table.rows() == expected
        compact(tmp_path)
    with pytest.raises(UnknownName, match="table 'note'; did you mean 'notes'"):
        load_table(tmp_path, name="note")


def test_names_that_the_store_itself_works_with_are_free(tmp_path):
    names = ("part", "row", "store", "hash", "path")
    outcome = RunResult(scalars=dict.fromkeys(names, 1.0), tables={"t": {n: [2] for n in names}})
    write_runs(tmp_path / "a", [0, 1], outcome=outcome)
    write_runs(tmp_path / "b", [0, 2], outcome=outcome)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")
    write_runs(tmp_path / "c", [2, 3], outcome=outcome, minute=1)
    for _ in range(2):
        assert load_sweep(tmp_path / "c").select(names).rows() == [(1.0,) * 5] * 4
        assert load_table(tmp_path / "c", name="t").select(names).rows() == [(2,) * 5] * 4
        compact(tmp_path / "c")


def test_config_of_a_run_and_what_all_runs_share(tmp_path):
    one = config_file({"a": {"b": 1, "c": 2}, "e": {}}, "seed", "a.d", encoded=("a.d",))
    two = config_file({"a": {"b": 9, "c": 2, "d": [7]}}, "seed")
    write_rows(tmp_path, one, [{"seed": 4, "a.d": "[1, 2]"}, {"seed": 5, "a.d": None}], plan="1")
    assert load_sweep_config(tmp_path) == {"experiment": "toy/run", "a": {"b": 1, "c": 2}}
    write_rows(tmp_path, two, [{"seed": 6}], plan="2", first=2)
    assert load_sweep_config(tmp_path) == {"experiment": "toy/run", "a": {"c": 2}}
    full = {"experiment": "toy/run", "e": {}, "seed": 4, "a": {"b": 1, "c": 2, "d": [1, 2]}}
    assert load_sweep_config(tmp_path, run_id(0)) == full
    assert load_sweep_config(tmp_path, run_id(1))["a"]["d"] is None
    assert load_sweep_config(tmp_path, run_id(2))["a"] == {"b": 9, "c": 2, "d": [7]}
    with pytest.raises(UnknownName, match="holds no run 'abc'"):
        load_sweep_config(tmp_path, "abc")


def test_curves_of_lists_keep_shape_and_dtype_through_folds(tmp_path):
    spectra = [np.arange(6, dtype=np.float32).reshape(3, 2), np.ones((1, 4), np.float32)]
    for i, values in enumerate(spectra):
        curves = {"step": range(len(values)), "spectrum": values}
        write_runs(tmp_path, [i], outcome=RunResult(curves=curves))
    compact(tmp_path)
    column = load_sweep(tmp_path)["spectrum"]
    assert column.dtype == pl.List(pl.List(pl.Float32))
    assert column.to_list() == [values.tolist() for values in spectra]


def test_store_without_rows_is_empty_and_no_store_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no store .*gone"):
        load_sweep(tmp_path / "gone")
    write_runs(tmp_path / "dln" / "gph", [])
    assert load_sweep(tmp_path / "dln" / "gph").columns == ["seed", *BOOKKEEPING]
    (tmp_path / "dln" / "gph" / "parts").mkdir()
    assert load_sweep(tmp_path / "dln" / "gph").is_empty()
    with pytest.raises(FileNotFoundError, match=r"is not a store: .*; stores below it: .*/dln/gph"):
        load_sweep(tmp_path / "dln")
    with pytest.raises(UnknownName, match="no run has a table 'notes'"):
        load_table(tmp_path / "dln" / "gph", name="notes")


def test_rows_whose_config_file_is_missing_name_it(tmp_path):
    write_runs(tmp_path, [0])
    os.remove(tmp_path / "configs" / f"{CONFIG.config_id}.yaml")
    with pytest.raises(FileNotFoundError, match=f"configs/{CONFIG.config_id}.yaml"):
        load_sweep(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "empty", "scribbled"])
@pytest.mark.parametrize("read", [load_sweep, stored_runs, compact])
def test_unreadable_file_is_named_with_the_remedy(tmp_path, damage, read):
    for i in range(3):
        write_runs(tmp_path, range(200 * i, 200 * i + 200))
    file = list_parts(tmp_path)[1] / "results.parquet"
    content = file.read_bytes()
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content = b""
    else:
        content = content[:4] + b"\xff" * 3000 + content[3004:]
    file.write_bytes(content)
    with pytest.raises(CorruptPart, match="Delete the folder") as error:
        read(tmp_path)
    assert str(file) in str(error.value)
    assert len(list_parts(tmp_path)) == 3


def test_folder_names_with_special_characters(tmp_path):
    store = tmp_path / "a=1,{b} 'c'*[d]%20"
    write_runs(store, [0])
    write_runs(store, [0], minute=1)
    assert load_sweep(store)["seed"].to_list() == [0]
    compact(store)
    assert load_sweep(store)["seed"].to_list() == [0]
    assert len(load_table(store, name="notes")) == 2


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path / "out", [0])
    assert load_sweep("out")["seed"].to_list() == [0]


def test_lazy_scan_reads_only_what_is_asked_for(tmp_path):
    """Works on parts with and without losers at once, also in batches."""
    write_runs(tmp_path, [*range(5), 9])
    write_runs(tmp_path, [7, 8])
    write_runs(tmp_path, [6, 9, 5])
    write_runs(tmp_path, [1, 9, 5], minute=1)
    lazy = scan_sweep(tmp_path).select("seed", last=pl.col("loss").list.last())
    assert "step" not in lazy.explain(optimized=True).split("PROJECT")[0]
    batches = pl.concat(lazy.collect_batches(chunk_size=2))
    assert sorted(batches.rows()) == [(i, i + 2.0) for i in range(10)]
