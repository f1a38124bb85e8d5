"""Tasks on codes: sequences of input codes and of the codes to be predicted."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from compressor import spectrum as spectra
from compressor.config import rank_of, shape
from compressor.model import Compressor, continued
from compressor.spectrum import Spectrum
from compressor.states import States, load_model, make_states
from compressor.trm_check import check_from_site, middle
from compressor.trm_config import TrmConfig, states_config
from plugins.lm.splits import split_documents


@dataclass(frozen=True)
class Task:
    """Codes of n sequences, padded with 0 at their ends; the first n_train are for training.

    Inputs and targets are about their means over the train split, in units of one number each: the
    root of the mean variance of their dimensions there.
    """

    inputs: Tensor  # [n, L, k] float32
    targets: Tensor  # [n, L, k]
    copies: Tensor  # [n, L, k], the inputs' states as codes of the target, in the targets' units
    mask: Tensor  # bool [n, L]: positions that are there
    n_train: int
    mean: Tensor  # [k] of the targets' codes
    scale: float  # unit of the targets
    compressor: Compressor  # states of the target -> its codes
    states: States | None  # of the target; None of pairs
    from_site: str | None = None

    @property
    def k(self) -> int:
        return self.inputs.shape[-1]

    @property
    def length(self) -> int:
        return self.inputs.shape[1]

    def sha256(self) -> str:
        """Of all codes."""
        found = hashlib.sha256(repr((self.n_train, *self.inputs.shape)).encode())
        for codes in (self.inputs, self.targets):
            found.update(codes.numpy().tobytes())
        return found.hexdigest()

    def codes(self, normalised: Tensor) -> Tensor:
        """Of targets or predictions of them, in the compressor's own units."""
        return self.mean + self.scale * normalised


def make_task(cfg: TrmConfig, store: Path) -> Task:
    """Raises ValueError for states, a checkpoint or a file that do not fit, OSError for a model or
    a corpus that cannot be read."""
    if cfg.task == "pairs":
        return _pairs(cfg)
    source = states_config(cfg)
    states = make_states(source)
    compressor = target_compressor(cfg, states, store)
    n_kept, n_train = states.sequences.n_kept().tolist(), states.sequences.n_train
    z = _by_sequence(states, compressor, n_kept)
    if cfg.task == "next":
        n_train = sum(n > 1 for n in n_kept[:n_train])
        z = [one for one in z if len(one) > 1]
        before, after = [one[:-1] for one in z], [one[1:] for one in z]
        return _task(before, after, before, n_train, compressor, states)
    n_blocks = (shape(source) or (None, None))[1] or _n_blocks(cfg)
    from_site = cfg.trm.from_site or middle(n_blocks)
    check_from_site(from_site, cfg.lm.site, n_blocks)
    inputs = make_states(source, site=from_site)
    own = pca(inputs.spectrum, compressor.k)
    z_from = _by_sequence(inputs, own, n_kept)
    copies = _by_sequence(inputs, compressor, n_kept)
    return _task(z_from, z, copies, n_train, compressor, states, from_site)


def pca(spectrum: Spectrum, k: int) -> Compressor:
    return Compressor(spectrum.leading(k).float(), spectrum.offset.float())


def target_compressor(cfg: TrmConfig, states: States, store: Path) -> Compressor:
    """PCA of the target's site, or the checkpoint of train.init_from."""
    k = rank_of(cfg.model.d_compressed, cfg.model.ratio, states.dim)
    if cfg.train.init_from is None:
        return pca(states.spectrum, k)
    return continued(cfg, k, states.dim, store)


def read_pairs(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """pre and post [n, L, D] float32, length [n]. Raises ValueError for what is no such file."""
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"data.path={path} is no .npz file of arrays: {error}") from error
    found = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    pre, post = arrays.get("pre"), arrays.get("post")
    if pre is None or post is None or pre.ndim != 3 or pre.shape != post.shape:
        raise ValueError(f"data.path={path} needs arrays pre and post [n, L, D]; it has {found}")
    length = arrays.get("length", np.full(len(pre), pre.shape[1]))
    if length.shape != pre.shape[:1] or not (
        np.issubdtype(length.dtype, np.integer) and ((length >= 1) & (length <= pre.shape[1])).all()
    ):
        raise ValueError(
            f"data.path={path}: length must be {len(pre)} integers in 1..{pre.shape[1]}; it has "
            f"{found}"
        )
    for name, array in (("pre", pre), ("post", post)):
        for i, n in enumerate(length):
            if not np.isfinite(array[i, :n]).all():
                raise ValueError(f"data.path={path}: sequence {i} of {name} is not finite")
    return pre.astype(np.float32), post.astype(np.float32), length


def _pairs(cfg: TrmConfig) -> Task:
    pre, post, length = read_pairs(Path(cfg.data.path).expanduser())
    order = split_documents([str(i) for i in range(len(pre))], cfg.data.heldout, cfg.data.seed)
    order, n_train = np.concatenate(order), len(order[0])
    k = rank_of(cfg.model.d_compressed, cfg.model.ratio, pre.shape[2])
    sequences, compressors = {}, {}
    for name, array in (("pre", pre), ("post", post)):
        states = [torch.from_numpy(array[i, : length[i]]) for i in order]
        train, heldout = torch.cat(states[:n_train]), torch.cat(states[n_train:])
        sequences[name] = states
        compressors[name] = pca(spectra.spectrum(train, heldout, cfg.model.center), k)
    own, target = compressors["pre"], compressors["post"]
    return _task(
        [own.compress(x) for x in sequences["pre"]],
        [target.compress(x) for x in sequences["post"]],
        [target.compress(x) for x in sequences["pre"]],
        n_train,
        target,
        None,
    )


def _n_blocks(cfg: TrmConfig) -> int:
    return len(load_model(states_config(cfg)).blocks)


def _by_sequence(states: States, compressor: Compressor, n_kept: list[int]) -> list[Tensor]:
    """Codes [n, k] of each sequence, the training ones first."""
    return list(compressor.compress(torch.cat([states.train, states.heldout])).split(n_kept))


def _task(
    inputs: list[Tensor],
    targets: list[Tensor],
    copies: list[Tensor],
    n_train: int,
    compressor: Compressor,
    states: States | None,
    from_site: str | None = None,
) -> Task:
    if n_train < 2:
        raise ValueError(
            f"{n_train} sequence to train on: ridge needs two, one for the choice of its penalty"
        )
    (z, _, _), (target, mean, scale) = (_normalised(codes, n_train) for codes in (inputs, targets))
    lengths = torch.tensor([len(one) for one in inputs])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return Task(
        inputs=pad_sequence(z, batch_first=True),
        targets=pad_sequence(target, batch_first=True),
        copies=pad_sequence([(one - mean) / scale for one in copies], batch_first=True),
        mask=mask,
        n_train=n_train,
        mean=mean,
        scale=scale,
        compressor=compressor,
        states=states,
        from_site=from_site,
    )


def _normalised(codes: list[Tensor], n_train: int) -> tuple[list[Tensor], Tensor, float]:
    """With their mean [k] over the train split, and the root of their mean variance there."""
    train = torch.cat(codes[:n_train]).double()
    mean = train.mean(0)
    scale = (train - mean).square().mean().sqrt().item()
    if not scale > 1e-6 * train.square().mean().sqrt().item():
        raise ValueError("the codes of the train split are all the same: nothing to predict")
    return [((one - mean) / scale).float() for one in codes], mean.float(), scale
