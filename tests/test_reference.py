"""The generated reference: nothing that is public is left out, and what it says is so."""

import importlib
import re
import subprocess
import sys

import pytest

from plugins.experiment import CONF

FAMILIES = ("dln", "memdyn", "qlora_probe", "compressor", "sublora")


@pytest.fixture(scope="module")
def pages(root):
    sys.path.insert(0, str(root / "docs/scripts"))
    import reference_pages

    sys.path.remove(str(root / "docs/scripts"))
    return reference_pages.pages(root)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_experiment_is_there_with_its_command_and_settings(pages, family):
    page = pages[f"experiments/{family}.md"]
    for path in CONF.glob(f"{family}/*.yaml"):
        [section] = [s for s in page.split("\n## ") if s.startswith(f"{path.stem}\n")]
        assert f"python sweep.py -cn={family}/{path.stem}" in section.split("```bash")[1]
        assert path.read_text().rpartition("\ndefaults:")[2].strip() in section.split("```yaml")[1]


@pytest.mark.parametrize("name", ["analysis", *(f"analysis.{family}" for family in FAMILIES)])
def test_every_public_name_of_analysis_is_there(pages, name):
    page = pages[f"api/{name}.md"]
    for public in importlib.import_module(name).__all__:
        assert re.search(rf"^::: [\w.]+\.{public}$", page, re.MULTILINE)


def test_keys_have_their_types_defaults_and_comments(pages):
    """By hand from the sources: of one line, of a line above, of a list, of another class."""
    assert (
        "| `training.lr` | `float` | `0.0001` | learning rate per step, finite, >= 0 |"
        in pages["keys/dln.md"]
    )
    assert (
        '| `model.init` | `str` | `"normal"` | normal; aligned: balanced and in the teacher\'s '
        "modes, all singular values h^(-gamma/2) |" in pages["keys/dln.md"]
    )
    assert '| `model_b.gamma` | `float` | `"${model.gamma}"` |' in pages["keys/dln.md"]
    assert "| `threads` | `int or null` | `1` |" in pages["keys/memdyn.md"]
    assert '| `lora.targets` | `list[str]` | `["q_proj", "k_proj",' in pages["keys/qlora_probe.md"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_of_a_run_is_there(pages, family):
    from omegaconf import OmegaConf

    from plugins.experiment import experiments
    from plugins.leaves import flatten

    for experiment in experiments(family):
        schema = OmegaConf.to_container(OmegaConf.structured(experiment.schema), resolve=False)
        filled = {key for key, value in flatten(schema).items() if value != {}}
        section = pages[f"keys/{family}.md"].split(f"\n## {experiment.name}\n")[1]
        assert {key for key in filled if f"| `{key}` |" not in section} == set()


def test_signs_of_a_text_are_shown(pages):
    assert "Needs the hub or model.path=&lt;folder>" in pages["experiments/memdyn.md"]
    assert "post_norm, pre_norm (after the last block), block_&lt;l>" in pages["keys/compressor.md"]


def test_modules_of_the_reference_are_files(root, pages):
    lines = [line for page in pages.values() for line in page.splitlines()]
    named = [line[4:] for line in lines if line.startswith("::: ")]
    assert "plugins.api" in named
    assert "dln.spectra" in named
    for name in named:
        path = root.joinpath(*name.split("."))
        is_module = path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
        assert is_module or path.parent.with_suffix(".py").is_file(), name


def test_making_the_reference_loads_no_torch(root):
    code = (
        "import sys; sys.path[:0] = ['docs/scripts', '.']\n"
        "from pathlib import Path\nfrom reference_pages import pages\n"
        "pages(Path('.'))\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
