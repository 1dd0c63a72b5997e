"""What the demo models learn from: honest splits and marks that fit."""

from __future__ import annotations

import random

import numpy as np
import pytest

from workers.demo_models import entity_sentences, fraud, support_tickets
from workers.demo_models.average_precision import Found, average_precision, overlap
from workers.demo_models.entity_sentences import HELD_OUT, TRAINING, sentence
from workers.demo_models.shape_scenes import SIDE, draw_scene


@pytest.mark.parametrize("words", ["first", "last", "stems", "places", "products", "templates"])
def test_no_name_or_template_of_the_entity_test_was_seen_in_training(words: str) -> None:
    assert not set(getattr(TRAINING, words)) & set(getattr(HELD_OUT, words))


def test_no_ticket_template_of_the_test_was_seen_in_training() -> None:
    trained = {template for ways in support_tickets.TRAINING.values() for template in ways}
    tested = {template for ways in support_tickets.HELD_OUT.values() for template in ways}
    assert not trained & tested
    assert support_tickets.TRAINING.keys() == support_tickets.HELD_OUT.keys()


def test_marks_cut_out_what_was_filled_in() -> None:
    rng = random.Random(1)
    for _ in range(200):
        marked = sentence(rng, TRAINING)
        for start, end, label in marked.spans:
            piece = marked.text[start:end]
            assert piece == piece.strip() != ""
            if label == "place":
                assert piece.lower() in {place.lower() for place in TRAINING.places}


def test_dates_and_sums_come_in_many_forms() -> None:
    rng = random.Random(2)
    assert len({entity_sentences.date(rng)[-3:].isdigit() for _ in range(50)}) == 2
    assert len({entity_sentences.amount(rng)[0] for _ in range(100)}) > 5


def test_shapes_keep_apart_and_inside_their_picture() -> None:
    rng = random.Random(3)
    for _ in range(100):
        boxes = [shape.box for shape in draw_scene(rng, 2 * SIDE).shapes]
        assert boxes
        assert all(0 <= edge <= 2 * SIDE for box in boxes for edge in box)
        assert all(overlap(a, b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_scene_is_the_same_at_every_size() -> None:
    small, large = draw_scene(random.Random(4)), draw_scene(random.Random(4), 4 * SIDE)
    for one, other in zip(small.shapes, large.shapes, strict=True):
        assert one.label == other.label
        assert other.box == tuple(4 * edge for edge in one.box)


def test_payments_come_with_gaps_only_where_the_signature_allows() -> None:
    features, outcomes, _ = fraud.payments(2000, seed=5)
    gaps = np.isnan(features).any(axis=0)
    assert gaps.tolist() == [feature.optional for feature in fraud.FEATURES]
    assert 0.01 < outcomes.mean() < 0.2


def test_average_precision_of_a_worked_example() -> None:
    near, far = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)
    truth = [(0, "a", near), (1, "a", near)]
    found = [
        Found(0, "a", 0.9, near),
        Found(0, "a", 0.8, far),
        Found(1, "a", 0.7, (0.0, 0.0, 10.0, 9.0)),
        Found(1, "a", 0.2, near),
    ]
    figures = average_precision(found, truth)
    # Right, wrong, right, the same again: precision 1 up to half of the recall, then 2/3.
    assert figures["map_50"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert figures["f1_50"] == pytest.approx(2 * 2 / (3 + 2))
