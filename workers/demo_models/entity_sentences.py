"""Writes sentences about people, companies, places, dates, sums and products, and marks them."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Marked:
    """A text and its spans: start and end in code points, and the label."""

    text: str
    spans: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class Words:
    """The names and templates of one side of the split; the two sides share none of them."""

    first: tuple[str, ...]
    last: tuple[str, ...]
    stems: tuple[str, ...]
    places: tuple[str, ...]
    products: tuple[str, ...]
    templates: tuple[str, ...]


def listed(names: str) -> tuple[str, ...]:
    """Names from one text, separated by bars."""
    return tuple(names.split("|"))


TRAINING = Words(
    first=listed(
        "Anna|Ben|Carla|David|Elena|Farid|Grace|Hugo|Irina|Jonas|Keiko|Liam|Maria|Nadia|Oscar"
        "|Priya|Rosa|Samir|Tanja|Victor|Wei|Yusuf|Zoe|Chloé|Björn|Aisha|Pedro|Ingrid|Kofi|Mei"
    ),
    last=listed(
        "Smith|Keller|Rossi|Novak|García|Tanaka|Okafor|Dubois|Larsen|Ivanova|Khan|Murphy"
        "|Costa|Weber|Nguyen|Silva|Brown|Haddad|Lindqvist|Moreau|Patel|Schulz|Yamamoto|Adams"
    ),
    stems=listed(
        "Northwind|Contoso|Blue Harbour|Helix|Quantum Leaf|Sunrise|Ironbridge|Vega|Alpine"
        "|Redwood|Orion|Silver Creek|Atlas|Greenfield|Nimbus|Stonegate"
    ),
    places=listed(
        "Berlin|Lyon|Osaka|Madrid|Boston|Nairobi|Warsaw|Toronto|Lisbon|Mumbai|Oslo|Chicago"
        "|Munich|Sweden|Brazil|New Zealand|South Africa|Rotterdam|Zürich|Kyoto|Texas|Cairo"
        "|Dublin|San Diego"
    ),
    products=listed(
        "Falcon 3|ThinkPad X1|EcoKettle|SoundBar Pro|Galaxy Tab|PowerDrill 500|AirPods"
        "|Roomba i7|PixelCam|TrailRunner GT|CloudDesk|SmartLock 2|Kindle Oasis|GoPro Hero"
        "|Model Y|Surface Go|FreshBlend 900|NovaPhone 12|PrintJet 40|ZoomLens XL"
    ),
    templates=(
        "{person} joined {org} in {place} on {date}.",
        "{org} paid {amount} for {org}, {person} said.",
        "On {date} {person} ordered a {product} for {amount}.",
        "The {product} will be sold in {place} from {date}.",
        "{person} and {person} met in {place}.",
        "{org} will open an office in {place}.",
        "Please send the {product} to {person}, {place}.",
        "Invoice of {date}: {amount} for one {product}, {org}.",
        "{person}, who works for {org}, flew to {place} last week.",
        "The chief executive of {org}, {person}, resigned on {date}.",
        "Did {person} ever get the {product} from {org}?",
        "we bought the {product} in {place} and paid {amount}",
        "{place} has fined {org} {amount}.",
        "{person} was born in {place} on {date}.",
        "My {product} broke on {date}, and {org} refuses to refund {amount}.",
        "According to {org}, the {product} costs {amount} in {place}.",
        "{date}: meeting with {person} ({org}) in {place}",
        "Shares of {org} fell after the {product} was recalled in {place}.",
        "{person} sold the house in {place} for {amount}.",
        "Nothing of note happened in {place} until {date}.",
        "Transfer {amount} to {person} by {date}, please.",
        "{org} hired {person} to design the {product}.",
        "Thank you for your order. It will ship soon.",
        "The weather was fine and the meeting took two hours.",
        "{person}: I love my new {product}!",
        "Contact {person} at {org} about the {amount} still due.",
        "From {place} to {place} the train takes three hours.",
        "Rumour has it that {org} and {org} will merge by {date}.",
    ),
)
HELD_OUT = Words(
    first=listed("Laura|Martin|Sofia|Ahmed|Emma|Daniel|Olga|Kenji|Fatima|Paul|Astrid|Diego"),
    last=listed("Jones|Fischer|Bianchi|Kowalski|Lopez|Sato|Mensah|Laurent|Hansen|Petrova"),
    stems=listed("Cascade|Bright Path|Meridian|Falconer|Polaris|Old Mill|Titan|Clearwater"),
    places=listed(
        "Paris|Tokyo|London|Seattle|Hamburg|Canada|Vienna|Cape Town|Barcelona|Norway|Delhi|Glasgow"
    ),
    products=listed(
        "iPhone 15|SteamClean 2|Kestrel 5|MacBook Air|EcoToaster|PixelWatch|RapidDrill 80"
        "|SoundPods Max|TrailBike RS|HomeHub Mini"
    ),
    templates=(
        "Last night {person} told reporters in {place} that {org} had lost {amount}.",
        "{org} is recalling the {product} as of {date}.",
        "{person} lives in {place} and works at {org}.",
        "I would like to return the {product} that I bought on {date} for {amount}.",
        "A spokesman for {org} in {place} declined to comment.",
        "On {date}, {org} announced that {person} would lead the team in {place}.",
        "{amount} was transferred to {person} on {date}.",
        "Is the {product} available in {place}?",
        "{person} wrote to {org} to complain about the {product}.",
        "No one was hurt, and the shop opened again the next day.",
    ),
)
FORMS = ("{} Inc.", "{} GmbH", "{} Ltd", "{} Group", "{} Bank", "{} Airlines", "{} Foods", "{}")
MONTHS = listed(
    "January|February|March|April|May|June|July|August|September|October|November|December"
)


def sentence(rng: random.Random, words: Words) -> Marked:
    """One template with its slots filled, in a fifth of the cases without capitals."""
    template = rng.choice(words.templates)
    lower = rng.random() < 0.2
    text, spans, at = "", [], 0
    for slot in SLOT.finditer(template):
        text += template[at : slot.start()]
        value = fill(rng, words, slot[1])
        spans.append((len(text), len(text) + len(value), slot[1]))
        text += value
        at = slot.end()
    text += template[at:]
    # Lower case keeps the offsets: no letter used here changes its length.
    return Marked(text.lower() if lower else text, tuple(spans))


def fill(rng: random.Random, words: Words, label: str) -> str:
    """A person, org, place, date, amount or product."""
    if label == "person":
        first, last = rng.choice(words.first), rng.choice(words.last)
        return rng.choice((f"{first} {last}", f"{first} {last}", first, f"{first[0]}. {last}"))
    if label == "org":
        return rng.choice(FORMS).format(rng.choice(words.stems))
    if label == "place":
        return rng.choice(words.places)
    if label == "product":
        return rng.choice(words.products)
    return date(rng) if label == "date" else amount(rng)


def date(rng: random.Random) -> str:
    """A day, in one of several ways to write it."""
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1995, 2030)
    name = MONTHS[month - 1]
    return rng.choice(
        (
            f"{day} {name} {year}",
            f"{name} {day}, {year}",
            f"{year}-{month:02}-{day:02}",
            f"{day:02}.{month:02}.{year}",
            f"{name} {year}",
            f"{day} {name}",
        )
    )


def amount(rng: random.Random) -> str:
    """A sum of money, in one of several ways to write it."""
    units, cents = rng.randint(3, 9_999), rng.randint(0, 99)
    return rng.choice(
        (
            f"${units:,}",
            f"€{units}.{cents:02}",
            f"{units} euros",
            f"£{units:,}.{cents:02}",
            f"{rng.randint(2, 90)} million dollars",
            f"USD {units}",
            f"{units:,} yen",
        )
    )
