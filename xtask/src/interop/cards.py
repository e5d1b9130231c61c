"""Model cards as huggingface_hub reads them: its parser and its validator of names."""

import models
import torch
from case import Wrong, case, refused, small_net, tuned
import os
import shutil

H = ("huggingface_hub", "transformers")


def card_of(place, folder="out"):
    from huggingface_hub import ModelCard, metadata_load
    from huggingface_hub.utils import validate_repo_id

    path = place(folder, "README.md")
    card = ModelCard.load(path)
    data = card.data.to_dict()
    if metadata_load(path) != data:
        raise Wrong("metadata_load reads something else than ModelCard")
    if card.data.base_model is not None:
        validate_repo_id(card.data.base_model)
    if set(data.get("tags", [])) != {"merge", "task-arithmetic"}:
        raise Wrong(f"tags {data.get('tags')}")
    return data


def edited(place, base, *more):
    place.ok("add", "--base", base, "-o", "out", *more, "--from-checkpoints", "tune")
    return card_of(place)


def models_at(place, base):
    model = models.make("BertModel")
    model.save_pretrained(place(base))
    tuned(model, 1).save_pretrained(place("tune"))
    return model


def holds(data, **expected):
    wrong = {key: data.get(key) for key, value in expected.items() if data.get(key) != value}
    if wrong:
        raise Wrong(f"{wrong} in place of {({key: expected[key] for key in wrong})}")
    return ", ".join(f"{key}: {value}" for key, value in expected.items())


@case("a base in a local folder", "huggingface_hub ModelCard", "no base_model; transformers", H)
def _(place):
    models_at(place, "my base (v2)")
    return holds(edited(place, "my base (v2)"), base_model=None, library_name="transformers")


@case("--base-model ORG/NAME", "huggingface_hub ModelCard", "base_model, valid", H)
def _(place):
    models_at(place, "base")
    return holds(edited(place, "base", "--base-model", "org/tiny"), base_model="org/tiny", base_model_relation="merge")


@case("--base-model that the hub does not take", "huggingface_hub validate_repo_id", "refused wherever the validator refuses", H)
def _(place):
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    models_at(place, "base")
    for name in ("a", "a/b", "a/b/c", "a--b", "a..b", "-a", "a-/b", ".a", "a.", "a/b.git", "a b", "", "x" * 97, "a/" + "x" * 95, "A_b/c.d-e", "_a/_b"):
        try:
            validate_repo_id(name)
            valid = True
        except HFValidationError:
            valid = False
        run = place.tvb("add", "--base", "base", "-o", "out", "--overwrite", "--base-model=" + name, "--from-checkpoints", "tune", "--dry-run")
        if run.code not in (0, 2) or (run.code == 0 and not valid):
            raise Wrong(f"{name!r}: exit {run.code}, valid {valid}")
    return "never more than the validator takes"


@case("licence, languages, pipeline_tag of the base's own card", "huggingface_hub ModelCardData", "all of them, read back alike", H)
def _(place):
    from huggingface_hub import ModelCard, ModelCardData

    models_at(place, "base")
    data = ModelCardData(license="other", license_name="tiny-licence", license_link="LICENSE.md", language=["en", "no", "zh"],
                         pipeline_tag="feature-extraction", library_name="transformers", tags=["x"], datasets=["a/b"], base_model="other/base")
    ModelCard.from_template(data).save(place("base", "README.md"))
    return holds(edited(place, "base"), license="other", license_name="tiny-licence", license_link="LICENSE.md",
                 language=["en", "no", "zh"], pipeline_tag="feature-extraction", base_model=None)


@case("hostile front matter of a base's card", "by hand", "harmless: nothing of it is taken over", H)
def _(place):
    models_at(place, "base")
    bombs = [
        "---\na: &a [x,x,x]\nb: &b [*a,*a,*a]\nlicense: *b\n---\n", "---\nlicense: " + "[" * 300_000 + "\n---\n",
        "---\nlicense: mit\n---\n" + "x" * (8 << 20), "---\nlicense: !!python/object/apply:os.system ['true']\n---\n",
        '---\nlicense: "a\\n---\\nbase_model: forged/x"\n---\n', "---\nlicense: |\n  mit\n---\n", "\x00\xff", "---\n" * 100_000,
    ]
    for bomb in bombs:
        with open(place("base", "README.md"), "w", encoding="latin-1") as file:
            file.write(bomb)
        shutil.rmtree(place("out"), ignore_errors=True)
        holds(edited(place, "base"), license=None, base_model=None)
    os.remove(place("base", "README.md"))
    os.symlink("/etc/hostname", place("base", "README.md"))
    shutil.rmtree(place("out"), ignore_errors=True)
    return holds(edited(place, "base"), license=None)


@case("a base in the hub's cache", "huggingface_hub's layout, made by hand", "base_model ORG/NAME", H)
def _(place):
    models_at(place, "hub/models--org--tiny/snapshots/0123")
    return holds(edited(place, "hub/models--org--tiny/snapshots/0123"), base_model="org/tiny")


@case("names of tasks that are HTML, Markdown, YAML", "huggingface_hub ModelCard", "read back with nothing forged", H)
def _(place):
    models_at(place, "base")
    place.ok("add", "--base", "base", "-o", "out", "--from-checkpoints", "a`b|<script>'\"---=tune")
    return holds(card_of(place), base_model=None)
