"""Evaluates a trained run, clean and under attack.

python eval.py --train_dir=runs/gat --eval_data_pattern='validate*.tfrecord' --attacks=fgm
"""

if __name__ == "__main__":
    from yt8m_gat.commands.console import run

    run("eval")
