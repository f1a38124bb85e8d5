"""Callbacks of a run: what they are told, and Weights & Biases offline."""

from sublora_cases import config, run

from sublora import registry


def test_callback_is_told_every_record_and_the_end(folder, tmp_path):
    told = []

    @registry.register_callback("tell")
    class Tell:
        def __init__(self, mark):
            self.mark = mark

        def record(self, run, step, values):
            told.append((self.mark, run.config["seed"], step, dict(values)))

        def end(self, run, scalars, files):
            told.append((scalars, [file.name for file in files]))

    result = run(config(folder, seed=5, callbacks=[{"tell": {"mark": "!"}}]), tmp_path)
    *records, (scalars, files) = told
    assert [record[:2] for record in records] == [("!", 5)] * 21
    assert [record[2] for record in records] == result.curves["step"]
    assert [record[3]["val_loss"] for record in records] == result.curves["val_loss"]
    assert scalars == result.scalars
    assert files == ["best.pt", "message.bin", "config.yaml", "bounds_metrics.pt"]


def test_run_of_wandb(folder, tmp_path, wandb_logs):
    """Offline: a file of its own, with its name in it."""
    spec = {"wandb": {"project": "some-project", "name": "some-name", "mode": "offline"}}
    run(config(folder, callbacks=[spec], train={"steps": 2}), tmp_path)
    [log] = wandb_logs()
    content = log.read_bytes()
    for name in (b"some-project", b"some-name", b"val_loss", b"bound_value", b"message.bin"):
        assert name in content
