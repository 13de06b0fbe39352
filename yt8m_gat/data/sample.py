"""`python -m yt8m_gat.data.sample`, the earlier name of `yt8m-gat sample`."""

if __name__ == "__main__":
    from yt8m_gat.commands.console import run

    run("sample")
