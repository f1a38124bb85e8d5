"""Speed of the family memdyn: each of its own ways beside the plain one, and a whole quick run.

    python benchmarks/memdyn.py [--reproduction] [--variance] [--neighbours] [--pipeline]

Prints all tables, or only those named. Passages and states are those of the quick mode, at epoch 0.
Two ways take turns, one thread each, and the median of their CPU times counts; a way that takes
long is timed on a few passages and its time scaled to all. About four minutes.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from tempfile import TemporaryDirectory

os.environ["OMP_NUM_THREADS"] = "1"  # of scikit-learn, too, and of child processes

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # before this folder, where `memdyn` is this file

from memdyn.config import TrainConfig, measured_positions, prompt_length  # noqa: E402
from memdyn.data import make_passages  # noqa: E402
from memdyn.model import make_model, make_tokenizer  # noqa: E402
from memdyn.neighbours import nearest_neighbours, neighbour_variance  # noqa: E402
from memdyn.reproduction import reproduce, teacher_forced  # noqa: E402
from memdyn.states import recording_states  # noqa: E402
from plugins.experiment import CONF, import_family  # noqa: E402
from plugins.instances import instantiate  # noqa: E402
from plugins.lm.corpora import load_corpus  # noqa: E402
from plugins.lm.models import LM  # noqa: E402
from plugins.load import load_sweep  # noqa: E402

ROUNDS = 3
K = 15
Way = Callable[[], object]


def quick(*overrides: str) -> tuple[TrainConfig, LM, Tensor]:
    """The quick mode's config, its model before training, and its passages [2N, T]."""
    import_family("memdyn")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("memdyn/memdyn_quick", list(overrides))
    cfg = instantiate(OmegaConf.to_container(config, resolve=True), TrainConfig)
    documents = load_corpus(cfg.data.corpus, cfg.data.path, cfg.data.variant)
    passages = make_passages(documents, make_tokenizer(cfg, documents), cfg.data)
    return cfg, make_model(cfg, torch.device("cpu")), torch.from_numpy(passages.ids)


def hidden_states(*overrides: str) -> list[Tensor]:
    cfg, lm, ids = quick(*overrides)
    with recording_states(lm, measured_positions(cfg)) as states:
        teacher_forced(lm.model, ids, prompt_length(cfg), batch=cfg.eval_batch)
    return [torch.cat(parts) for parts in states]


def seconds(way: Way) -> float:
    start = time.process_time()
    way()
    return time.process_time() - start


def in_turns(*ways: Way, rounds: int = ROUNDS) -> list[float]:
    """Median seconds of each."""
    times = [[seconds(way) for way in ways] for _ in range(rounds)]
    return [median(of_way) for of_way in zip(*times, strict=True)]


def compare(what: str, ours: float, theirs: dict[str, float]) -> None:
    print(f"{what:<44} ours {ours:9.4f} s")
    for name, took in theirs.items():
        print(f"    {name:<40}      {took:9.4f} s   {took / ours:6.1f} x", flush=True)


def reproduction() -> None:
    cfg, lm, ids = quick()
    prompt, n = prompt_length(cfg), len(ids)

    def ours(batch: int, some: int = n) -> Tensor:
        return reproduce(lm.model, ids[:some], prompt, batch=batch)

    def generate(use_cache: bool, some: int) -> Tensor:
        rows = []
        for row in ids[:some, None, :prompt]:
            rows.append(
                lm.model.generate(
                    row,
                    attention_mask=torch.ones_like(row),
                    do_sample=False,
                    min_new_tokens=ids.shape[1] - prompt,
                    max_new_tokens=ids.shape[1] - prompt,
                    use_cache=use_cache,
                    pad_token_id=0,
                )
            )
        return torch.cat(rows)[:, prompt:]

    found = ours(cfg.eval_batch)
    same = {
        "batch 1": (ours(1, 10), 10),
        "generate()": (generate(True, 10), 10),
        "generate() without a cache": (generate(False, 4), 4),
    }
    for name, (tokens, some) in same.items():
        assert torch.equal(tokens, found[:some]), name
    batched, single, cached, uncached = in_turns(
        lambda: ours(cfg.eval_batch),
        lambda: ours(1, 10),
        lambda: generate(True, 10),
        lambda: generate(False, 2),
    )
    compare(
        f"reproduction, {n} x {ids.shape[1] - prompt} tokens, identical",
        batched,
        {
            "a passage at a time, cache": single * n / 10,
            "a passage at a time, generate()": cached * n / 10,
            "a passage at a time, no cache": uncached * n / 2,
        },
    )


def variance() -> None:
    states = hidden_states()
    for n in (4096, len(states[0])):
        X, Y = states[1][:n], states[2][:n]
        neighbours = nearest_neighbours(X, K)

        def gathered(Y: Tensor = Y, neighbours: Tensor = neighbours) -> Tensor:
            return Y[neighbours].var(1, correction=0).sum(1)

        def ours(Y: Tensor = Y, neighbours: Tensor = neighbours) -> Tensor:
            return neighbour_variance(Y, neighbours)

        torch.testing.assert_close(ours(), gathered(), rtol=1e-4, atol=1e-5)
        fast, slow = in_turns(ours, gathered, rounds=9)
        compare(f"neighbour variance, {n} x {Y.shape[1]}", fast, {"gather and var": slow})


def neighbours() -> None:
    X = hidden_states("position_stride=1")[2]

    def theirs(algorithm: str, some: int) -> Tensor:
        search = NearestNeighbors(n_neighbors=K + 1, algorithm=algorithm).fit(X.numpy())
        return torch.from_numpy(search.kneighbors(X[:some].numpy(), return_distance=False))

    def ours() -> Tensor:
        return nearest_neighbours(X, K)

    def distances(neighbours: Tensor) -> Tensor:
        return (X[neighbours] - X[:, None]).norm(dim=2).sort(1).values

    n = len(X)
    found = distances(theirs("brute", n))[:, 1:]  # without the row itself
    torch.testing.assert_close(distances(ours()), found, rtol=1e-4, atol=1e-6)
    fast, brute, *trees = in_turns(
        ours,
        lambda: theirs("brute", n),
        lambda: theirs("kd_tree", n // 10),
        lambda: theirs("ball_tree", n // 10),
    )
    slow = {"brute": brute} | {
        f"{name}_tree": 10 * took for name, took in zip(("kd", "ball"), trees, strict=True)
    }
    compare(
        f"{K} neighbours, {n} x {X.shape[1]}, distances to 1e-4",
        fast,
        {f"scikit-learn, {name}": took for name, took in slow.items()},
    )


def pipeline() -> None:
    """From the shell: `python sweep.py -cn=memdyn_quick`."""
    with TemporaryDirectory() as folder:
        before, start = getrusage(RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, str(ROOT / "sweep.py"), "-cn=memdyn_quick", f"--output={folder}/s"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        )
        wall, after = time.perf_counter() - start, getrusage(RUSAGE_CHILDREN)
        row = load_sweep(Path(folder) / "s").row(0, named=True)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"sweep.py -cn=memdyn_quick: {wall:.1f} s, {cpu:.1f} s of CPU")
    parts = {name: row[f"seconds_{name}"] for name in ("train", "eval", "geometry")}
    parts["the rest: imports, tokenizer, analyses"] = wall - sum(parts.values())
    for name, took in parts.items():
        print(f"    {name:<40}      {took:9.1f} s   {took / wall:6.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = (reproduction, variance, neighbours, pipeline)
    for table in tables:
        parser.add_argument(f"--{table.__name__}", action="store_true")
    asked = vars(parser.parse_args())
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, one thread")
    for table in tables:
        if asked[table.__name__] or not any(asked.values()):
            table()


if __name__ == "__main__":
    main()
