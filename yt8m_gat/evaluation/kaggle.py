"""`python -m yt8m_gat.evaluation.kaggle`, the earlier name of `yt8m-gat kaggle`."""

if __name__ == "__main__":
    from yt8m_gat.commands.console import run

    run("kaggle")
