"""Cuts rows of different lengths into the micro-batches that cost least."""

from __future__ import annotations

from collections.abc import Sequence


def micro_batches(lengths: Sequence[int], token_budget: int, pass_tokens: int) -> list[list[int]]:
    """Groups of row indexes, shortest rows first, every row once.

    A group padded to its longest row holds at most ``token_budget`` tokens; a row longer than that
    goes alone. Every token costs the same, padding too, and each group costs ``pass_tokens`` more:
    so many tokens take as long as a forward pass does beside its tokens. Of all ways to cut the
    sorted rows this is the cheapest (dynamic programming over where the last group begins).
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    cheapest = [0]
    begins = [0]
    for end, index in enumerate(order, 1):
        longest = lengths[index]
        best, begin = cheapest[end - 1] + longest, end - 1
        most_rows = token_budget // longest if longest else end
        for start in range(end - 2, max(0, end - most_rows) - 1, -1):
            if longest - lengths[order[start]] > pass_tokens:
                break  # cutting here costs one more pass and saves more padding than that
            cost = cheapest[start] + (end - start) * longest
            if cost < best:
                best, begin = cost, start
        cheapest.append(best + pass_tokens)
        begins.append(begin)
    groups = []
    end = len(order)
    while end:
        groups.append(order[begins[end] : end])
        end = begins[end]
    return groups[::-1]
