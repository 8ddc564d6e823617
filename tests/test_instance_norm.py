"""InstanceNorm and IBN-a against PyTorch: values, gradients, running statistics and the names of the authors' code."""

import jax
import numpy as np
import pytest

from mancs_jax.kernels.conv_norm import InstanceBatchNorm, InstanceNorm

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
X = np.float32(2 * RNG.normal(size=(4, 6, 5, 3)) + 1)
KERNELS = {size: np.float32(RNG.normal(size=(size, size, 3, 6))) for size in (1, 3)}
SCALE, BIAS = np.float32(RNG.uniform(0.5, 1.5, 6)), np.float32(RNG.normal(size=6))
STATS = {"mean": np.float32([0.3, -0.2, 0.1]), "var": np.float32([4.0, 2.0, 3.0])}


def torch_convolved(x, kernel, stride):
    size = kernel.shape[0]
    conv = torch.nn.Conv2d(3, 6, size, stride, (size - 1) // 2, bias=False)
    conv.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    return conv(x)


class TorchIBN(torch.nn.Module):
    """IBN-a as its paper draws it: instance normalisation of the first half of the channels."""

    def __init__(self):
        super().__init__()
        self.IN = torch.nn.InstanceNorm2d(3, affine=True)
        self.BN = torch.nn.BatchNorm2d(3)
        for module, part in ((self.IN, slice(3)), (self.BN, slice(3, 6))):
            module.weight.data = torch.from_numpy(SCALE[part].copy())
            module.bias.data = torch.from_numpy(BIAS[part].copy())
        self.BN.running_mean.copy_(torch.from_numpy(STATS["mean"]))
        self.BN.running_var.copy_(torch.from_numpy(STATS["var"]))

    def forward(self, x):
        return torch.cat([self.IN(x[:, :3]), self.BN(x[:, 3:])], 1)


def variables():
    halves = {"IN": slice(3), "BN": slice(3, 6)}
    params = {name: {"scale": SCALE[part], "bias": BIAS[part]} for name, part in halves.items()}
    return {"params": params, "batch_stats": {"BN": STATS}}


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("train", [True, False])
def test_ibn_equals_pytorch(size, stride, train):
    module = InstanceBatchNorm(use_running_average=not train)

    def ours(x, params):
        given, mutable = variables() | {"params": params}, ["batch_stats"] if train else []
        return module.apply(given, x, KERNELS[size], stride, mutable=mutable, method="convolve_and_normalize")

    y, pull, updates = jax.vjp(ours, X, variables()["params"], has_aux=True)
    x, ibn = torch.from_numpy(X.transpose(0, 3, 1, 2).copy()).requires_grad_(), TorchIBN().train(train)
    theirs = ibn(torch_convolved(x, KERNELS[size], stride))
    np.testing.assert_allclose(y, theirs.detach().numpy().transpose(0, 2, 3, 1), rtol=2e-4, atol=2e-4)
    weight = np.float32(np.random.default_rng(1).normal(size=y.shape))
    theirs.backward(torch.from_numpy(weight.transpose(0, 3, 1, 2).copy()))
    by_x, by_params = pull(weight)
    np.testing.assert_allclose(by_x, x.grad.numpy().transpose(0, 2, 3, 1), rtol=2e-3, atol=2e-3)
    for name, module in (("IN", ibn.IN), ("BN", ibn.BN)):
        np.testing.assert_allclose(by_params[name]["scale"], module.weight.grad, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(by_params[name]["bias"], module.bias.grad, rtol=2e-3, atol=2e-3)
    if train:
        stats = updates["batch_stats"]
        assert stats.keys() == {"BN"}
        np.testing.assert_allclose(stats["BN"]["mean"], ibn.BN.running_mean, rtol=1e-4, atol=1e-5)


def test_instance_norm_does_not_see_other_images():
    module = InstanceNorm()
    params = {"params": {"scale": SCALE[:3], "bias": BIAS[:3]}}
    together, apart = module.apply(params, X), [module.apply(params, image[None])[0] for image in X]
    np.testing.assert_allclose(together, np.stack(apart), rtol=1e-5, atol=1e-5)
    # Another contrast and brightness of an image make no difference.
    np.testing.assert_allclose(module.apply(params, 3 * X + 5), together, rtol=1e-3, atol=1e-3)
