"""The states that a compressor learns: extracted once and cached, or drawn from a spectrum."""

import hashlib
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor import column_arithmetic as column_arithmetic  # registers its corpus
from compressor import spectrum as spectra
from compressor.config import CORPUS, SYNTHETIC_DIM, TrainConfig, tiny
from compressor.extract import check_site, hidden_states
from compressor.sequences import Sequences, make_sequences
from compressor.spectra import parse_spectrum
from compressor.spectrum import Spectrum
from plugins.lm.cache import cached
from plugins.lm.corpora import iter_corpus
from plugins.lm.models import LM, fingerprint, load_lm, load_tokenizer
from plugins.lm.ranks import ALONE, World, launch


@dataclass(frozen=True)
class States:
    """States of one site on the tokens of one corpus, or synthetic ones."""

    train: Tensor  # [N, D] float32, perhaps memory-mapped
    heldout: Tensor
    spectrum: Spectrum
    sequences: Sequences | None  # whose kept tokens the rows are, in order; None of synthetic
    lm_sha256: str  # of what decides the language model; of synthetic states, their recipe
    corpus_sha256: str

    @property
    def dim(self) -> int:
        return self.train.shape[1]


def make_states(cfg: TrainConfig, site: str | None = None) -> States:
    """Of cfg.lm at its site, or another one. The language model runs where the cache lacks them.

    Raises ValueError for a corpus that is too small, a site that is not there, states that are not
    finite or all 0; OSError for a model or a corpus that cannot be read.
    """
    if cfg.lm.source == "synthetic":
        return _synthetic(cfg)
    site = site or cfg.lm.site
    sequences = make_sequences_of(cfg)
    identity = fingerprint(**_source(cfg))
    key = {
        "lm": identity,
        "site": site,
        "dtype": cfg.lm.dtype,
        "tokens": sequences.sha256(),
        "version": 1,
    }
    folder = cached("states", key, partial(_extract, cfg, site, sequences))
    X = torch.from_numpy(np.load(folder / "states.npy", mmap_mode="c"))
    if cfg.lm.dim not in (None, X.shape[1]):
        raise ValueError(f"lm.dim={cfg.lm.dim}: the states have {X.shape[1]} dimensions")
    n_train = int(sequences.n_kept()[: sequences.n_train].sum())
    train, heldout = X[:n_train], X[n_train:]

    def decompose(into: Path) -> None:
        spectra.save(spectra.spectrum(train, heldout, cfg.model.center), into)

    moments = {"states": key, "n_train": n_train, "center": cfg.model.center}
    spectrum = spectra.load(cached("spectra", moments, decompose))
    _check_not_zero(spectrum)
    sha256 = hashlib.sha256(identity.encode()).hexdigest()
    return States(train, heldout, spectrum, sequences, sha256, sequences.sha256())


def make_sequences_of(cfg: TrainConfig) -> Sequences:
    data = cfg.data
    corpus = data.corpus or CORPUS[cfg.stage]
    documents = iter_corpus(corpus, data.path, data.variant, data.seed)
    span = data.span or ("all" if cfg.stage == "1a" else "thinking")
    return make_sequences(documents, load_tokenizer(**_source(cfg)), data, span)


def load_model(cfg: TrainConfig, world: World = ALONE) -> LM:
    return load_lm(**_source(cfg), dtype=cfg.lm.dtype, device=str(world.device(cfg.device)))


def _source(cfg: TrainConfig) -> dict[str, Any]:
    lm = cfg.lm
    return {
        "source": lm.source,
        "path": lm.path,
        "revision": lm.revision,
        "tiny": tiny(),
        "section": "lm",
    }


def _extract(cfg: TrainConfig, site: str, sequences: Sequences, folder: Path) -> None:
    """states.npy [N, D] float32; seq_id, pos and token of each row in tokens.npz."""
    n = sum(map(len, sequences.ids))
    print(f"extracts {n} states at {site} of {len(sequences.ids)} sequences", file=sys.stderr)
    with TemporaryDirectory(dir=folder) as shards:
        if cfg.processes > 1:
            launch(extract_shard, (cfg, site, sequences, Path(shards)), cfg.processes)
        else:
            extract_shard(ALONE, cfg, site, sequences, Path(shards))
        files = sorted(Path(shards).iterdir(), key=lambda file: int(file.stem))
        if len(files) == 1:
            files[0].rename(folder / "states.npy")
        else:
            parts = [np.load(file, mmap_mode="r") for file in files]
            states = _memmap(folder / "states.npy", (sum(map(len, parts)), parts[0].shape[1]))
            np.concatenate(parts, out=states)
            states.flush()
    np.savez(
        folder / "tokens.npz",
        seq_id=np.repeat(np.arange(len(sequences.ids)), sequences.n_kept()),
        pos=np.concatenate([np.flatnonzero(keep) for keep in sequences.keep]),
        token=np.concatenate([i[k] for i, k in zip(sequences.ids, sequences.keep, strict=True)]),
    )


def extract_shard(
    world: World, cfg: TrainConfig, site: str, sequences: Sequences, folder: Path
) -> None:
    """Writes <number of its first sequence>.npy, of this rank's neighbouring sequences."""
    mine = np.array_split(np.arange(len(sequences.ids)), world.size)[world.rank]
    if not len(mine):
        return
    lm = load_model(cfg, world)
    check_site(site, len(lm.blocks))
    longest = max(len(sequences.ids[i]) for i in mine)
    most = lm.model.config.max_position_embeddings
    if longest > most:
        raise ValueError(f"data.max_len={longest}: the language model reads at most {most} tokens")
    ends = np.cumsum(sequences.n_kept()[mine])
    shape = int(ends[-1]), lm.model.config.hidden_size
    file = _memmap(folder / f"{mine[0]}.npy", shape)
    states = hidden_states(lm, [sequences.ids[i] for i in mine], site)
    for i, end, rows in zip(mine, ends, states, strict=True):
        if not rows.isfinite().all():
            where = f"sequence {i} (document {sequences.doc_id[i]})"
            raise ValueError(f"states of {where} at lm.site={site} are not finite")
        kept = rows[torch.from_numpy(sequences.keep[i])]
        file[end - len(kept) : end] = kept.numpy()
    file.flush()


def _memmap(file: Path, shape: tuple[int, int]) -> np.memmap:
    """A new .npy of float32 on the disk: states may take more than the memory."""
    return np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)


def _synthetic(cfg: TrainConfig) -> States:
    """Gaussian rows with the eigenvalues of lm.spectrum in a random rotation, and a random mean of
    norm lm.mean; all from data.seed. The last share data.heldout of them is held out."""
    lm, data = cfg.lm, cfg.data
    dim = lm.dim or SYNTHETIC_DIM
    eigenvalues = parse_spectrum(lm.spectrum)(dim)
    n_heldout = heldout_rows(cfg)
    generator = torch.Generator().manual_seed(data.seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rotation, direction = torch.linalg.qr(draw(dim, dim)).Q, draw(dim)
    mean = lm.mean * direction / direction.norm()
    X = (mean + draw(lm.rows, dim) * eigenvalues.sqrt() @ rotation.T).float()
    train, heldout = X[:-n_heldout], X[-n_heldout:]
    recipe = [lm.rows, dim, eigenvalues.tolist(), lm.mean, data.seed]
    sha256 = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    spectrum = spectra.spectrum(train, heldout, cfg.model.center)
    _check_not_zero(spectrum)
    return States(train, heldout, spectrum, None, sha256, sha256)


def heldout_rows(cfg: TrainConfig) -> int:
    """Of synthetic states; at least one on each side."""
    return min(max(1, round(cfg.lm.rows * cfg.data.heldout)), cfg.lm.rows - 1)


def _check_not_zero(spectrum: Spectrum) -> None:
    rounding = 1e-24 * spectrum.mean.square().sum()
    if not spectrum.C.trace() > rounding:
        raise ValueError("all states of the train split are 0, or equal where model.center=mean")
