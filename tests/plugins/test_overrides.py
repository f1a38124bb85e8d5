import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from plugins.overrides import complete_name, quoted, translate_argv, translate_override
from plugins.registry import UnknownName

EXPERIMENTS = ["dln/gph", "dln/smoke", "memdyn/memdyn", "memdyn/quick", "sub/quick"]


@pytest.mark.parametrize(
    ("typed", "hydra"),
    [
        ("k=0..100", "k=range(0,100,1)"),
        ("k=0..100..10", "k=range(0,100,10)"),
        ("k=-3..2", "k=range(-3,2,1)"),
        ("k=5..0..-1", "k=range(5,0,-1)"),
        ("k=0..3,7", "k=0,1,2,7"),
        ("k=none", "k=null"),
        ("k=None,5", "k=null,5"),
        ("k=nonesuch", "k=nonesuch"),
        ("k=../x", "k=../x"),
        ("k=../x..y", "k=../x..y"),
        ("k='0..3'", "k='0..3'"),
        ("k=[0..3]", "k=[0..3]"),
        ("k=[none,1],2", "k=[none,1],2"),
        ("k=1e-4,10", "k=1e-4,10"),
        ("k=wait...", "k=wait..."),
        ("k=range(0,9,2)", "k=range(0,9,2)"),
        ("k={a:1,b:2},{a:3}", "k={a:1,b:2},{a:3}"),
        ("+k=0..3", "+k=range(0,3,1)"),
        ("~k", "~k"),
        ("k=", "k="),
    ],
)
def test_values_become_hydras(typed, hydra):
    assert translate_override(typed) == hydra


@pytest.mark.parametrize("value", ["0.5..1", "0..1.5", "1..b", "a..3", "0..4..x", "0..3..0"])
def test_ranges_that_are_no_integers_are_refused(value):
    with pytest.raises(ValueError, match=r"range"):
        translate_override(f"k={value}")


@pytest.mark.parametrize("value", ["5..5", "5..2", "0..3..-1", "1,5..5"])
def test_empty_ranges_are_refused(value):
    with pytest.raises(ValueError, match="empty"):
        translate_override(f"k={value}")


@pytest.mark.parametrize(
    ("typed", "hydra"),
    [
        (["-cn=gph", "a=1"], ["--config-name=dln/gph", "--multirun", "a=1"]),
        (["a=1", "-cn=gph", "b=2"], ["--config-name=dln/gph", "--multirun", "a=1", "b=2"]),
        (["-cn=gph", "-m", "--output=x"], ["--config-name=dln/gph", "-m", "hydra.sweep.dir='x'"]),
        (["-cn", "gph"], ["--config-name=dln/gph", "--multirun"]),
        (["--config-name=dln/gph"], ["--config-name=dln/gph", "--multirun"]),
        (["-cn=gph", "--cfg", "job"], ["--config-name=dln/gph", "--cfg", "job"]),
        (["-cd", "my/conf", "-cn=gph"], ["-cd", "my/conf", "--config-name=dln/gph", "--multirun"]),
        (["-cn=gph", "hydra.mode=RUN"], ["--config-name=dln/gph", "hydra.mode=RUN"]),
        (["-cn=gph", "-m"], ["--config-name=dln/gph", "-m"]),
        (["--workers=1"], ["hydra.sweeper.units=1"]),
        (["--workers", "3"], ["hydra.sweeper.workers=3"]),
        (
            ["hydra/launcher=joblib", "--workers=3"],
            ["hydra/launcher=joblib", "hydra.sweeper.units=3"],
        ),
        (["--jobs=8"], ["hydra.sweeper.units=8"]),
        (["--zip=a,b", "--zip", "c,d"], ["hydra.sweeper.zip=[[a,b],[c,d]]"]),
        (["--output", "a b"], ["hydra.sweep.dir='a b'"]),
        (
            ["--rerun", "a=1", "b=2..4", "--dry-run"],
            ["hydra.sweeper.rerun=['a=1','b=range(2,4,1)']", "hydra.sweeper.dry_run=true"],
        ),
        (["--rerun=a=1", "b=2"], ["hydra.sweeper.rerun=['a=1']", "b=2"]),
        (["--fail-fast"], ["hydra.sweeper.fail_fast=true"]),
        (["--detach"], ["hydra.sweeper.detach=true"]),
    ],
)
def test_flags_become_hydras(typed, hydra):
    """The command line's surface: what is listed here keeps its meaning."""
    assert translate_argv(typed, EXPERIMENTS) == hydra


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (["a=1", "a=2"], "a is given twice"),
        (["a=1", "+a=2"], "a is given twice"),
        (["--workers=0"], "--workers takes a whole number >= 1"),
        (["--workers=two"], "--workers takes a whole number >= 1"),
        (["--workers"], "--workers needs a value"),
        (["--output", "--dry-run"], "--output needs a value"),
        (["--rerun"], "--rerun needs k=v"),
        (["--workers=2", "--jobs=2"], "exclude each other"),
        (["-cn=gph", "hydra.mode=RUN", "--dry-run"], "--dry-run works with our sweeper only"),
        (["hydra/sweeper=basic", "--rerun", "a=1"], "--rerun works with our sweeper only"),
        (["--output=a%j"], "would expand"),
        (["--worker=2"], "there is no flag --worker; did you mean '--workers'"),
        (["--dryrun"], "did you mean '--dry-run'"),
        (["gph", "a=1"], "an experiment is named by -cn=gph"),
        (["--output=a${b}"], "would expand"),
        (["-cn=gpg"], "did you mean 'gph'"),
        (["-cn=quick"], "ambiguous: memdyn/quick or sub/quick"),
    ],
)
def test_bad_flags_are_refused(typed, text):
    with pytest.raises(ValueError, match=text):
        translate_argv(typed, EXPERIMENTS)


def test_a_familys_name_alone_is_its_file_of_that_name():
    assert complete_name("memdyn", EXPERIMENTS) == "memdyn/memdyn"
    with pytest.raises(UnknownName, match="known: gph, memdyn, quick, smoke"):
        complete_name("xyz", EXPERIMENTS)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1))
def test_quoted_text_is_what_hydra_reads(text):
    """Any directory name survives Hydra's override grammar."""
    [override] = OverridesParser.create().parse_overrides([f"k={quoted(text)}"])
    assert override.value() == text
