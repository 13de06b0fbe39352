"""`python -m yt8m_gat.data.sample`, the earlier name of `yt8m_gat.acquisition.sample`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("yt8m_gat.acquisition.sample", run_name="__main__", alter_sys=True)
