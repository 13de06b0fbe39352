"""Evaluates a trained run, clean and under attack.

python eval.py --train_dir=runs/gat --eval_data_pattern='validate*.tfrecord' --attacks=fgm
"""

if __name__ == "__main__":
    from yt8m_gat.interrupt import end_on_interrupt

    end_on_interrupt()

from absl import app, flags

from yt8m_gat.cli import run_command
from yt8m_gat.commands.eval import define_flags, main

if __name__ == "__main__":
    define_flags(flags.FLAGS)
    run_command(lambda: app.run(main))
