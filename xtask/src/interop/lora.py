"""Edits of LoRA adapters that `tvb … --lora-out` wrote, against PEFT and dense arithmetic in PyTorch.

    python lora.py TVB WORK

Adapters are really written by PEFT, on small models of random weights. What `tvb` makes of several of them, with signed weights, is
loaded back by PEFT, merged, and compared with the sum of what each adapter alone changes.
"""

import json
import os
import subprocess
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
)

warnings.filterwarnings("ignore")
TVB, WORK = sys.argv[1:3]
CHECKED = []
EXPRESSION, WEIGHTS = "a - 0.5*b + 0.3*c", {"a": 1.0, "b": -0.5, "c": 0.3}


def checked(what, right):
    print(("ok      " if right else "WRONG   ") + what)
    CHECKED.append(right)


def work(*names):
    return os.path.join(WORK, *names)


def tvb(*words):
    return subprocess.run([TVB, *words, "--json", "--device", "cpu"], capture_output=True, text=True)


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=60, n_positions=32, n_embd=24, n_layer=2, n_head=2))


def llama():
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2
    )
    return LlamaForCausalLM(config)


def bert():
    config = BertConfig(
        vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, num_labels=3
    )
    return BertForSequenceClassification(config)


def resnet():
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    return ResNetForImageClassification(config)


def config(number, targets, task_type, **more):
    """Other ranks, other scales, and for the second adapter √r."""
    ranks, alphas = [4, 6, 3], [8, 16, 5]
    return LoraConfig(
        r=ranks[number],
        lora_alpha=alphas[number],
        use_rslora=number == 1,
        target_modules=targets,
        task_type=task_type,
        **more,
    )


# Name, model, targets, task type, what else the configurations say.
CASES = [
    ("gpt2", gpt2, ["c_attn", "c_proj", "c_fc", "wte"], "CAUSAL_LM", {"fan_in_fan_out": True}),
    ("llama", llama, "all-linear", "CAUSAL_LM", {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}}),
    ("bert", bert, ["query", "value", "dense"], "SEQ_CLS", {}),
    ("bert-bias", bert, ["query", "value"], "SEQ_CLS", {"bias": "all"}),
    ("resnet", resnet, ["convolution"], None, {"modules_to_save": ["classifier.1"]}),
]


def write_adapters(name, make, targets, task_type, more):
    torch.manual_seed(1)
    make().save_pretrained(work(name, "base"))
    for number, task in enumerate("abc"):
        base = load_base(name, make)
        torch.manual_seed(10 + number)
        model = get_peft_model(base, config(number, targets, task_type, **more))
        for key, value in model.named_parameters():
            if value.requires_grad:
                value.data = value.data + 0.05 * torch.randn(value.shape)
        model.save_pretrained(work(name, task))


def load_base(name, make):
    return type(make()).from_pretrained(work(name, "base"))


def state(model):
    return {key: value.detach().double() for key, value in model.state_dict().items() if value.is_floating_point()}


def merged(name, make, adapter):
    return state(PeftModel.from_pretrained(load_base(name, make), adapter).merge_and_unload())


def farthest(found, expected):
    """The largest difference as a share of the largest number, over all tensors."""
    largest = max(value.abs().max().item() for value in expected.values())
    return max((found[key] - expected[key]).abs().max().item() for key in expected) / largest


def cut(delta, rank):
    """PyTorch's own best matrix of that rank, or the delta where it is no matrix."""
    matrix = delta.reshape(delta.shape[0], -1)
    if delta.dim() < 2 or min(matrix.shape) <= rank:
        return delta
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ v[:rank]).reshape(delta.shape)


def edit(name, out, *words):
    tasks = [f"{task}={work(name, task)}" for task in "abc"]
    words = ["apply", "--base", work(name, "base"), "--lora-out", work(name, out), *words, "--from-checkpoints", *tasks]
    found = tvb(*words, "--", EXPRESSION)
    if found.returncode != 0:
        checked(f"{name}: {out}: {found.stderr.strip()}{found.stdout.strip()}", False)
        return None
    return json.loads(found.stdout)["adapter"]


def check(name, make, targets, task_type, more):
    write_adapters(name, make, targets, task_type, more)
    base = state(load_base(name, make))
    each = {task: merged(name, make, work(name, task)) for task in "abc"}
    expected = {key: sum(WEIGHTS[task] * (each[task][key] - base[key]) for task in "abc") for key in base}
    delta = lambda out: {key: value - base[key] for key, value in merged(name, make, work(name, out)).items()}
    # f32 weights are rounded when PEFT merges: the same for what is expected and for what is found.
    report = edit(name, "lossless")
    if report:
        off = farthest(delta("lossless"), expected)
        checked(f"{name}: without a cut, to {off:.1e}, storing adds {report['rounding']:.1e}", off < 1e-5)
    report = edit(name, "rank", "--rank", "4")
    if report:
        whole = {module["module"] for module in report["modules"]}
        is_factored = lambda key: any(key.endswith(module + ".weight") for module in whole)
        best = {key: cut(value, 4) if is_factored(key) else value for key, value in expected.items()}
        found = delta("rank")
        off = farthest(found, best)
        checked(f"{name}: rank 4 is PyTorch's truncated SVD, to {off:.1e}", off < 1e-5)
        squares = lambda deltas: sum(value.pow(2).sum().item() for key, value in deltas.items() if is_factored(key))
        lost = (squares({key: found[key] - expected[key] for key in expected}) / squares(expected)) ** 0.5
        checked(f"{name}: rank 4 loses what is said, {lost:.4f}", abs(lost - report["error"]) < 1e-4)
    report = edit(name, "energy", "--energy", "0.9", "--dtype", "bf16")
    if report:
        found = delta("energy")
        whole = {module["module"] for module in report["modules"]}
        keys = [key for key in expected if any(key.endswith(module + ".weight") for module in whole)]
        squares = lambda deltas: sum(deltas[key].pow(2).sum().item() for key in keys)
        lost = squares({key: found[key] - expected[key] for key in keys}) / squares(expected)
        said = report["error"] ** 2 + report["rounding"] ** 2
        ranks = sorted({module["rank"] for module in report["modules"]})
        right = 1 - report["kept_energy"] <= 0.1 + 1e-12 and abs(lost - said) < 1e-3
        checked(f"{name}: 90 % of the energy in bf16, {100 * (1 - lost):.2f} % kept at ranks {ranks}", right)


def weighted_by_peft(name, make):
    """What PEFT's own sum of adapters makes of a negative weight, against the true sum."""
    for number, task in enumerate(["p", "q"]):
        torch.manual_seed(30 + number)
        model = get_peft_model(load_base(name, make), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
        for key, value in model.named_parameters():
            if value.requires_grad:
                value.data = 0.05 * torch.randn(value.shape)
        model.save_pretrained(work(name, task))
    base = state(load_base(name, make))
    each = {task: merged(name, make, work(name, task)) for task in "pq"}
    expected = {key: (each["p"][key] - base[key]) - 0.5 * (each["q"][key] - base[key]) for key in base}
    largest = sum(value.pow(2).sum() for value in expected.values()) ** 0.5
    for kind in ["linear", "cat", "svd"]:
        model = PeftModel.from_pretrained(load_base(name, make), work(name, "p"), adapter_name="p")
        model.load_adapter(work(name, "q"), adapter_name="q")
        try:
            model.add_weighted_adapter(["p", "q"], [1.0, -0.5], "sum", combination_type=kind)
        except Exception as error:
            print(f"note    {name}: PEFT's add_weighted_adapter, {kind}, weights 1 and -0.5: {type(error).__name__}: {error}")
            continue
        model.set_adapter("sum")
        found = state(model.merge_and_unload())
        difference = sum((found[key] - base[key] - expected[key]).pow(2).sum() for key in expected) ** 0.5
        print(f"note    {name}: PEFT's add_weighted_adapter, {kind}, weights 1 and -0.5: relative error {difference / largest:.1e}")


def refusals():
    """What is no adapter, or cancels out, is refused in one line and leaves nothing."""
    tasks = lambda *names: [f"{name}={work('llama', name)}" for name in names]
    base = ["--base", work("llama", "base"), "--lora-out", work("refused")]
    cases = [
        ("a whole checkpoint", ["apply", *base, "--from-checkpoints", *tasks("a", "base"), "--", "a + base"], 3),
        ("an edit of nothing", ["apply", *base, "--from-checkpoints", *tasks("a"), f"b={work('llama', 'a')}", "--", "a - b"], 3),
        ("a rank of 0", ["apply", *base, "--rank", "0", "--from-checkpoints", *tasks("a"), "--", "a"], 2),
    ]
    for what, words, code in cases:
        found = tvb(*words)
        right = found.returncode == code and not os.path.exists(work("refused"))
        checked(f"{what} is refused: {(found.stderr or found.stdout).strip().splitlines()[0]}", right)


os.makedirs(WORK, exist_ok=True)
for case in CASES:
    check(*case)
weighted_by_peft("llama", llama)
refusals()
print(f"{sum(CHECKED)} of {len(CHECKED)} right")
sys.exit(0 if all(CHECKED) else 1)
