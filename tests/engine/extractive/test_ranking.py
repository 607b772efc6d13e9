"""Centrality, likeness and picking without repetition."""

from __future__ import annotations

import numpy as np
import pytest

from app.engine.extractive.ranking import pick, rank, terms

TEXTS = [
    "The tidal station supplies the town with electricity.",
    "Electricity from the tidal station is cheap for the town.",
    "The town council praised the tidal station and its electricity.",
    "My cousin collects old stamps.",
]


def test_the_text_that_shares_nothing_is_the_least_central() -> None:
    """TextRank (Mihalcea & Tarau 2004), LexRank (Erkan & Radev 2004)."""
    ranking = rank(TEXTS)
    assert int(ranking.centrality.argmin()) == 3
    assert ranking.centrality.mean() == pytest.approx(1.0)


def test_a_title_is_most_like_the_text_that_repeats_it() -> None:
    ranking = rank(TEXTS, "Cousin collects stamps")
    assert int(ranking.title_similarity.argmax()) == 3
    assert float(ranking.title_similarity[0]) == pytest.approx(0.0)


def test_similarity_is_symmetric_and_one_with_itself() -> None:
    similarity = rank(TEXTS).similarity
    assert np.allclose(similarity, similarity.T)
    assert np.allclose(np.diag(similarity), 1.0)


def test_twins_are_alike() -> None:
    assert rank(["The same words.", "The same words!"]).similarity[0, 1] == pytest.approx(1.0)


def test_a_twin_of_what_was_picked_comes_last() -> None:
    """MMR (Carbonell & Goldstein 1998)."""
    texts = [TEXTS[0], TEXTS[0] + " Really.", "The harbour crabs have recovered well."]
    ranking = rank(texts)
    order = list(pick(np.array([1.0, 0.95, 0.8]), ranking.similarity, range(3)))
    assert order == [0, 2, 1]


def test_what_is_to_be_avoided_counts_as_picked() -> None:
    texts = [TEXTS[0], TEXTS[0] + " Really.", "The harbour crabs have recovered well."]
    ranking = rank(texts)
    order = pick(np.array([1.0, 0.95, 0.8]), ranking.similarity, [1, 2], avoid=[0])
    assert next(order) == 2


def test_terms_are_words_or_grams_where_there_are_no_spaces() -> None:
    assert list(terms("The town's plan, 2024!")) == ["the", "town", "plan", "2024"]
    assert list(terms("潮汐电")) == ["潮汐", "汐电", "潮汐电"]
    assert list(terms("ปู AI")) == ["ปู", "ai"]
    assert list(terms("… — !")) == []


@pytest.mark.parametrize("texts", [[""], ["…", "…"], ["one"], ["a", "a", "a"], ["🙂", "🙃"]])
def test_texts_without_words_are_ranked_alike(texts: list[str]) -> None:
    ranking = rank(texts, "")
    assert np.isfinite(ranking.centrality).all()
    assert sorted(pick(ranking.centrality, ranking.similarity, range(len(texts)))) == list(
        range(len(texts))
    )


def test_nothing_to_pick_from_yields_nothing() -> None:
    assert list(pick(np.ones(1), np.ones((1, 1)), [])) == []
