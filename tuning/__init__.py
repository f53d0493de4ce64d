"""The tuning stage: a study of many searches and trainings, and its front of quality against cost."""

from .front import print_front, show
from .points import Front, Point
from .tune_config import TuneConfig
from .worker import tune

__all__ = ["Front", "Point", "TuneConfig", "print_front", "show", "tune"]
