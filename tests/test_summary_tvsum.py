"""TVSum's figures of summaries: what scores choose, and what `vtg evaluate tvsum` makes of it over all domains."""

from __future__ import annotations

import json
import sys
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from vtg.cli import main as cli
from vtg.datasets import Prediction, Sample, load_samples
from vtg.evaluation.scoring import score_predictions, with_summary_figures
from vtg.features.npy import PublishedFeatures
from vtg.metrics import keyshots, summary_f1

DOMAINS = ("BK", "BT", "DS", "FM", "GA", "MS", "PK", "PR", "VT", "VU")


@pytest.fixture(scope="module")
def highlight_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A highlight-only head with random weights that reads 4 layers of 5 tokens, 64 wide."""
    import torch

    from vtg.r2 import HeadConfig, R2Head, save_head

    torch.manual_seed(2)
    config = HeadConfig(
        name="tiny-highlights", hidden_width=32, video_width=64, query_width=64, tokens=5, strides=(1,),
        moment_retrieval=False, temporal_extent=False, clip_model=None, clip_pretrained=None,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("head") / "highlights.safetensors"
    save_head(R2Head(config), path)
    return path


def test_the_shots_of_the_greatest_mean_scores_are_chosen() -> None:
    scores = np.array([1, 1, 5, 5, 2, 2, 2, 2, 4, 0], dtype=float)
    edges = np.array([0, 2, 4, 8, 9, 10])
    assert np.flatnonzero(keyshots(scores, edges, share=0.3)).tolist() == [2, 3, 8]
    assert np.flatnonzero(keyshots(scores, edges, share=0.2)).tolist() == [2, 3]
    assert not keyshots(scores, edges, share=0.05).any()
    # The mean of a shot counts, not its sum: 5 + 4 for three frames is more than 2 for four.
    assert np.flatnonzero(keyshots(scores, edges, share=0.4)).tolist() == [2, 3, 8]


def test_no_other_shots_within_the_budget_are_worth_more() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        edges = np.unique([0, *random.integers(1, 40, 8), 40])
        scores = random.normal(size=40)
        chosen = keyshots(scores, edges, share=0.35)
        lifted = scores - min(0, scores.min())
        shots = list(pairwise(edges))
        means = [lifted[first:stop].mean() for first, stop in shots]
        best = max(
            sum(means[i] for i in some)
            for size in range(len(shots) + 1)
            for some in combinations(range(len(shots)), size)
            if sum(shots[i][1] - shots[i][0] for i in some) <= int(0.35 * 40)
        )
        assert chosen.sum() <= 14
        worth = sum(mean for mean, (first, _) in zip(means, shots, strict=True) if chosen[first])
        assert worth == pytest.approx(best)


def sample(name: str, ratings: np.ndarray, domain: str) -> Sample:
    return Sample(name, name, "a title", 2.0 * len(ratings), ratings=ratings, domain=domain, split="val")


def test_figures_are_means_over_domains_of_their_videos() -> None:
    random = np.random.default_rng(1)
    samples = [sample(f"v{i}", random.integers(1, 6, (30 + i, 20)).astype(float), "AB"[i > 0]) for i in range(3)]
    # The last video lacks a frame for its last clip.
    predicted = [random.random(len(each.ratings) - (i == 2)) for i, each in enumerate(samples)]  # type: ignore[arg-type]
    predictions = [Prediction(each.query_id, saliency=values) for each, values in zip(samples, predicted, strict=True)]
    shots = {each.video_id: np.array([0.0, 11.0, 20.0, 41.0, each.duration]) for each in samples}
    scores = with_summary_figures(score_predictions(predictions, samples, "tvsum"), lambda each: shots[each.video_id])
    f1, tau, rho = [], [], []
    for each, values in zip(samples, predicted, strict=True):
        assert each.ratings is not None
        users, clips = each.ratings.T, len(each.ratings)
        edges = np.array([0, 6, 10, 20, clips])  # 11 s is nearer to the clip that begins at 12 s, 41 s to that at 40 s
        whole = np.concatenate([values, np.full(clips - len(values), values.min())])
        f1.append(summary_f1(keyshots(whole, edges), np.stack([keyshots(user, edges) for user in users])).mean)
        tau.append(np.mean([kendalltau(values, user[: len(values)]).statistic for user in users]))
        rho.append(np.mean([spearmanr(values, user[: len(values)]).statistic for user in users]))
    for figure, of_videos in (("F1", f1), ("tau", tau), ("rho", rho)):
        by_domain = {"A": of_videos[0], "B": np.mean(of_videos[1:])}
        assert scores.breakdown[figure] == pytest.approx(by_domain, abs=1e-5)
        assert scores.brief[figure] == pytest.approx(np.mean(list(by_domain.values())), abs=1e-5)
        assert scores.per_query[figure].mean() == pytest.approx(scores.brief[figure], abs=1e-5)
    assert 0 < scores.brief["mAP"] <= 1


def test_a_prediction_that_ranks_nothing_agrees_with_nobody() -> None:
    ratings = np.random.default_rng(2).integers(1, 6, (20, 20)).astype(float)
    flat = [Prediction("v", saliency=np.zeros(20))]
    scores = with_summary_figures(
        score_predictions(flat, [sample("v", ratings, "A")], "tvsum"), lambda each: np.array([0.0, 10.0, 40.0])
    )
    assert (scores.brief["tau"], scores.brief["rho"]) == (0.0, 0.0)


def test_the_users_mean_agrees_with_the_users(shared: Path) -> None:
    samples = load_samples(shared / "annotations" / "tvsum" / "tvsum_val.jsonl", "tvsum")

    def figures(values: list[np.ndarray]) -> dict[str, float]:
        predictions = [Prediction(each.query_id, saliency=row) for each, row in zip(samples, values, strict=True)]
        even = {each.video_id: np.append(np.arange(0.0, each.duration, 6.0), each.duration) for each in samples}
        scored = score_predictions(predictions, samples, "tvsum")
        return dict(with_summary_figures(scored, lambda each: even[each.video_id]).brief)

    random = np.random.default_rng(0)
    best = figures([each.saliency for each in samples])  # type: ignore[misc]
    chance = figures([random.random(len(each.saliency)) for each in samples])  # type: ignore[arg-type]
    assert best["tau"] > 0.2 and best["rho"] > 0.3 and best["F1"] > chance["F1"] + 0.1
    assert abs(chance["tau"]) < 0.05 and abs(chance["rho"]) < 0.05


def test_evaluating_tvsum_covers_all_domains_and_their_mean(
    tmp_path: Path, highlight_head: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vtg.datasets.splits import videos_of

    random = np.random.default_rng(3)
    published = PublishedFeatures(tmp_path)
    lines = []
    for domain in DOMAINS:
        video = videos_of("tvsum", domain, "val")[0]
        shot = np.repeat(random.normal(size=(4, 64)), 6, axis=0)
        layers = random.normal(size=(24, 4, 5, 64))
        layers[:, -1, 0] = 4 * shot + 0.2 * random.normal(size=shot.shape)
        published.write_video(video, layers)
        published.write_query(video, random.normal(size=(5, 4, 64)))
        ratings = random.integers(1, 6, (24, 20)).tolist()
        lines.append({"qid": video, "vid": video, "query": "a title", "duration": 24, "label": ratings})
    (tmp_path / "tvsum_val.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--features", tmp_path, "--annotations", tmp_path / "tvsum_val.jsonl", "--model", highlight_head]
    words += ["--out", tmp_path / "predictions.jsonl"]
    monkeypatch.setattr(sys, "argv", ["vtg", "evaluate", "tvsum", *map(str, words), "--json"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code in (0, None)
    document = json.loads(capsys.readouterr().out)
    brief = document["brief"]
    assert set(brief) == {"mAP", "F1", "tau", "rho", *DOMAINS}
    for figure in ("F1", "tau", "rho"):
        assert set(document[figure]) == set(DOMAINS)
        assert brief[figure] == pytest.approx(np.mean(list(document[figure].values())), abs=1e-5)
    assert brief["mAP"] == pytest.approx(np.mean([brief[domain] for domain in DOMAINS]), abs=1e-5)
    predicted = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert all(len(line["pred_saliency_scores"]) == 24 for line in predicted)
    # With the shots that the features were made of, the F1 of a domain's one video can be counted again.
    saliency = np.array(predicted[0]["pred_saliency_scores"])
    users = np.array(lines[0]["label"], dtype=float).T
    edges = np.array([0, 6, 12, 18, 24])
    expected = summary_f1(keyshots(saliency, edges), np.stack([keyshots(user, edges) for user in users])).mean
    assert document["F1"][DOMAINS[0]] == pytest.approx(expected, abs=1e-5)
