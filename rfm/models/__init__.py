"""Trained flows that come with the package, each in a folder of its own with a card, and how one is put there."""

from rfm.models.card import Card
from rfm.models.packaged import card, folder, load, names, pack, unpacked

__all__ = ["Card", "card", "folder", "load", "names", "pack", "unpacked"]
