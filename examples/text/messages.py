"""Messages to a shop, made by a small grammar: what customers write, in which of four queues it belongs; trains nothing."""

from __future__ import annotations

import re

import numpy as np

QUEUES = ("delivery", "payment", "fault", "return")

# A rule's <names> stand for other rules; one of each rule's alternatives is taken.
GRAMMAR: dict[str, tuple[str, ...]] = {
    "delivery": (
        "<hello> the parcel with my <thing> <was due> <day> and it <not there> . <please>",
        "<please> tell me when order <number> arrives , the tracking page says nothing since <day>",
        "the courier left my <thing> at <place> , and <nobody> found it . <please>",
        "<hello> I moved house , can the <thing> still go to another address ? the bill can stay as it is",
        "I paid for express on <day> and the <thing> <not there> . where is it ?",
    ),
    "payment": (
        "<hello> my card was charged twice for <one thing> . <please>",
        "the bill for order <number> says <number> euros more than the shop did . <please>",
        "<please> send me an invoice with our tax number , the <thing> came on <day> without one",
        "I sent the <thing> back on <day> and the money <not there> . <please>",
        "the voucher from the <newsletter> is not taken off , although the <thing> is not in the sale",
    ),
    "fault": (
        "<hello> the <thing> <stopped> after <span> . I <tried> , it did not help",
        "my <thing> makes a noise since <day> and <stopped> once . is that normal ?",
        "the <thing> arrived on time , but it <stopped> on the first evening . <please>",
        "after the update the <thing> <stopped> , and <nobody> on the phone knew why",
        "the <part> of my <thing> is broken after <span> , do you have that as a spare part ?",
    ),
    "return": (
        "<hello> I would like to send <one thing> back , it is <not mine> . <please>",
        "<please> send me a label , the <thing> is <not mine> and still in its box",
        "I ordered two by mistake , one <thing> can go back . how long do I have ?",
        "the <thing> was a gift and is <not mine> . can I change it for another one ?",
        "is the <thing> taken back when the box was opened on <day> ? it works , it is just <not mine>",
    ),
    "hello": ("hello ,", "good morning ,", "hi there ,", "dear team ,", "", "", ""),
    "please": ("please help", "could you look into it ?", "thank you", "what can I do ?", "please", "kind regards"),
    "thing": ("kettle", "lamp", "phone", "printer", "blender", "keyboard", "watch", "drill", "speaker", "toaster"),
    "one thing": ("one <thing>", "the <thing>", "a <thing> from <day>", "order <number>"),
    "was due": ("was due on", "was promised for", "should have come"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday"),
    "not there": ("is not here yet", "never came", "has not arrived", "is still missing"),
    "place": ("the wrong door", "the neighbours", "some shop", "the garage"),
    "nobody": ("nobody", "no one", "none of us"),
    "number": ("12", "74", "118", "302", "4410"),
    "newsletter": ("newsletter", "letter", "advertisement"),
    "stopped": ("stopped working", "does not turn on", "went dead", "keeps switching off", "gets very hot"),
    "span": ("two days", "a week", "three months", "an hour"),
    "tried": ("charged it overnight", "changed the plug", "read the manual", "pressed reset"),
    "part": ("lid", "button", "cable", "handle", "screen"),
    "not mine": ("too small", "the wrong colour", "not what I thought", "too heavy for me", "not needed any more"),
}
SLIPS = 0.04  # of the words are mistyped


def message(queue: str, rng: np.random.Generator) -> str:
    """Return what a customer of ``queue`` may write, slips of the pen included."""
    text = f"<{queue}>"
    while found := re.search("<([^<>]+)>", text):
        text = text[: found.start()] + str(rng.choice(GRAMMAR[found[1]])) + text[found.end() :]
    return " ".join(_mistyped(word, rng) if rng.random() < SLIPS else word for word in text.split())


def _mistyped(word: str, rng: np.random.Generator) -> str:
    if len(word) < 3:
        return word
    i = int(rng.integers(len(word) - 1))
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :]


def messages(n: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Return ``n`` messages and their queues; 3% stand in a wrong one, as they do in any mailbox."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(QUEUES), n)
    texts = [message(QUEUES[label], rng) for label in labels]
    wrong = rng.random(n) < 0.03
    return texts, np.where(wrong, rng.integers(0, len(QUEUES), n), labels).astype(np.int32)
