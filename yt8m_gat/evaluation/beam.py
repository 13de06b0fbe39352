"""`python -m yt8m_gat.evaluation.beam`, the earlier name of `yt8m-gat beam`."""

if __name__ == "__main__":
    from yt8m_gat.commands.console import run

    run("beam")
