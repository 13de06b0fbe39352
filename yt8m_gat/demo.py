"""`python -m yt8m_gat.demo`, the earlier name of `yt8m-gat demo`."""

if __name__ == "__main__":
    from yt8m_gat.commands.console import run

    run("demo")
