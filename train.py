"""Trains a video classifier on YouTube-8M records: flags in, one run folder out.

python train.py --model=GAT --train_data_pattern='train*.tfrecord' \
    --eval_data_pattern='validate*.tfrecord' --train_dir=runs/gat
"""

if __name__ == "__main__":
    from yt8m_gat.commands.console import run

    run("train")
