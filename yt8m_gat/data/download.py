"""`python -m yt8m_gat.data.download`, the earlier name of `yt8m_gat.acquisition.download`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("yt8m_gat.acquisition.download", run_name="__main__", alter_sys=True)
