"""`QuantPlan`: which module of a model is stored in which format.

A plan comes from a recipe (`assets/recipes.toml`), from rows of globs that the user gives, or from measured
sensitivity (`sensitivity`). It is checked against a model's shape before any work is done, and it knows what the
model will weigh. The embedding is not quantised: it is looked up, not multiplied, and costs no bandwidth.
"""

from __future__ import annotations

import fnmatch
import math
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from puna.base.config import from_dict
from puna.base.errors import ArtifactError, ConfigError, near
from puna.model.config import ModelConfig
from puna.model.transformer import shapes
from puna.quant.formats import WeightFormat, named_format

HEAD = "lm_head"
AUTO = "auto"
Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class QuantPlan:
    """Module -> format.

    Attributes:
        modules: name of a linear layer ("layers.3.mlp.up_proj", "lm_head") -> name of a format. The others stay bf16.
        recipe: where the plan comes from, for whoever reads it.
    """

    modules: Mapping[str, str]
    recipe: str = ""

    def format(self, module: str) -> WeightFormat:
        return named_format(self.modules.get(module, "bf16"))

    @property
    def quantizes_head(self) -> bool:
        return HEAD in self.modules

    @property
    def formats(self) -> dict[str, int]:
        """Name of each format -> how many modules have it, the most frequent first."""
        return dict(Counter(self.modules.values()).most_common())

    def config(self, config: ModelConfig) -> ModelConfig:
        """The shape of the quantised model.

        A quantised output matrix is not the embedding any more: a tied model gets an `lm_head` of its own, and its
        embedding stays as it is.
        """
        return replace(config, tie_word_embeddings=False) if self.quantizes_head else config

    def check(self, config: ModelConfig) -> None:
        """Refuses a plan that does not fit a model of this shape.

        Raises:
            ConfigError: a module that the model does not have, a format that does not exist, or rows that are no
                whole number of groups.
        """
        sizes = linear_shapes(config)
        for module, name in self.modules.items():
            if module not in sizes:
                raise ConfigError(f"The model has no linear layer {module!r}.", hint=near(module, sizes))
            format = named_format(name)
            if module == HEAD and format.bits < 8:
                raise ConfigError(
                    f"The plan stores {HEAD} as {name}; the output matrix takes 8 bits or more.",
                    hint="Use int8 for it.",
                )
            format.check(*sizes[module], module)

    def bytes(self, config: ModelConfig) -> int:
        """Stored bytes of the whole quantised model: what the plan names in its formats, all else in bfloat16."""
        total = 0
        for name, shape in shapes(self.config(config)).items():
            module = name.removesuffix(".weight")
            total += self.format(module).bytes(*shape) if module in self.modules else 2 * math.prod(shape)
        return total

    def bits_per_weight(self, config: ModelConfig) -> float:
        """Average over all stored parameters."""
        return 8 * self.bytes(config) / sum(math.prod(shape) for shape in shapes(self.config(config)).values())

    def to_json(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "modules": dict(self.modules)}

    @classmethod
    def from_json(cls, data: Any) -> QuantPlan:
        modules = data.get("modules") if isinstance(data, Mapping) else None
        if not isinstance(modules, Mapping):
            raise ArtifactError(f"{data!r} is no plan of a quantisation: it has no table of modules.")
        plan = cls({str(module): str(name) for module, name in modules.items()}, str(data.get("recipe", "")))
        for name in plan.formats:
            named_format(name)
        return plan


@dataclass(frozen=True, slots=True)
class Recipe:
    """A row of `assets/recipes.toml`.

    Attributes:
        rows: (glob over module names, format name); later ones win.
        about: in one line.
        source: where it is from.
    """

    rows: tuple[tuple[str, str], ...]
    about: str = ""
    source: str = ""


def _read_recipes() -> dict[str, Recipe]:
    text = resources.files("puna.quant").joinpath("assets/recipes.toml").read_text(encoding="utf-8")
    return {name: from_dict(Recipe, row, at=name) for name, row in tomllib.loads(text).items()}


RECIPES: Mapping[str, Recipe] = _read_recipes()


def from_recipe(name: str, config: ModelConfig, head: str = "bf16", rows: Rows = ()) -> QuantPlan:
    """The plan of a recipe for a model of this shape.

    Args:
        name: of the recipe; "auto" is not one of them, but the affair of `sensitivity`.
        config: the model's shape.
        head: the format of the output matrix, for recipes that do not say.
        rows: more rows, which win over the recipe's.

    Raises:
        ConfigError: no such recipe or format, or one that does not fit the shape.
    """
    if name not in RECIPES:
        raise ConfigError(f"There is no recipe {name!r}.", hint=near(name, [*RECIPES, AUTO]))
    return from_rows([(HEAD, head), *RECIPES[name].rows, *rows], config, name)


def from_rows(rows: Rows, config: ModelConfig, recipe: str = "") -> QuantPlan:
    """The plan of rows of (glob over module names, format); later rows win.

    Raises:
        ConfigError: a glob that names nothing, a format that does not exist, or one that does not fit the shape.
    """
    names = list(linear_shapes(config))
    modules: dict[str, str] = {}
    for glob, format in rows:
        named_format(format)
        pattern = _counted(glob, config.num_hidden_layers)
        found = fnmatch.filter(names, pattern)
        if not found:
            raise ConfigError(f"No linear layer of the model is named {glob!r}.", hint=near(glob, names))
        modules |= dict.fromkeys(found, format)
    plan = QuantPlan({name: modules[name] for name in names if modules.get(name, "bf16") != "bf16"}, recipe)
    plan.check(config)
    return plan


def _counted(glob: str, layers: int) -> str:
    """A glob with a layer that is counted from the end, counted from the beginning."""
    parts = glob.split(".")
    if len(parts) > 1 and parts[0] == "layers" and parts[1][:1] == "-" and parts[1][1:].isdecimal():
        index = layers + int(parts[1])
        if index < 0:
            raise ConfigError(f"The row {glob!r} counts more layers than the model has, which is {layers}.")
        parts[1] = str(index)
    return ".".join(parts)


@cache
def linear_shapes(config: ModelConfig) -> Mapping[str, tuple[int, int]]:
    """Name -> (outputs, inputs) of every matrix that a token is multiplied with, the output matrix last.

    A tied model has an output matrix too: its embedding, which a plan may quantise apart.
    """
    found = {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in shapes(config).items()
        if name.startswith("layers.") and len(shape) == 2
    }
    return found | {HEAD: (config.vocab_size, config.hidden_size)}


def describe(plan: QuantPlan, config: ModelConfig) -> str:
    """The plan in a few lines: how many modules have which format, what stays, what it weighs."""
    sizes = linear_shapes(config)
    lines = [f"{count} x {name}" for name, count in plan.formats.items()]
    kept = [module for module in sizes if module not in plan.modules]
    if kept:
        lines.append(f"{len(kept)} x bf16 ({', '.join(kept[:3])}{', ...' if len(kept) > 3 else ''})")
    if plan.quantizes_head and config.tie_word_embeddings:
        lines.append(f"{HEAD} is stored apart from the embedding, which stays bf16")
    lines.append(f"{plan.bits_per_weight(config):.2f} bits a weight")
    return "\n".join(lines)
