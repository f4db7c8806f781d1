"""NSF: rational-quadratic spline couplings (Durkan, Bekasov, Murray and Papamakarios, arXiv 1906.04032)."""

from zuko.flows import NSF

from flows.zuko_flow import builder

build = builder(NSF, passes=2)
