"""`python -m yt8m_gat.report`, the earlier name of `yt8m-gat report`."""

if __name__ == "__main__":
    from yt8m_gat.commands.console import run

    run("report")
