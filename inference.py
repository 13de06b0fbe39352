"""Writes the predictions of a trained run as a Kaggle submission.

python inference.py --train_dir=runs/gat --input_data_pattern='test*.tfrecord' \
    --output_file=submission.csv
"""

if __name__ == "__main__":
    from yt8m_gat.commands.console import run

    run("inference")
