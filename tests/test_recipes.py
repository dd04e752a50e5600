"""Recipes: the published facts, what a file of one's own may say, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtg.datasets import DATASETS, domains
from vtg.errors import VtgError
from vtg.recipes import available_recipes, load_recipe


def own(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(content, encoding="utf-8")
    return path


def test_every_data_set_has_a_recipe_and_every_recipe_loads() -> None:
    recipes = [load_recipe(name) for name in available_recipes()]
    assert {recipe.data.dataset for recipe in recipes} == set(DATASETS)
    assert [recipe.name for recipe in recipes] == list(available_recipes())


@pytest.mark.parametrize(("name", "count"), [("youtube", 6), ("tvsum", 10)])
def test_the_domains_of_a_recipe_are_those_of_its_data_set(name: str, count: int) -> None:
    members = load_recipe(name).members
    assert len(members) == count
    assert [load_recipe(member).data.domain for member in members] == list(domains(name))


def test_published_facts() -> None:
    charades, tacos, youtube = load_recipe("charades"), load_recipe("tacos"), load_recipe("youtube-gym")
    assert (charades.data.fps, charades.evaluation.unit, charades.evaluation.nms) == (1.0, 0.1, "linear")
    assert tacos.data.video_feature_file("s30-d52").name == "s30-d52-cam-002.npy"
    assert (youtube.data.domain, youtube.data.fps, youtube.evaluation.nms) == ("gymnastics", None, None)
    assert youtube.data.query_feature_file("abc", "abc").name == "abc.npy"
    assert load_recipe("qvhighlights").data.folder == Path("data/qvhighlights")


def test_rates_units_and_suppression_agree_with_the_model_registry() -> None:
    from vtg.models.registry import registry

    for name in available_recipes():
        entry = registry().get(f"r2-{name}")
        recipe = load_recipe(name)
        if entry is None or entry.repository is None:
            continue
        assert entry.unit == recipe.evaluation.unit, name
        assert entry.nms == recipe.evaluation.nms, name
        assert recipe.data.fps in (entry.fps, None), name


def test_a_recipe_of_ones_own_counts_folders_from_its_own(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "val.jsonl").write_text("", encoding="utf-8")
    recipe = load_recipe(
        own(tmp_path, '[data]\nfolder = "sets"\nannotations = { val = "val.jsonl" }\nfps = 2\n[evaluation]\nunit = 1\n')
    )
    assert recipe.data.annotation_file("val") == tmp_path / "sets" / "val.jsonl"
    assert (recipe.name, recipe.data.dataset, recipe.data.fps, recipe.evaluation.unit) == ("mine", "own", 2.0, 1.0)


def test_a_base_is_taken_over_but_for_its_folder(tmp_path: Path) -> None:
    recipe = load_recipe(own(tmp_path, 'base = "charades"\n[data]\nfps = 4\n'))
    assert (recipe.data.fps, recipe.evaluation.nms, recipe.data.folder) == (4.0, "linear", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[data]\nfsp = 1\n", "there is no data.fsp; did you mean data.fps?"),
        ("[dta]\nfps = 1\n", "there is no dta; did you mean data?"),
        ("[evaluation]\nzzz = 1\n", "there is no evaluation.zzz; known are"),
        ("[data]\nfps = '1'\n", "data.fps must be a number of at least 0, not '1'"),
        ("[data]\nfps = true\n", "data.fps must be a number of at least 0, not True"),
        ("[data]\nfps = nan\n", "data.fps must be a number of at least 0, not nan"),
        ("[data]\ndataset = 3\n", "data.dataset must be a text, not 3"),
        ("[data]\nannotations = 'a.jsonl'\n", "data.annotations must name files by part"),
        ("[data]\nannotations = { val = [] }\n", "data.annotations.val must be a file name or a list of them"),
        ("[data]\nvideo_name = '{video}'\n", "data.video_name is '{video}'; only {vid} and {qid}"),
        ("[evaluation]\nnms = 'soft'\n", "evaluation.nms is 'soft'; it is one of normal, linear, gaussian"),
        ("data = 3\n", "data must be a section"),
        ("base = 3\n", "base must be the name of a published recipe"),
        ("base = 'qvhighlight'\n", "there is no recipe 'qvhighlight'; did you mean qvhighlights?"),
        ("[domains]\na = 'b'\n", "[domains] is for the published recipes"),
        ("[data\n", "not valid TOML"),
    ],
)
def test_what_no_recipe_has_is_an_error_of_one_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(VtgError) as caught:
        load_recipe(own(tmp_path, content))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VtgError, match="there is no such recipe"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(VtgError, match="did you mean youtube-dog"):
        load_recipe("youtube-dogs")


def test_missing_annotations_are_named(tmp_path: Path) -> None:
    recipe = load_recipe(own(tmp_path, 'base = "tacos"\n'))
    with pytest.raises(VtgError, match=r"no annotations for val; put val\.jsonl or tacos_val\.jsonl there"):
        recipe.data.annotation_file("val")
    with pytest.raises(VtgError, match="has no part 'dev'; it has train, val, test"):
        recipe.data.annotation_file("dev")


def test_the_samples_of_a_domain_are_those_of_its_part() -> None:
    data = load_recipe("youtube-dog").data
    file = Path(__file__).parent / "data" / "metrics" / "youtube_anno.json"
    assert [sample.domain for sample in data.samples("val", file)] == ["dog"] * 5
    assert len(data.samples("train", file)) == 1
    with pytest.raises(VtgError, match="no samples for val in the domain parkour"):
        load_recipe("youtube-par").data.samples("val", file)


def test_short_videos_are_left_out_of_training_only(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        "".join(
            f'{{"qid": {qid}, "vid": "v", "query": "q", "duration": {duration}, "relevant_windows": [[0, 1]]}}\n'
            for qid, duration in ((1, 4.9), (2, 5.0))
        ),
        encoding="utf-8",
    )
    data = load_recipe("charades").data
    assert [sample.query_id for sample in data.samples("train", tmp_path / "a.jsonl")] == [2]
    assert [sample.query_id for sample in data.samples("test", tmp_path / "a.jsonl")] == [1, 2]


def test_a_data_set_of_ones_own_is_read_like_the_others(tmp_path: Path) -> None:
    line = '{"qid": "q1", "vid": "v", "query": "q", "duration": 9, "relevant_windows": [[0, 1]]}\n'
    (tmp_path / "val.jsonl").write_text(line, encoding="utf-8")
    data = load_recipe(own(tmp_path, '[data]\nannotations = { val = "val.jsonl" }\n')).data
    assert [sample.query_id for sample in data.samples("val")] == ["q1"]


@pytest.mark.parametrize(
    ("name", "batch", "epochs", "rate", "drop", "warmup", "repeats", "dropout", "sal"),
    [
        ("qvhighlights", 128, 30, 5e-4, 20, 500, 4, 0.5, 0.1),
        ("charades", 32, 50, 2.5e-4, 30, 500, 1, 0.35, 0.01),
        ("tacos", 32, 100, 2.5e-4, 50, 500, 1, 0.5, 0.05),
        ("ego4d", 32, 30, 2.5e-4, 20, 500, 1, 0.3, 0.1),
        ("youtube-dog", 4, 200, 5e-4, None, 50, 1, 0.5, 0.1),
        ("tvsum-bk", 4, 500, 5e-4, None, 50, 1, 0.5, 0.1),
    ],
)
def test_published_training(
    name: str,
    batch: int,
    epochs: int,
    rate: float,
    drop: int | None,
    warmup: int,
    repeats: int,
    dropout: float,
    sal: float,
) -> None:
    recipe = load_recipe(name)
    train, model = recipe.train, recipe.model
    assert (train.batch, train.epochs, train.rate, train.rate_drop_epoch) == (batch, epochs, rate, drop)
    assert (train.warmup_steps, train.repeats, model.dropout, train.sal) == (warmup, repeats, dropout, sal)
    assert (train.weight_decay, train.clip_norm, train.cls, train.video_cal, train.layer_cal) == (
        1e-4,
        35.0,
        1.0,
        0.1,
        0.1,
    )
    assert (model.hidden_width, model.layers, model.drop_path, model.attention_heads) == (256, 4, 0.1, 8)
    highlights = recipe.data.dataset in ("youtube", "tvsum")
    assert model.moment_retrieval is model.temporal_extent is not highlights
    assert model.strides == ((1,) if highlights else (1, 2, 4, 8))
    positive = {"youtube": "above half", "tvsum": "above median"}
    assert train.positive == positive.get(recipe.data.dataset, "above 0")
    assert recipe.data.min_duration == (0.0 if highlights else 5.0)


def test_settings_hold_instead_of_a_recipes_values() -> None:
    settings = [
        "train.rate=1e-4",
        "evaluation.metric=MR-full-R1@0.5",
        "model.strides=[1, 2]",
        "train.rate_drop_epoch=none",
    ]
    recipe = load_recipe("qvhighlights", [*settings, "data.folder=elsewhere", "model.temporal_extent=false"])
    assert (recipe.train.rate, recipe.evaluation.metric) == (1e-4, "MR-full-R1@0.5")
    assert (recipe.model.strides, recipe.train.rate_drop_epoch) == ((1, 2), None)
    assert (recipe.data.folder, recipe.model.temporal_extent) == (Path("elsewhere"), False)
    assert load_recipe("qvhighlights").train.rate == 5e-4
    both = load_recipe("qvhighlights", ["train.queries_per_video=12", "train.batch=24"])  # each alone would not do
    assert (both.train.queries_per_video, both.train.batch) == (12, 24)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.rte=1", "there is no train.rte; did you mean train.rate?"),
        ("rate=1", "there is no rate; did you mean train.rate?"),
        ("train.rate", "has no value; write it like train.rate=1e-4"),
        ("train.rate=fast", "train.rate must be a number of at least 0, not 'fast'"),
        ("train.batch=8.5", "train.batch must be a whole number of at least 0, not 8.5"),
        ("train.batch=0", "train.batch must be at least 1, not 0"),
        ("train.batch=none", "train.batch must be a whole number of at least 0, not 'none'"),
        ("train.queries_per_video=3", "train.batch 128 is not a multiple of train.queries_per_video 3"),
        ("train.precision=fp61", "train.precision is 'fp61'; it is one of float32, bf16, fp16"),
        ("train.positive=above", "train.positive is 'above'; it is one of above 0, above half, above median"),
        ("model.strides=2", "model.strides must be a list of whole numbers, not 2"),
        ("model.spatial_pooling=0", "model.spatial_pooling must be true or false, not 0"),
        ("modl.layers=2", "there is no modl.layers; did you mean model.layers?"),
    ],
)
def test_a_wrong_setting_is_an_error_of_one_line(setting: str, message: str) -> None:
    with pytest.raises(VtgError) as caught:
        load_recipe("qvhighlights", [setting])
    assert str(caught.value).startswith("--set ") and message in str(caught.value)
    assert "\n" not in str(caught.value)
