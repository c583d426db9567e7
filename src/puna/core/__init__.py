"""The nouns that flow through the house, and the protocols that the rooms meet at.

Nothing here imports torch, or any other room: whatever crosses a floor is one of these. A frozen, slotted
dataclass has no behaviour beyond reading and writing itself.
"""
