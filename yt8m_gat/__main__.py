"""`python -m yt8m_gat`, which is the command `yt8m-gat`."""

if __name__ == "__main__":
    from yt8m_gat.commands.console import main

    main()
