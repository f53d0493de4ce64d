"""Tuning: a study of many searches and trainings, and the front of quality against cost that it finds."""

from .config import TuneConfig
from .front import print_front, show
from .points import Front, Point
from .worker import tune

__all__ = ["Front", "Point", "TuneConfig", "print_front", "show", "tune"]
