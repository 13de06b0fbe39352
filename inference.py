"""Writes the predictions of a trained run as a Kaggle submission.

python inference.py --train_dir=runs/gat --input_data_pattern='test*.tfrecord' \
    --output_file=submission.csv
"""

if __name__ == "__main__":
    from yt8m_gat.interrupt import end_on_interrupt

    end_on_interrupt()

from absl import app, flags

from yt8m_gat.cli import run_command
from yt8m_gat.commands.inference import define_flags, main

if __name__ == "__main__":
    define_flags(flags.FLAGS)
    run_command(lambda: app.run(main))
