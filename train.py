"""Trains a video classifier on YouTube-8M records: flags in, one run folder out.

python train.py --model=GAT --train_data_pattern='train*.tfrecord' \
    --eval_data_pattern='validate*.tfrecord' --train_dir=runs/gat
"""

if __name__ == "__main__":
    from yt8m_gat.interrupt import end_on_interrupt

    end_on_interrupt()

from absl import app, flags

from yt8m_gat.cli import run_command
from yt8m_gat.commands.train import define_flags, main

if __name__ == "__main__":
    define_flags(flags.FLAGS)
    run_command(lambda: app.run(main))
