"""Crystals: types of atoms, places and cell by one joint flow, beside what needs none."""
