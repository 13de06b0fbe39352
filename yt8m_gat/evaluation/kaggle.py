"""`python -m yt8m_gat.evaluation.kaggle`, the earlier name of `yt8m_gat.prediction.kaggle`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("yt8m_gat.prediction.kaggle", run_name="__main__", alter_sys=True)
