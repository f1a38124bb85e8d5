"""Every config file composes, passes its checks and runs; its header says what it is for."""

import pytest

from plugins import api
from plugins.catalog import experiment_headers
from plugins.experiment import CONF
from plugins.load import load_sweep

OWN = sorted(name for name in experiment_headers() if (CONF / f"{name}.yaml").exists())
SHORT = {
    "dln": ["max_steps=4", "num_evaluations=2"],
    "memdyn": [
        "model={source:tiny,path:null,layers:2,width:8,vocab:257}",
        "data={n_passages:5,length:20}",
        "schedule.epochs=[0,2,4]",
    ],
    "qlora_probe": ["data.n_examples=2", "eval.n=0", "eval.suite=null"],
    "compressor": [
        "lm={source:synthetic,path:null,dtype:float32,rows:640,dim:256}",
        "eval={downstream:false,every:null}",
        "train.max_epochs=2",
        "train.batch=256",
        "data.corpus=null",
    ],
    "sublora": [
        "train={steps:4,batch:2,warmup:1,tokens_per_step:null}",
        "model={n_layer:2,n_head:2,n_embd:16,block:16}",
        "quant.qat_steps=2",
        "subspace.d=30,40",
        "bound.n=50",
        "device=cpu",
    ],
    "compressor/compressor_trm": [
        "data={n_seq:8,max_len:16,heldout:.5}",
        "trm={n:1,rounds:1,n_sup:2,ema:.9}",
        "train={batch:2,max_epochs:1}",
    ],
}


def test_every_file_of_conf_is_an_experiment_or_known_otherwise():
    files = {str(path.relative_to(CONF).with_suffix("")) for path in CONF.rglob("*.yaml")}
    launchers = {"hydra/launcher/slurm", "hydra/launcher/slurm_gpu"}
    modes = {f"memdyn/mode/{mode}" for mode in ("quick", "standard", "deep")}
    assert files - set(OWN) == {"base"} | launchers | modes


@pytest.mark.parametrize("name", OWN)
def test_the_header_asks_a_question_and_names_the_command(name):
    lines = (CONF / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    header = [line for line in lines if line.startswith("#")]
    assert len(header[1]) > 20, "the listing shows this line"
    assert any(f"python sweep.py -cn={name}" in line for line in header)
    assert f"defaults: [/{name.split('/')[0]}/schema/" in "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_every_experiment_runs(name, tmp_path):
    """Shortened, the axes of the file included: planned, checked, run, stored."""
    short = SHORT.get(name) or SHORT[name.split("/")[0]]
    report = api.sweep(name, short, output=tmp_path)
    assert report.complete
    assert report.ok == report.planned > 0
    frame = load_sweep(tmp_path)
    # one update or two, by the batches; a step after each round of supervision
    if not name.startswith(("qlora_probe/", "sublora/", "compressor/compressor_trm")):
        assert frame["step"].to_list() == [[0, 2, 4]] * report.planned
