"""The same numbers on a GPU as on the CPU."""

import pytest
import torch
from dln_cases import small, workdirs

from dln.streams import Stream
from dln.train import run_stack

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def test_streams_do_not_depend_on_the_device():
    here, there = (Stream("dln/batch_order", range(5), device) for device in ("cpu", "cuda"))
    assert there.permutations(500, range(3)).cpu().equal(here.permutations(500, range(3)))
    torch.testing.assert_close(there.normals(7, 1000).cpu(), here.normals(7, 1000))
    shapes = torch.tensor([0.5, 1.0, 30.0] * 50, dtype=torch.float64)
    ours = there.gammas(7, shapes.cuda(), page=2).cpu()
    torch.testing.assert_close(ours, here.gammas(7, shapes, page=2))


@pytest.mark.parametrize("values", [
    {}, {"training__batch_size": 2}, {"training__batch_size": 5},
    {"training__batch_size": 5, "data__online": True},
    {"training__batch_size": 5, "training__criterion": "HuberLoss"},
])  # fmt: skip
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-10), ("float32", 1e-4)])
def test_runs_do_not_depend_on_the_device(values, dtype, rtol):
    """With a replica that diverges."""
    cfg = small(**values, data__noise_std=0.1, metrics=["trace_covariances"], dtype=dtype)
    replicas = {"training.lr": [0.01, 100.0, 0.02], "data.data_seed": [0, 1, 1]}
    here = run_stack(cfg, replicas, workdirs(3))
    cfg.device = "cuda"
    for ours, theirs in zip(run_stack(cfg, replicas, workdirs(3)), here, strict=True):
        assert ours.status == theirs.status
        for name, curve in theirs.curves.items():
            expected = torch.as_tensor(curve)
            torch.testing.assert_close(
                torch.as_tensor(ours.curves[name]), expected, rtol=rtol, atol=rtol
            )
