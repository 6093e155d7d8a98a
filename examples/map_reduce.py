"""Count the words of the Python language reference: map over pieces of text, reduce by word.

The text is the one that ``help()`` shows, which every Python brings along.
"""

from __future__ import annotations

import re
from collections import Counter
from pydoc_data.topics import topics
from zlib import crc32

import shoal as ray

MAPPERS = 8
REDUCERS = 4


def count_words(texts: list[str]) -> Counter[str]:
    return Counter(word for text in texts for word in re.findall(r"[a-z']+", text.lower()))


@ray.remote(num_returns=REDUCERS)
def map_texts(texts: list[str]) -> list[Counter[str]]:
    """Count the words, and send each to the reducer that is responsible for it."""
    parts: list[Counter[str]] = [Counter() for _ in range(REDUCERS)]
    for word, count in count_words(texts).items():
        # Not hash(): Python salts the hash of a string differently in each process.
        parts[crc32(word.encode()) % REDUCERS][word] = count
    return parts


@ray.remote
def reduce_counts(*parts: Counter[str]) -> Counter[str]:
    return sum(parts, Counter())


def main() -> None:
    ray.init()
    texts = list(topics.values())
    shards = [texts[i::MAPPERS] for i in range(MAPPERS)]

    mapped = [map_texts.remote(shard) for shard in shards]
    # Column r of the mappers' outputs goes to reducer r, straight from worker to worker.
    reduced = [reduce_counts.remote(*column) for column in zip(*mapped, strict=True)]

    counts: Counter[str] = Counter()
    for part in ray.get(reduced):
        counts.update(part)

    print(f"{counts.total():,} words, {len(counts):,} different ones. The most frequent:")
    for word, count in counts.most_common(5):
        print(f"  {word:<6} {count:>6,}")
    assert counts == count_words(texts)
    ray.shutdown()


if __name__ == "__main__":
    main()
