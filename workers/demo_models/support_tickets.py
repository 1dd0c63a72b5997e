"""Writes support tickets: what people ask, in many words, with the slips that people make."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

TRAINING: dict[str, tuple[str, ...]] = {
    "account-access": (
        "I can't log in to my account, it keeps saying wrong password",
        "the password reset e-mail for {email} never arrives",
        "my account has been locked after too many attempts",
        "the two-factor code you text me does not work",
        "I changed my phone and now I cannot get past the login screen",
        "how do I recover an account if I lost access to {email}?",
        "your site logs me out every few minutes",
        "someone else seems to have signed in as me, please secure my account",
        "I forgot which e-mail I signed up with",
        "please unlock my user, I need to get in before {day}",
    ),
    "cancel-order": (
        "please cancel order {order}, I ordered the wrong size",
        "I want to cancel the {product} I bought on {day}",
        "can you stop order {order} before it ships?",
        "I ordered the {product} twice by mistake, drop one of them",
        "changed my mind, don't send the {product}",
        "is it too late to call off order {order}?",
        "kindly annul my purchase of the {product}",
        "I no longer need the {product}, please take it out of my order",
        "my kid ordered a {product} without asking, cancel it please",
        "cancel everything I ordered on {day}",
    ),
    "change-address": (
        "I moved house, please deliver order {order} to {street} instead",
        "can you update the delivery address to {street}?",
        "I entered the wrong postcode for my {product}",
        "please send the parcel to my office at {street}",
        "how do I change where my {product} gets delivered?",
        "my shipping address is out of date, it should be {street}",
        "redirect order {order} to my neighbour at {street}",
        "the house number is missing in my address for order {order}",
        "I will be away on {day}, can it go to a pick-up point instead of my home?",
        "new address for all future orders: {street}",
    ),
    "damaged-item": (
        "the {product} arrived with a crack across it",
        "my {product} stopped working after {days} days",
        "one of the parts of the {product} is missing from the box",
        "the {product} won't switch on at all",
        "box was crushed and the {product} inside is broken",
        "I got a {product} that is clearly scratched and used",
        "the {product} makes a strange noise and smells of burning",
        "received a faulty {product}, can you replace it?",
        "the zip of the {product} broke the first time I used it",
        "the {product} from order {order} leaks",
    ),
    "order-status": (
        "where is my order {order}?",
        "the tracking for my {product} has not moved since {day}",
        "when will the {product} get here?",
        "my {product} was supposed to come on {day} and it is still not here",
        "has order {order} been sent yet?",
        "it says delivered but I never got the {product}",
        "can you give me the tracking number for {order}?",
        "how long does delivery of a {product} take?",
        "still waiting for my parcel after {days} days",
        "which courier is bringing order {order}?",
    ),
    "payment-problem": (
        "my card was declined but I have enough money",
        "I was charged twice for order {order}",
        "the checkout page gives an error when I pay",
        "can I pay for the {product} by bank transfer?",
        "you took {amount} from my account and I don't know why",
        "the discount code is not accepted at checkout",
        "I need an invoice with VAT for order {order}",
        "the price at checkout was {amount} more than shown for the {product}",
        "paypal says pending since {day}",
        "my invoice for the {product} shows the wrong company name",
    ),
    "product-question": (
        "does the {product} come in other colours?",
        "is the {product} waterproof?",
        "what are the dimensions of the {product}?",
        "will the {product} work in the UK as well?",
        "when is the {product} back in stock?",
        "which {product} would you recommend for a beginner?",
        "is there a manual for the {product} in German?",
        "does the {product} need batteries?",
        "how long is the warranty on the {product}?",
        "what is the difference between the {product} and the {other}?",
    ),
    "refund": (
        "I returned the {product} {days} days ago and still have no money back",
        "I would like a refund for order {order}",
        "please give me my {amount} back",
        "how do I send the {product} back and get reimbursed?",
        "not happy with the {product}, I want to return it",
        "when will the refund for order {order} show on my card?",
        "you only refunded {amount}, the rest is missing",
        "can I return the {product} without the original box?",
        "where do I find the return label for the {product}?",
        "I sent the {product} back on {day}, please pay me out",
    ),
}
"""Ten ways to say each of the eight things."""

HELD_OUT: dict[str, tuple[str, ...]] = {
    "account-access": (
        "I am stuck at the sign-in page, my credentials are not recognised",
        "need help getting back into my profile, the reset link has expired",
        "my login is blocked, what now?",
        "the verification SMS never shows up so I can't enter my account",
    ),
    "cancel-order": (
        "could you withdraw my order for the {product}? it was a mistake",
        "I don't want order {order} any more, please don't ship it",
        "abort the purchase of the {product} I made on {day}",
        "please remove order {order} from your system, found it elsewhere",
    ),
    "change-address": (
        "please ship the {product} to {street}, I don't live at the old place any more",
        "there is a typo in the street name of order {order}",
        "I need my order to go to a different address",
        "deliver it to my parents at {street} rather than to me",
    ),
    "damaged-item": (
        "the {product} you sent me is defective",
        "my new {product} came in pieces",
        "after {days} days the {product} is already dead",
        "there is a hole in the {product}, it must have happened in transport",
    ),
    "order-status": (
        "any news on my {product}? ordered on {day}",
        "I have been expecting my package for {days} days, what is going on?",
        "what is the delivery date of {order}?",
        "my shipment {order} seems to be lost in the post",
    ),
    "payment-problem": (
        "my credit card does not go through",
        "there are two debits of {amount} on my bank statement",
        "please send me a receipt for the {product} for my tax",
        "the voucher does not take anything off the total",
    ),
    "product-question": (
        "can I use the {product} outdoors in the rain?",
        "how heavy is the {product}?",
        "do you sell spare parts for the {product}?",
        "is the {product} suitable for children?",
    ),
    "refund": (
        "I want my money back for the {product}",
        "it has been {days} days since you received my return and nothing was credited",
        "how many days do I have to send back the {product}?",
        "the {amount} you owe me for order {order} has not arrived",
    ),
}
"""Four more, which only the test uses."""


def listed(names: str) -> tuple[str, ...]:
    """Names from one text, separated by bars."""
    return tuple(names.split("|"))


SLOTS: dict[str, tuple[str, ...]] = {
    "product": listed(
        "kettle|desk lamp|rucksack|tent|coffee grinder|headphones|office chair|bicycle pump"
        "|rain coat|blender|phone case|monitor|running shoes|air fryer|suitcase|water bottle"
        "|keyboard|sofa bed|drill|yoga mat|toaster|hiking boots|tablet|smart watch"
    ),
    "day": listed("Monday|Tuesday|Friday|last Sunday|3 May|the 14th|12 November|Saturday"),
    "street": listed(
        "12 Mill Lane, York|Hauptstr. 7, Bonn|4 rue des Lilas, Lyon|221 Oak Avenue, Leeds"
        "|Via Roma 18, Turin|33 Harbour Road, Cork"
    ),
    "email": listed("anna@example.com|j.smith@example.org|my work address|my gmail"),
}
GREETINGS = ("", "", "", "hi, ", "Hello, ", "hey there, ", "Dear team, ", "Good morning. ")
CLOSINGS = ("", "", "", " thanks", " Thank you!", " please hurry", " Best, Tom", " cheers", "!!")


def ticket(rng: random.Random, template: str) -> str:
    """One ticket: the template filled in, with a greeting, a closing and slips."""
    product, other = rng.sample(SLOTS["product"], 2)
    text = template.format(
        product=product,
        other=other,
        order=rng.choice(("#{}", "no. {}", "{}")).format(rng.randint(10_000, 999_999)),
        amount=rng.choice(("{} euros", "${}", "{} pounds")).format(rng.randint(5, 400)),
        days=rng.randint(2, 30),
        **{name: rng.choice(SLOTS[name]) for name in ("day", "street", "email")},
    )
    text = rng.choice(GREETINGS) + text + rng.choice(CLOSINGS)
    if rng.random() < 0.25:
        text = text.lower().replace("'", "")
    return misspelt(rng, text) if rng.random() < 0.35 else text


def misspelt(rng: random.Random, text: str) -> str:
    """The text with two neighbouring letters swapped, or one letter left out."""
    at = rng.randrange(1, len(text) - 2)
    if rng.random() < 0.5:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + text[at + 1 :]


def tickets(
    rng: random.Random, templates: Mapping[str, Sequence[str]], each: int
) -> list[tuple[str, str]]:
    """Tickets with their intent, ``each`` of every template, shuffled."""
    written = [
        (ticket(rng, template), intent)
        for intent, ways in templates.items()
        for template in ways
        for _ in range(each)
    ]
    rng.shuffle(written)
    return written
