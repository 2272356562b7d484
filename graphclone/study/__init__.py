"""The paper's experiment (HyperCloning, arXiv 2409.12903): does a wide model train faster from its clone?

from graphclone.study import read, run_study

report = run_study(read("mini"), "study-mini")
"""

from graphclone.study.config import Base, Comparison, Data, Model, Study, Training, read
from graphclone.study.execute import run_study
from graphclone.study.recipes import Recipe

__all__ = ["Base", "Comparison", "Data", "Model", "Recipe", "Study", "Training", "read", "run_study"]
