"""The tuning stage: a study of many searches and trainings, and its front of quality against cost.

>>> config = TuneConfig(vary={"search.space.channels": (8, 16)}, quality=("VIF",), cost="parameters")
>>> tune(config, trials=20)  # doctest: +SKIP
>>> front = show(config)  # doctest: +SKIP
>>> points = [
...     Point(number, quality, cost, {"search.space.channels": channels}, genotype="")
...     for number, quality, cost, channels in [(3, 0.61, 2500, 8), (0, 0.64, 9100, 16)]
... ]
>>> front = Front("tune", "parameters", ("VIF",), tuple(points), tuple(points))
>>> print_front(front)
trial channels quality parameters
3     8         0.6100       2500
0     16        0.6400       9100
"""

from .front import print_front, show
from .points import Front, Point
from .tune_config import TuneConfig
from .worker import tune

__all__ = ["Front", "Point", "TuneConfig", "print_front", "show", "tune"]
