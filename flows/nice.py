"""NICE: additive couplings (Dinh, Krueger and Bengio, arXiv 1410.8516)."""

from zuko.flows import NICE
from zuko.transforms import AdditiveTransform

from flows.zuko_flow import builder

build = builder(NICE, univariate=AdditiveTransform, shapes=[()])
