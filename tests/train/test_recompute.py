from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from puna.model.transformer import Transformer
from puna.train.recompute import recompute_layers

Make = Callable[..., Transformer]
IDS = torch.arange(40).reshape(2, 20) % 64


def gradients(model: Transformer) -> tuple[Tensor, list[Tensor]]:
    loss = model(IDS).square().mean()
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


def kept_bytes(model: Transformer) -> int:
    """What autograd keeps from a forward pass for the backward one, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(IDS, head=lambda hidden, weight: hidden)
    del out
    return sum(kept.values())


def test_recomputed_gradients_are_the_same_to_the_last_bit(tiny_model: Make) -> None:
    loss, expected = gradients(tiny_model())
    recomputed, found = gradients(recompute_layers(tiny_model()))
    assert torch.equal(loss, recomputed)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_layers_keep_next_to_nothing(tiny_model: Make) -> None:
    plain = kept_bytes(tiny_model(num_hidden_layers=8))
    assert kept_bytes(recompute_layers(tiny_model(num_hidden_layers=8))) < plain / 5


def test_twice_is_as_once(tiny_model: Make) -> None:
    runs = 0

    def count(*_: object) -> None:
        nonlocal runs
        runs += 1

    model = recompute_layers(recompute_layers(tiny_model(num_hidden_layers=1)))
    model.layers[0].get_submodule("input_layernorm").register_forward_hook(count)
    gradients(model)
    assert runs == 2, "once forward, once again for the backward pass"


def test_names_and_numbers_of_the_model_stay(tiny_model: Make) -> None:
    plain, recomputed = tiny_model(), recompute_layers(tiny_model())
    assert plain.state_dict().keys() == recomputed.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(plain(IDS), recomputed(IDS))
