"""Runs that are evaluated again: the same bound, or another of the same model."""

import shutil

import pytest
from sublora_cases import VARIANTS, config, file, run


def again(one, folder, tmp_path, **changes):
    variant = VARIANTS[one.result.scalars["mode"]]
    merged = dict(variant) | {
        key: variant.get(key, {}) | value if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    cfg = config(folder, eval_from=str(file(one.result, "best.pt")), **merged)
    return run(cfg, tmp_path)


def test_same_settings_find_the_same_bound_without_training(one, folder, tmp_path):
    result = again(one, folder, tmp_path)
    row = {k: v for k, v in one.result.scalars.items() if not k.startswith("seconds_")}
    assert {k: v for k, v in result.scalars.items() if not k.startswith("seconds_")} == row
    assert result.curves == {}
    if one.cfg.allocation.name == "learned":
        last = {name: column[-3:] for name, column in one.result.tables["gates"].items()}
        again_at = {"step": [row["best_step"]] * 3}
        assert result.tables["gates"] == last | again_at
    message = file(result, "message.bin").read_bytes()
    assert message == file(one.result, "message.bin").read_bytes()


@pytest.mark.parametrize(
    "bound", [{"alphas": [0.1]}, {"n": 300}, {"level": "token"}, {"delta": 0.5}], ids=str
)
def test_other_settings_of_the_bound_leave_the_message_as_it_is(ended, folder, tmp_path, bound):
    one = ended("learned")
    result = again(one, folder, tmp_path, bound=bound)
    for name in ("compressed_size_bits", "val_bpd"):
        assert result.scalars[name] == one.result.scalars[name]
    assert result.scalars["bound_value"] != one.result.scalars["bound_value"]
    message = file(result, "message.bin").read_bytes()
    assert message == file(one.result, "message.bin").read_bytes()


def test_more_levels_are_more_bits_nearer_to_what_was_trained(ended, folder, tmp_path):
    one = ended("uniform")
    result = again(one, folder, tmp_path, quant={"levels": 60})
    assert result.scalars["bpd_fp"] == one.result.scalars["bpd_fp"]
    assert result.scalars["compressed_size_bits"] > one.result.scalars["compressed_size_bits"] + 900
    errors = [abs(r.scalars["bpd_raw"] - r.scalars["bpd_fp"]) for r in (result, one.result)]
    assert errors[0] < errors[1] / 2


def test_learning_rate_and_steps_leave_the_kl_of_the_same_w_as_it_is(ended, folder, tmp_path):
    one = ended("uniform")
    result = again(one, folder, tmp_path, train={"lr": 0.5, "steps": 7})
    for name in ("kl_divergence", "bound_value", "search_bits"):
        assert result.scalars[name] == one.result.scalars[name]


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("seed", {"seed": 1}),
        (r"subspace\.d", {"subspace": {"d": 50}}),
        (r"subspace\.projector", {"subspace": {"projector": "sparse"}}),
        (r"allocation\.name", {"allocation": {"name": "fixed_0.4"}}),
        (r"model\.n_layer", {"model": {"n_layer": 3}}),
        (r"model\.lora_alpha", {"model": {"lora_alpha": 16.0}}),
    ],
)
def test_what_the_prior_knows_cannot_change(ended, folder, tmp_path, key, changes):
    with pytest.raises(ValueError, match=rf"eval_from=.*best\.pt: its {key} is "):
        again(ended("uniform"), folder, tmp_path, **changes)


def test_another_training_set_is_refused_by_its_key(ended, folder, tmp_path):
    one = ended("uniform")
    shutil.copytree(folder, tmp_path / "other")
    with pytest.raises(ValueError, match=r"its data\.dir is "):
        again(one, tmp_path / "other", tmp_path)


def test_run_is_found_in_its_store_by_its_id(ended, folder, tmp_path):
    one = ended("uniform")
    kept = tmp_path / "artifacts" / "abc"
    kept.mkdir(parents=True)
    shutil.copy(file(one.result, "best.pt"), kept)
    result = run(config(folder, eval_from="abc"), tmp_path)
    assert result.scalars["bound_value"] == one.result.scalars["bound_value"]
    with pytest.raises(ValueError, match="eval_from=abd: neither a run of"):
        run(config(folder, eval_from="abd"), tmp_path)


def test_damaged_best_pt_is_named(folder, tmp_path):
    path = tmp_path / "best.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"best\.pt is no best\.pt of sublora"):
        run(config(folder, eval_from=str(path)), tmp_path)
