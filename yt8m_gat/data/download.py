"""`python -m yt8m_gat.data.download`, the earlier name of `yt8m-gat download`."""

if __name__ == "__main__":
    from yt8m_gat.commands.console import run

    run("download")
