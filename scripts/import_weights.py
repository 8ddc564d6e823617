"""Makes a clean .safetensors of a backbone's ImageNet weights, or a workdir of the authors' checkpoint.

    python scripts/import_weights.py --source=resnet50-0676ba61.pth --arch=resnet50 --output=resnet50.safetensors
    python scripts/import_weights.py --source=model_best.pth.tar --config=configs/market.py:authors --workdir=W

Training reads such a .safetensors, the .pth itself, and the authors' checkpoint, with --config.pretrained=FILE;
`scripts/evaluate.py --workdir=W` scores the workdir.
"""

from mancs_jax.cli import import_weights
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(import_weights)
