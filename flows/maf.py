"""MAF: masked autoregressive flow, exact but slow to sample: d passes (Papamakarios et al., arXiv 1705.07057)."""

from zuko.flows import MAF

from flows.zuko_flow import builder

build = builder(MAF)
