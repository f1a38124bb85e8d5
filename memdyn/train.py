"""The experiment `memdyn/train`: fine-tune on N passages, measure at chosen epochs."""

import copy
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch

from memdyn import callbacks as callbacks  # registers them
from memdyn.config import TrainConfig
from memdyn.data import make_passages
from memdyn.measure import Evaluation, Seconds
from memdyn.model import make_model, make_tokenizer
from memdyn.outcome import outcome, report
from memdyn.records import Records
from memdyn.summary import append_summary, summary_rows, write_summary
from memdyn.trainer import Diverged, Trainer
from plugins.lm.checkpoints import Checkpoints
from plugins.lm.corpora import load_corpus
from plugins.lm.devices import resolve_device
from plugins.result import RunResult

SUMMARY, REPORT = "training_summary.csv", "summary_report.txt"
_MEMORY = ("out of memory", "allocate memory", "not enough memory")  # in torch's RuntimeErrors
_OUT_OF_MEMORY = (
    "out of memory ({}); lower micro_batch, eval_batch or data.length, take a smaller model, or "
    "model.dtype=bfloat16; with another micro_batch or eval_batch the same command goes on from "
    "the last measured epoch"
)


def run(
    cfg: TrainConfig, workdir: Path, on_progress: Callable[[float], None] | None = None
) -> RunResult:
    """One run, resumed from the workdir's last checkpoint.

    Its tables: passages, passage_layers, layers; its files: training_summary.csv and
    summary_report.txt, which grow in the workdir with every measured epoch. On the CPU with one
    thread an interrupted run ends with the numbers of an uninterrupted one, bit for bit.
    Raises ValueError when the corpus is too small, OSError for a model, a corpus or a hub that
    cannot be read, MemoryError saying what to lower.
    """
    documents = load_corpus(cfg.data.corpus, cfg.data.path, cfg.data.variant)
    tokenizer = make_tokenizer(cfg, documents)
    passages = make_passages(documents, tokenizer, cfg.data)
    device = resolve_device(cfg.device)
    workdir.mkdir(parents=True, exist_ok=True)
    with _explaining_out_of_memory():
        lm = make_model(cfg, device)
        evaluation = Evaluation(cfg, lm, passages, tokenizer.eos_token_id)
        digests = {"data_sha256": passages.sha256(), "model_sha256": lm.sha256()}
        checkpoints = Checkpoints(workdir, "epoch", cfg.checkpoint.keep, list(digests.values()))
        records, seconds, state = Records(), Seconds(), checkpoints.load()
        if state:
            records, seconds = Records(state["records"]), Seconds(**state["seconds"])
            evaluation.nan_states = state["nan_states"]
            print(f"goes on after epoch {records.epochs[-1]}", file=sys.stderr)
        print(f"{workdir / SUMMARY} and {REPORT} beside it grow with every epoch", file=sys.stderr)
        write_summary(workdir / SUMMARY, summary_rows(records, cfg.threshold))
        if records.epochs:
            (workdir / REPORT).write_text(report(cfg, records))

        restarts = cfg.schedule.mode == "restart"
        initial = copy.deepcopy(lm.model.state_dict()) if restarts else {}
        ids = evaluation.ids[: passages.n]
        trainer, diverged = Trainer(cfg, lm, ids, cfg.schedule.epochs[-1]), None
        if state and not restarts:
            trainer.load_state(state["trainer"])
        total = sum(cfg.schedule.epochs) if restarts else cfg.schedule.epochs[-1]
        for epoch in cfg.schedule.epochs[len(records.epochs) :]:
            if restarts:
                lm.model.load_state_dict(initial)
                trainer = Trainer(cfg, lm, ids, epoch)
            before = sum(records.epochs) if restarts else 0
            start, loss = time.perf_counter(), None
            try:
                while trainer.epoch < epoch:
                    loss = trainer.train_epoch()
                    if on_progress:
                        on_progress((before + trainer.epoch) / total)
            except Diverged as error:
                diverged = error
                break
            seconds.train += time.perf_counter() - start
            evaluation.measure(lm, epoch, records, seconds)
            extras = {
                "epoch": epoch,
                "train_loss": loss,
                "lr": trainer.lr,
                "seconds": round(time.perf_counter() - start, 3),
                "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            records.append("epochs", extras)
            append_summary(workdir / SUMMARY, summary_rows(records, cfg.threshold)[-1])
            (workdir / REPORT).write_text(report(cfg, records))
            checkpoints.save(
                epoch,
                {
                    "trainer": trainer.state(),
                    "records": records.tables,
                    "seconds": asdict(seconds),
                    "nan_states": evaluation.nan_states,
                },
            )
    kept = checkpoints.files() if cfg.checkpoint.keep == "all" else []
    result = outcome(
        cfg,
        passages,
        records,
        scalars={
            **{f"seconds_{name}": value for name, value in asdict(seconds).items()},
            "n_params": sum(p.numel() for p in lm.model.parameters()),
            "nan_states": evaluation.nan_states,
            **digests,
        },
        diverged=diverged,
        artifacts=[workdir / SUMMARY, workdir / REPORT, *kept],
    )
    if result.status == "diverged":
        (workdir / REPORT).write_text(report(cfg, records, diverged=True))
    return result


@contextmanager
def _explaining_out_of_memory() -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # On the CPU torch raises a bare RuntimeError, as for much else.
        if not isinstance(error, RuntimeError) or any(s in str(error) for s in _MEMORY):
            reason = (str(error).splitlines() or ["no more to be had"])[0]
            raise MemoryError(_OUT_OF_MEMORY.format(reason)) from error
        raise
