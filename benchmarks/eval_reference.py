"""lm-evaluation-harness on the files that eval_parity.py has written; runs in an environment that has lm_eval.

python benchmarks/eval_reference.py FOLDER: reads FOLDER/model and FOLDER/*.jsonl, writes FOLDER/reference.json. It has
no part of Puna.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

MULTIPLE = [
    {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm", "acc_bytes")
]


BASES = {
    "arc": "arc/arc_easy.yaml",
    "mmlu": "mmlu/default/mmlu_abstract_algebra.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
}


def local(folder: Path, base: str, file: str, shots: int = 0, **changes: Any) -> str:
    """A task of the harness over local files: its own prompts and measures, our rows. JSON is YAML too."""
    import lm_eval

    files = {"test": str(folder / f"{file}.jsonl"), "train": str(folder / f"{file}-examples.jsonl")}
    config = {
        "include": str(Path(lm_eval.__file__).parent / "tasks" / BASES[base]),
        "task": f"local_{file}_{shots}",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        "training_split": None,
        "validation_split": None,
        "fewshot_split": "train",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": shots,
        **({} if base == "gsm8k" else {"metric_list": MULTIPLE}),
        **changes,
    }
    path = folder / f"{config['task']}.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return str(path)


def run(model: Any, task: str) -> list[dict[str, Any]]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)
    found = simple_evaluate(model=model, tasks=[task], task_manager=manager, log_samples=True, bootstrap_iters=0)
    (samples,) = found["samples"].values()
    return sorted(samples, key=lambda sample: sample["doc_id"])


def multiple_choice(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "logprobs": [float(resp[0][0]) for resp in sample["resps"]],
            "acc": sample["acc"],
            "acc_norm": sample.get("acc_bytes", sample.get("acc_norm")),
        }
        for sample in samples
    ]


def numbers(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {"strict-match": "strict", "flexible-extract": "flexible"}
    rows: dict[int, dict[str, Any]] = {}
    for sample in samples:
        row = rows.setdefault(sample["doc_id"], {"answer": sample["resps"][0][0]})
        row[names[sample["filter"]]] = sample["exact_match"]
    return [rows[key] for key in sorted(rows)]


def scripted(answers: list[str]) -> Any:
    """A model that says these answers, in the order of the questions."""
    from lm_eval.api.model import LM

    class Scripted(LM):
        def loglikelihood(self, requests: Any) -> Any:
            raise NotImplementedError

        def loglikelihood_rolling(self, requests: Any) -> Any:
            raise NotImplementedError

        def generate_until(self, requests: Any) -> list[str]:
            return [answers[request.doc_id] for request in requests]

    return Scripted()


def instructions(folder: Path) -> list[dict[str, Any]]:
    from langdetect import DetectorFactory
    from lm_eval.tasks.ifeval.utils import process_results

    DetectorFactory.seed = 0
    rows = []
    for line in (folder / "ifeval.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found = process_results(row, [row["answer"]])
        rows.append({"strict": found["inst_level_strict_acc"], "loose": found["inst_level_loose_acc"]})
    return rows


def bits(model: Any, folder: Path) -> list[float]:
    """The log-probability of each whole text."""
    from lm_eval.api.instance import Instance

    lines = (folder / "bits.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    asked = [Instance("loglikelihood_rolling", {}, (text,), i, metadata=("bits", i, 1)) for i, text in enumerate(texts)]
    return [float(one) for one in model.loglikelihood_rolling(asked, disable_tqdm=True)]


def main(folder: Path) -> None:
    from importlib.metadata import version

    from lm_eval.models.huggingface import HFLM

    settings: dict[str, Any] = {"device": "cpu", "dtype": "float32", "batch_size": 8}
    model = HFLM(pretrained=str(folder / "model"), add_bos_token=True, **settings)
    # Rolling likelihoods put the start token first by themselves: once is enough.
    rolling = HFLM(pretrained=str(folder / "model"), add_bos_token=False, **settings)
    answers = [
        json.loads(line)["reply"] for line in (folder / "replies.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    until = {"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False, "max_gen_toks": 48}
    results = {
        "arc": multiple_choice(run(model, local(folder, "arc", "arc"))),
        "arc, 5 shots": multiple_choice(run(model, local(folder, "arc", "arc", 5))),
        "mmlu, 5 shots": multiple_choice(run(model, local(folder, "mmlu", "mmlu", 5))),
        "hellaswag": multiple_choice(run(model, local(folder, "hellaswag", "hellaswag"))),
        "languages": multiple_choice(run(model, local(folder, "arc", "languages"))),
        "gsm8k, 2 shots": numbers(run(model, local(folder, "gsm8k", "gsm8k", 2, generation_kwargs=until))),
        "gsm8k, replies": numbers(run(scripted(answers), local(folder, "gsm8k", "replies"))),
        "ifeval": instructions(folder),
        "bits": bits(rolling, folder),
    }
    text = json.dumps({"version": version("lm_eval"), "results": results})
    (folder / "reference.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
