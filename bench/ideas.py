"""Alternatives for speed that were not adopted: `bench/choices.py` measures both."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.nn import functional as F

from datasets.data import laid_out
from flows.transforms import MAX_LOG_ODDS, ActNorm, AffineCoupling, Compose, Permutation
from methods.mechanisms.gradients import gradient_of
from models.encoders import paper
from models.learner import HEADS, Learner

Ways = dict[str, Callable[[], Tensor]]
"""How the same numbers can be had, the program's way first."""
GREY = (1, 28, 28)


def convolutions(compiled: bool) -> Ways:
    """Gradient (P,) of the paper's grey encoder on a batch of 64."""
    encoder, x = paper.build(GREY, None), torch.rand(64, *GREY)
    first, second = encoder.features[0], encoder.features[2]

    def strides_into_channels(layer: nn.Conv2d, x: Tensor) -> Tensor:
        weight = layer.weight.unflatten(3, (2, 2)).unflatten(2, (2, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
        return F.conv2d(F.pixel_unshuffle(F.pad(x, 4 * layer.padding[:1]), 2), weight, layer.bias)

    def one_product(layer: nn.Conv2d, x: Tensor) -> Tensor:
        windows = F.pad(x, 4 * layer.padding[:1]).unfold(2, 4, 2).unfold(3, 4, 2)  # (B, C, H, W, 4, 4)
        y = F.linear(windows.permute(0, 2, 3, 1, 4, 5).flatten(3), layer.weight.flatten(1), layer.bias)
        return y.permute(0, 3, 1, 2)

    def step(x: Tensor, embed: Callable[[Tensor], Tensor] = encoder) -> Tensor:
        return gradient_of(embed(x).square().mean(), encoder.parameters())

    def by(convolution: Callable[[nn.Conv2d, Tensor], Tensor]) -> Callable[[], Tensor]:
        def embed(x: Tensor) -> Tensor:
            return encoder.projection(convolution(second, convolution(first, x).relu()).flatten(1))

        return lambda: step(x, embed)

    def without_onednn() -> Tensor:
        with torch.backends.mkldnn.flags(enabled=False):
            return step(laid_out(x))

    ways = {"channels last": lambda: step(laid_out(x)), "channels first": lambda: step(x)}
    ways |= {"strides into channels": by(strides_into_channels), "one matrix product": by(one_product)}
    ways["without oneDNN"] = without_onednn
    if compiled:
        by_compiler = torch.compile(encoder)
        ways["torch.compile"] = lambda: step(laid_out(x), by_compiler)
    return ways


class ByHand(torch.autograd.Function):
    """ActNorm, permutation and coupling as one function; the log-determinant is that of the coupling."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, c: Tensor, kept: int, *others: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale, order, w1, b1, w2, b2 = others
        e = log_scale.exp()
        y = (x + shift).mul_(e)
        z = y.index_select(1, order)
        a, b = z[:, :kept], z[:, kept:]
        inputs = torch.cat((a, c), 1)
        hidden = torch.addmm(b1, inputs, w1.t()).relu_()
        s, t = torch.addmm(b2, hidden, w2.t()).chunk(2, 1)
        r = s.abs().div_(MAX_LOG_ODDS).add_(1).reciprocal_()
        scale = (s * r).add_(1.5).sigmoid_()
        ctx.save_for_backward(y, e, order.argsort(), b, inputs, hidden, scale, r, w1, w2)
        ctx.kept = kept
        return torch.cat((a, torch.addcmul(t, b, scale)), 1), scale.log().sum(1)

    @staticmethod
    def backward(ctx: Any, g: Tensor, g_ladj: Tensor) -> tuple[Tensor | None, ...]:
        y, e, inverse, b, inputs, hidden, scale, r, w1, w2 = ctx.saved_tensors
        kept, g_t = ctx.kept, g[:, ctx.kept :]
        g_b = g_t * scale
        g_s = torch.addcmul(g_ladj[:, None], g_b, b).mul_(1 - scale).mul_(r).mul_(r)
        g_out = torch.cat((g_s, g_t), 1)
        g_hidden = (g_out @ w2) * (hidden > 0)
        g_a = torch.addmm(g[:, :kept], g_hidden, w1[:, :kept])
        g_z = torch.cat((g_a, g_b), 1).index_select(1, inverse)
        g_x = g_z * e
        of_network = (g_hidden.t() @ inputs, g_hidden.sum(0), g_out.t() @ hidden, g_out.sum(0))
        return g_x, None, None, g_x.sum(0), (g_z * y).sum(0), None, *of_network


def couplings(compiled: bool) -> Ways:
    """Gradient (P,) of the likelihood of 256 codes under 20 blocks of the flow."""
    width, classes, batch = 100, 10, 256
    blocks = [(ActNorm(width), Permutation(width), AffineCoupling(width, classes, 1.0, 0)) for _ in range(20)]
    flow = Compose([transform for block in blocks for transform in block])
    for coupling in (block[2] for block in blocks):
        nn.init.normal_(coupling.net[-1].weight, std=0.05)
    x, c = torch.randn(batch, width), torch.eye(classes)[torch.arange(batch) % classes]

    def step(run: Callable[[], tuple[Tensor, Tensor]]) -> Tensor:
        z, ladj = run()
        return gradient_of((0.5 * z.square().sum(1) - ladj).mean(), flow.parameters())

    def sums_at_once() -> tuple[Tensor, Tensor]:
        z, ladjs = x, []
        for transform in flow.transforms:
            z, ladj = transform(z, c)
            ladjs.append(ladj)
        return z, torch.stack(ladjs).sum(0)

    def by_hand() -> tuple[Tensor, Tensor]:
        z, total = x, x.new_zeros(batch)
        for norm, permutation, coupling in blocks:
            parameters = (norm.shift, norm.log_scale, permutation.order, *coupling.net.parameters())
            z, ladj = ByHand.apply(z, c, coupling.kept, *parameters)
            total = total + (ladj + norm.log_scale.sum())
        return z, total

    def transposed() -> tuple[Tensor, Tensor]:
        z, total, ct = x.t().contiguous(), x.new_zeros(batch), c.t().contiguous()
        for norm, permutation, coupling in blocks:
            w1, b1, w2, b2 = coupling.net.parameters()
            z = ((z + norm.shift[:, None]) * norm.log_scale.exp()[:, None]).index_select(0, permutation.order)
            a, b = z[: coupling.kept], z[coupling.kept :]
            hidden = torch.addmm(b1[:, None], w1, torch.cat((a, ct))).relu()
            s, t = torch.addmm(b2[:, None], w2, hidden).chunk(2)
            scale = torch.sigmoid(s / (1 + s.abs() / MAX_LOG_ODDS) + 1.5)
            z, total = torch.cat((a, b * scale + t)), total + (scale.log().sum(0) + norm.log_scale.sum())
        return z.t(), total

    def with_two_threads() -> Tensor:
        torch.set_num_threads(2)
        try:
            return step(lambda: flow(x, c))
        finally:
            torch.set_num_threads(1)

    ways = {
        "as written": lambda: step(lambda: flow(x, c)),
        "log-determinants added at once": lambda: step(sums_at_once),
    }
    ways |= {"derivatives by hand": lambda: step(by_hand), "transposed codes": lambda: step(transposed)}
    ways["two threads"] = with_two_threads
    if compiled:
        by_compiler = torch.compile(flow)
        ways["torch.compile"] = lambda: step(lambda: by_compiler(x, c))
    return ways


def gem() -> Ways:
    """Inner products (4,) of a direction with the gradients of four memories: what GEM checks at each step."""
    tasks, size = 4, 200
    learner = Learner(paper.build(GREY, None), HEADS["paper"](0.0), "task", [(0, 1)] * tasks)
    x, y = torch.rand(tasks, size, *GREY), torch.randint(2, (tasks, size))
    encoder, own = learner.encoder, list(learner.encoder.parameters())
    direction = tuple(torch.randn_like(p) for p in own)
    flat = torch.cat([d.flatten() for d in direction])

    def gradient(task: int) -> Tensor:
        return gradient_of(F.cross_entropy(learner.logits(learner.embed(x[task]), task), y[task]), own)

    def one_forward_pass() -> Tensor:
        z = learner.embed(x.flatten(0, 1)).unflatten(0, (tasks, size))
        losses = [F.cross_entropy(learner.logits(z[t], t), y[t]) for t in range(tasks)]
        found = [torch.autograd.grad(loss, own, retain_graph=True) for loss in losses]
        return torch.stack([torch.cat([g.flatten() for g in gs]) for gs in found]) @ flat

    names = [name for name, _ in encoder.named_parameters()]
    weights = {name: p.detach() for name, p in encoder.named_parameters()}
    heads = stack_module_state(learner.heads)[0]
    heads = {name: p.detach() for name, p in heads.items()}

    def loss(weights: dict[str, Tensor], head: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(learner.heads[0], head, (functional_call(encoder, weights, (x,)),)), y)

    def by_vmap() -> Tensor:
        found = vmap(grad(loss), in_dims=(None, 0, 0, 0))(weights, heads, x, y)
        return torch.cat([found[name].flatten(1) for name in names], 1) @ flat

    def forward_mode() -> Tensor:
        def losses(weights: dict[str, Tensor]) -> Tensor:
            z = functional_call(encoder, weights, (x.flatten(0, 1),)).unflatten(0, (tasks, size))
            return torch.stack([F.cross_entropy(learner.logits(z[t], t), y[t]) for t in range(tasks)])

        return jvp(losses, (weights,), (dict(zip(names, direction, strict=True)),))[1]

    pool = ThreadPoolExecutor(2)
    ways: Ways = {"one memory after the other": lambda: torch.stack([gradient(t) for t in range(tasks)]) @ flat}
    ways |= {"one forward pass for all": one_forward_pass, "vmap": by_vmap}
    ways["forward mode, for the check alone"] = forward_mode
    ways["two Python threads"] = lambda: torch.stack(list(pool.map(gradient, range(tasks)))) @ flat
    return ways
