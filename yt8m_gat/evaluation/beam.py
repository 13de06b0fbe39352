"""`python -m yt8m_gat.evaluation.beam`, the earlier name of `yt8m_gat.prediction.beam`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("yt8m_gat.prediction.beam", run_name="__main__", alter_sys=True)
