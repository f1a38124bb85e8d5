"""What the curves of our families are, and in which unit: the labels of axes."""

import re
from collections.abc import Mapping
from typing import Any

import polars as pl

_CRITERION = "<criterion>"
_CRITERIA = {
    "MSELoss": "mean squared error",
    "L1Loss": "mean absolute error",
    "SmoothL1Loss": "smooth L1",
    "HuberLoss": "Huber",
}
_UPDATES = {"step": "updates done"}
_GROUP = "(_trained|_novel)?"
# Family -> columns, as a regular expression -> label. (1): a number without unit, as weights are.
_LABELS = {
    "dln": _UPDATES
    | {
        "test_loss(_[ab])?": f"test loss ({_CRITERION})",
        "train_loss(_[ab])?": f"train loss ({_CRITERION})",
        "weight_norm(_[ab])?": r"$\|\theta\|_2$ of all weights (1)",
        r"layer_norm_\d+(_[ab])?": r"$\|W_l\|_F$ (1)",
        r"gram_norm_\d+(_[ab])?": r"$\|W_l W_l^T\|_F$ (1)",
        r"balance_diff_\d+(_[ab])?": r"$\|W_l W_l^T - W_{l+1}^T W_{l+1}\|_F$ (1)",
        "(effective|end_to_end)_weight_norm(_[ab])?": r"$\|E\|_F$, $E$ the product (1)",
        r"(layer_\d+_)?sv_\d+(_[ab])?|pp_\d+_\d+_sv(_[ab])?": "singular value (1)",
        r"(pp_\d+_\d+_)?relative_rank(_[ab])?": "rank (dimensions)",
        "grad_norm_squared(_[ab])?": r"$\|g\|^2$, (loss / weight)$^2$",
        "trace_gradient_covariance(_[ab])?": r"$\mathrm{tr}\,\Sigma$, (loss / weight)$^2$",
        "trace_hessian_covariance(_[ab])?": r"$\mathrm{tr}(H \Sigma)$, loss$^3$ / weight$^4$",
        "hessian_spectrum(_[ab])?": "eigenvalue (loss / weight$^2$)",
        "param_distance": r"$\|\theta_a - \theta_b\|_2$ (1)",
        "param_cosine_sim": r"cosine of $\theta_a$ and $\theta_b$ (1)",
        r"layer_distance_\d+": r"$\|W_{l,a} - W_{l,b}\|_F$ (1)",
        "frobenius_distance": r"$\|E_a - E_b\|_F$ (1)",
    },
    "memdyn": {
        "step": "epoch",
        "num_memorized": "memorized passages",
        "memorization_rate|novel_rate|extractable_k50": "share of passages",
        "(mean|median|mean_novel)_accuracy": "accuracy (share of target tokens)",
        ".*perplexity(_gap)?": "perplexity (exp of nats per token)",
        "best_correlation": "Spearman's rho with accuracy, best layer",
        "best_[pq]_value": "probability, best layer",
        f"nv_rel{_GROUP}": (
            r"$\mathrm{nv_{rel}} = -\ln(V / \mathrm{tr\,Cov})$ (nats; higher = tighter)"
        ),
        f"nv{_GROUP}": r"$\mathrm{nv} = -\ln V$ (nats; higher = tighter)",
        f"nv_contract{_GROUP}": (
            r"$\mathrm{nv_{contract}} = -\ln(V_{l+1} / V_l)$ (nats; higher = tighter)"
        ),
        f"pr{_GROUP}": r"participation ratio $\mathrm{PR}$ (dimensions)",
        f"max_share{_GROUP}": "largest share of a token in the variance",
        f"id2nn{_GROUP}": "two-neighbour estimate (dimensions)",
        f"aniso{_GROUP}": "mean cosine of two states (1)",
        f"cka0{_GROUP}": "linear CKA with epoch 0 (1)",
    },
    "qlora_probe": _UPDATES
    | {
        "train_loss": "training loss (nats per target token)",
        "eval_loss": "held-out loss (nats per target token)",
        "kl_to_base": "KL(base || tuned) (nats per target token)",
        "grad_norm": "gradient norm (nats / parameter)",
        "clip_coef": "factor that the gradient is clipped by (1)",
        "noise_g2": "$|G|^2$, squared gradient, (nats / parameter)$^2$",
        "noise_s": r"$S = \mathrm{tr}\,\Sigma$ of a sequence, (nats / parameter)$^2$",
        "sharpness|sharpness_bottom": "eigenvalue of the Hessian (nats / parameter$^2$)",
        "sharpness_residual": "residual of Lanczos (nats / parameter$^2$)",
        "limit_gd": "2 / lr (nats / parameter$^2$)",
        "sharpness_preconditioned": "eigenvalue of $P^{-1}H$ (1 / learning rate)",
        "limit_adam": "38 / lr (1 / learning rate)",
        "m_norm": "norm of Adam's $m$ (nats / parameter)",
        "sqrt_v_norm": r"norm of Adam's $\sqrt{v}$ (nats / parameter)",
        "cos_m_g": "cosine of $m$ and the gradient (1)",
        "adam_step": "mean update / learning rate (1)",
        "update_ratio(_[ab])?": r"$\|\Delta\theta\| / \|\theta\|$ of an update",
        "delta_w": "$\\|s(B'A' - BA)\\|_F$ of an update (1)",
        "delta_w_ratio": "$\\|s(B'A' - BA)\\|_F / \\|W_0\\|_F$ of an update",
        "stable_rank|effective_rank": "mean rank of $sBA$ over modules (dimensions)",
        "delta_norm_ratio": r"mean $\|sBA\|_F / \|W_0\|_F$ over modules",
        "drift": r"mean $\|h - h_0\| / \|h_0\|$ over blocks",
        "lr": "learning rate (unit of the optimizer)",
    },
    "compressor": _UPDATES
    | {
        "(train|heldout)_mse": "mean squared error (squared unit of the states)",
        "(train|heldout)_gap": r"gap to PCA, mse / mse$_\mathrm{PCA}$ - 1",
        "loss|heldout_loss": "objective (unit of train.objective)",
        "overlap": r"$\|Q^T V_k\|^2 / k$, share of PCA's subspace",
        "orth": r"$\|W W^T - I\|_F / \sqrt{k}$ (1)",
        "idem": r"$\|M^2 - M\|_F / \|M\|_F$ (1)",
        "grad_norm(_clipped)?": "gradient norm (train.objective / parameter)",
        "lr": "learning rate (unit of the optimizer)",
        "heldout_r2_.*": "$R^2$ against the train mean, held-out (1)",
        "loss_.*": "mean squared error of codes (squared unit)",
    },
    "sublora": _UPDATES
    | {
        "train_loss": "training loss (nats per token)",
        "val_loss": "validation loss (nats per token)",
    },
}


def label_of(runs: pl.DataFrame | Mapping[str, Any], column: str) -> str:
    """Quantity and unit of a curve, or of "step"; the bare name of one that is not known here.

    `runs` is a frame of load_sweep or one of its rows; their experiment tells the family.
    """
    families = {name.split("/")[0] for name in _values(runs, "experiment")}
    if len(families) != 1:
        return column
    for pattern, label in _LABELS.get(families.pop(), {}).items():
        if re.fullmatch(pattern, column):
            return label.replace(_CRITERION, _criterion(runs))
    return column


def with_fixed(runs: pl.DataFrame, leaves: Mapping[str, Any]) -> pl.DataFrame:
    """With the texts among the leaves of a config as columns: labels tell some of them."""
    added = {
        key: pl.lit(value)
        for key, value in leaves.items()
        if isinstance(value, str) and key not in runs.columns
    }
    return runs.with_columns(**added)


def label_in(family: str, column: str) -> str:
    """`label_of` where the family is known."""
    return label_of({"experiment": family}, column)


def _criterion(runs: pl.DataFrame | Mapping[str, Any]) -> str:
    """The loss function; its key where that is not among the columns, or has several values."""
    keys = ("training.criterion", "training_a.criterion", "training_b.criterion")
    found = {name for key in keys for name in _values(runs, key)}
    return _CRITERIA[found.pop()] if len(found) == 1 else "unit of training.criterion"


def _values(runs: pl.DataFrame | Mapping[str, Any], column: str) -> list[Any]:
    """The different values of a column of a frame, or the value of a row; without null."""
    if column not in runs:
        return []
    values = runs[column]
    values = values.unique().to_list() if isinstance(values, pl.Series) else [values]
    return [value for value in values if value is not None]
