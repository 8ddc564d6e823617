"""Prepares a data set for training and evaluation, or only checks it.

python scripts/prepare_data.py --dataset=market1501 --source=Market-1501-v15.09.15.zip --root=DIR
python scripts/prepare_data.py --dataset=cuhk03_detected --source=cuhk-03.mat --protocol_file=FILE --root=DIR
python scripts/prepare_data.py --dataset=folder --name=MYDATA --source=FOLDER --csv=FILE --root=DIR
python scripts/prepare_data.py --dataset=walkers --root=DIR
"""

from mancs_jax.cli import prepare_data
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(prepare_data)
